//! What was traced, on one line. Pure.

use crate::profile::{Exit, Profile};
use crate::report::label;

/// `/usr/bin/orders --port 8080 (pid 4711), c++, glibc, on web1, Linux 6.18.5; ended with status 1`.
pub(super) fn line(profile: &Profile) -> String {
    let target = &profile.target;
    let pids: Vec<String> = target.pids.iter().map(u32::to_string).collect();
    let allocators = target.allocators.join(" + ");
    let host = if target.host.is_empty() {
        String::new()
    } else {
        format!("on {}", target.host)
    };
    let kernel = if target.kernel.is_empty() {
        String::new()
    } else {
        format!("Linux {}", target.kernel)
    };
    let words = [target.language.as_str(), &allocators, &host, &kernel];
    let known: Vec<&str> = words
        .into_iter()
        .filter(|word| !word.is_empty() && *word != "unknown")
        .collect();
    let command = if target.command.is_empty() {
        &target.exe
    } else {
        &target.command
    };
    let what = format!(
        "{command} (pid {}){}{}",
        pids.join(", "),
        if known.is_empty() { "" } else { "; " },
        known.join(", ")
    );
    let ended = target.exit.map(ended).unwrap_or_default();
    label::one_line(&(what + &ended)).into_owned()
}

fn ended(exit: Exit) -> String {
    match exit {
        Exit::Status(status) => format!("; ended with status {status}"),
        Exit::Signal(signal) => format!("; killed by signal {signal}"),
        Exit::Ended => "; ended during the trace".to_owned(),
    }
}
