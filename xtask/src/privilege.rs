//! Root, for exactly the steps that need it: as one is, through sudo, or not at all.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

use crate::command::on_path;

/// A command that runs `program` as root with these variables set, or `None` where root cannot be had. Says so when
/// it takes sudo, and `what` for.
pub fn as_root(program: impl AsRef<OsStr>, variables: &[(&str, &OsStr)], what: &str) -> Option<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Some(command);
    }
    if !sudo_works() {
        return None;
    }
    eprintln!("xtask: with sudo: {what}");
    let mut command = Command::new("sudo");
    command.arg("--");
    // sudo drops the environment, so that it is named on the command line.
    if let Some(path) = env::var_os("PATH") {
        command.arg("env").arg(assignment("PATH", &path));
        command.args(variables.iter().map(|(name, value)| assignment(name, value)));
    }
    command.arg(program);
    Some(command)
}

/// Whether this runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn assignment(name: &str, value: &OsStr) -> std::ffi::OsString {
    let mut assignment = std::ffi::OsString::from(name);
    assignment.push("=");
    assignment.push(value);
    assignment
}

/// Whether sudo would run something: it asks for no password, or there is somebody to ask.
fn sudo_works() -> bool {
    let silent = || {
        let mut sudo = Command::new("sudo");
        sudo.args(["--non-interactive", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        sudo.status().is_ok_and(|status| status.success())
    };
    on_path("sudo") && (io::stdin().is_terminal() || silent())
}
