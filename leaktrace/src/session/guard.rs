//! Refusals before anything is attached: where a probe could hurt the target.

use anyhow::{Result, bail};
use nix::sys::utsname::uname;

use crate::target::{Process, Seccomp};

/// From Linux 6.11 a return probe comes back by a system call of its own, which a filter that does not know it can
/// answer by killing the process; from 6.14 the kernel lets it pass by every filter.
const FILTERED_FROM: (u32, u32) = (6, 11);
const PASSED_FROM: (u32, u32) = (6, 14);

/// Refuses a process that return probes could kill.
pub fn check(process: &Process) -> Result<()> {
    let release = uname()
        .map(|system| system.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let filtered = process.seccomp().unwrap_or(Seccomp::Off) != Seccomp::Off;
    if filtered && returns_are_filtered(&release) {
        bail!(
            "process {} has a seccomp filter, and on Linux {release} a return probe could make it kill the process: \
             not attached; Linux 6.14 or newer lets return probes pass",
            process.pid
        );
    }
    Ok(())
}

fn returns_are_filtered(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (FILTERED_FROM..PASSED_FROM).contains(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_between_filter_return_probes() {
        for (release, filtered) in [
            ("6.1.0-18-amd64", false),
            ("6.11.0", true),
            ("6.13.7-arch1", true),
            ("6.14.0", false),
            ("6.18.44", false),
        ] {
            assert_eq!(returns_are_filtered(release), filtered, "{release}");
        }
    }
}
