//! Waiting for a traced process to stop, and letting it go on: the kernel's words turned into ours.
//!
//! Signals are plain numbers here: real-time signals have no names, and are passed on like any other.

use std::io;
use std::ptr;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;

use super::Exit;

/// What the kernel reports of a traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// About to get this signal.
    Signal(i32),
    /// Stopped by job control, as it would be untraced.
    Group,
    /// Stopped for the tracer alone: job control has ended, or the tracer asked.
    Tracer,
    /// Entering or leaving a system call.
    SystemCall,
    /// Has become another program.
    Executed,
    /// About to end.
    Exiting,
    /// Gone.
    Ended(Exit),
}

/// How a stopped process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// Until something happens.
    Freely,
    /// Until its next system call.
    ToSystemCall,
    /// Not at all: stays stopped until a signal continues it, which is then reported.
    Listen,
    /// Without us.
    Alone,
}

/// The marker of a stop for job control or for the tracer.
const EVENT_STOP: i32 = 128;
/// What `TRACESYSGOOD` adds to the signal of a stop at a system call.
const SYSTEM_CALL: i32 = 0x80;

/// Traces `pid`, which runs on.
pub(super) fn seize(pid: Pid) -> Result<(), Errno> {
    ptrace::seize(
        pid,
        Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACEEXIT | Options::PTRACE_O_TRACESYSGOOD,
    )
}

/// Waits for the next stop.
pub(super) fn wait(pid: Pid) -> Stop {
    wait_with(pid, 0).unwrap_or(Stop::Ended(Exit::Unknown))
}

/// The next stop, if it has come.
pub(super) fn poll(pid: Pid) -> Option<Stop> {
    wait_with(pid, libc::WNOHANG)
}

fn wait_with(pid: Pid, flags: i32) -> Option<Stop> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live integer.
        match unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::__WALL | flags) } {
            0 => return None,
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Some(Stop::Ended(Exit::Unknown)),
            _ => return Some(decode(status)),
        }
    }
}

fn decode(status: i32) -> Stop {
    if libc::WIFEXITED(status) {
        return Stop::Ended(Exit::Status(libc::WEXITSTATUS(status)));
    }
    if libc::WIFSIGNALED(status) {
        return Stop::Ended(Exit::Signal(libc::WTERMSIG(status)));
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 if signal == libc::SIGTRAP | SYSTEM_CALL => Stop::SystemCall,
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_EXEC => Stop::Executed,
        libc::PTRACE_EVENT_EXIT => Stop::Exiting,
        EVENT_STOP if matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) => Stop::Group,
        _ => Stop::Tracer,
    }
}

/// Lets a stopped process go on, with `signal` delivered unless it is 0.
///
/// A process that was killed meanwhile is no error: the next wait tells.
pub(super) fn go(pid: Pid, how: Go, signal: i32) {
    let request = match how {
        Go::Freely => libc::PTRACE_CONT,
        Go::ToSystemCall => libc::PTRACE_SYSCALL,
        Go::Listen => libc::PTRACE_LISTEN,
        Go::Alone => libc::PTRACE_DETACH,
    };
    // SAFETY: these requests read no memory of ours: the last argument is the number of the signal.
    unsafe { libc::ptrace(request, pid.as_raw(), ptr::null_mut::<u8>(), i64::from(signal)) };
}

/// Makes a seized process that runs stop.
pub(super) fn interrupt(pid: Pid) -> io::Result<()> {
    ptrace::interrupt(pid).map_err(super::io_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_as_the_kernel_codes_them() {
        let stopped = |event: i32, signal: i32| event << 16 | signal << 8 | 0x7f;
        assert_eq!(decode(7 << 8), Stop::Ended(Exit::Status(7)));
        assert_eq!(decode(libc::SIGSEGV | 0x80), Stop::Ended(Exit::Signal(libc::SIGSEGV)));
        assert_eq!(decode(stopped(0, libc::SIGTERM)), Stop::Signal(libc::SIGTERM));
        assert_eq!(decode(stopped(0, 64)), Stop::Signal(64));
        assert_eq!(decode(stopped(0, libc::SIGTRAP)), Stop::Signal(libc::SIGTRAP));
        assert_eq!(decode(stopped(0, libc::SIGTRAP | 0x80)), Stop::SystemCall);
        assert_eq!(decode(stopped(libc::PTRACE_EVENT_EXEC, libc::SIGTRAP)), Stop::Executed);
        assert_eq!(decode(stopped(libc::PTRACE_EVENT_EXIT, libc::SIGTRAP)), Stop::Exiting);
        assert_eq!(decode(stopped(EVENT_STOP, libc::SIGTTIN)), Stop::Group);
        assert_eq!(decode(stopped(EVENT_STOP, libc::SIGTRAP)), Stop::Tracer);
    }
}
