//! The command before it is executed: a fork of leaktrace that waits to be traced, becomes the caller's user and
//! executes.
//!
//! leaktrace has threads, so between fork and exec the child makes only calls that are safe in a signal handler:
//! everything it needs is prepared before.

use std::env;
use std::ffi::{CString, OsStr, OsString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::unistd::{ForkResult, Pid, fork, pipe2, read, write};

use super::identity::{Identity, SUDO_VARIABLES};
use super::{Exit, LaunchError, io_error};

/// What the child says when it fails: which step, and the error.
const MESSAGE_BYTES: usize = 8;
const BECOMING_THE_USER: i32 = 1;
const EXECUTING: i32 = 2;
/// Highest number of a signal on Linux.
const LAST_SIGNAL: c_int = 64;
/// Exit status of a child that could not be executed; nobody sees it.
const NOT_EXECUTED: c_int = 127;

/// A command, ready to be executed.
pub(super) struct Command {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    identity: Option<Identity>,
}

/// A child that waits to be told to execute.
pub(super) struct Waiting {
    pub pid: Pid,
    go: OwnedFd,
    failure: OwnedFd,
}

impl Command {
    pub(super) fn new(program: &[OsString], identity: Option<Identity>) -> Result<Self, LaunchError> {
        let first = program.first().ok_or(LaunchError::NoCommand)?;
        let arguments = program.iter().map(|argument| CString::new(argument.as_encoded_bytes()));
        let arguments = arguments
            .collect::<Result<_, _>>()
            .map_err(|_| LaunchError::Argument(first.to_string_lossy().into_owned()))?;
        let environment = environment(identity.as_ref());
        Ok(Self {
            arguments,
            environment,
            identity,
        })
    }

    /// What it is called in errors.
    pub(super) fn name(&self) -> String {
        self.arguments
            .first()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Forks; the child waits for [`Waiting::go`].
    pub(super) fn fork(&self) -> Result<Waiting, LaunchError> {
        self.try_fork()
            .map_err(|errno| LaunchError::Fork(self.name(), io_error(errno)))
    }

    fn try_fork(&self) -> Result<Waiting, Errno> {
        let (go_read, go_write) = pipe2(OFlag::O_CLOEXEC)?;
        // Not to be waited on: a child that another thread forks at this moment holds its other end for a while.
        let (failure_read, failure_write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        // leaktrace's handlers must not run in the child.
        let mut mask = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))?;
        let plan = Plan {
            arguments: &arguments,
            environment: &environment,
            identity: self.identity.as_ref(),
            mask,
            go: go_read.as_raw_fd(),
            not_mine: go_write.as_raw_fd(),
            failure: failure_write.as_raw_fd(),
        };
        // SAFETY: the child runs only `execute`, which makes only async-signal-safe calls and does not return.
        let forked = unsafe { fork() };
        if matches!(forked, Ok(ForkResult::Child)) {
            // SAFETY: this is the child of a fork, and the pointers in the plan outlive it.
            unsafe { execute(&plan) }
        }
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        match forked? {
            ForkResult::Parent { child } => Ok(Waiting {
                pid: child,
                go: go_write,
                failure: failure_read,
            }),
            ForkResult::Child => Err(Errno::ENOEXEC),
        }
    }

    /// The error of a child that ended without having been executed.
    pub(super) fn failure(&self, waiting: &Waiting, exit: Exit) -> LaunchError {
        let mut message = [0; MESSAGE_BYTES];
        if read(&waiting.failure, &mut message) != Ok(MESSAGE_BYTES) {
            return LaunchError::Died(self.name(), exit);
        }
        let (&[step, errno], _) = message.as_chunks() else {
            return LaunchError::Died(self.name(), exit);
        };
        let (step, errno) = (i32::from_ne_bytes(step), Errno::from_raw(i32::from_ne_bytes(errno)));
        match (step, errno) {
            (EXECUTING, Errno::ENOENT | Errno::ENOTDIR) => LaunchError::NotFound(self.name()),
            (EXECUTING, Errno::EACCES | Errno::EPERM) => LaunchError::Denied(self.name()),
            (EXECUTING, errno) => LaunchError::Execute(self.name(), io_error(errno)),
            (_, errno) => LaunchError::Identity(self.name(), io_error(errno)),
        }
    }
}

impl Waiting {
    /// Lets the child execute. One that is never told ends by itself.
    pub(super) fn go(&self) -> io::Result<()> {
        write(&self.go, &[1]).map(drop).map_err(io_error)
    }
}

/// leaktrace's environment, with the user's own names and home in it when another user's command is run.
fn environment(identity: Option<&Identity>) -> Vec<CString> {
    let theirs = identity
        .map(|identity| identity.variables.as_slice())
        .unwrap_or_default();
    let replaced = |name: &OsStr| {
        identity.is_some() && SUDO_VARIABLES.iter().any(|other| name == *other)
            || theirs.iter().any(|(other, _)| name == *other)
    };
    let mine = env::vars_os().filter(|(name, _)| !replaced(name));
    let theirs = theirs.iter().map(|(name, value)| (OsString::from(name), value.clone()));
    let entries = mine
        .chain(theirs)
        .map(|(name, value)| [name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat());
    entries.filter_map(|entry| CString::new(entry).ok()).collect()
}

/// As C wants an array of strings: pointers, with a null one at the end.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// All that the child uses.
struct Plan<'parent> {
    arguments: &'parent [*const c_char],
    environment: &'parent [*const c_char],
    identity: Option<&'parent Identity>,
    mask: SigSet,
    go: RawFd,
    not_mine: RawFd,
    failure: RawFd,
}

/// What the child does. Async-signal-safe: no allocation, no lock, no panic.
///
/// # Safety
/// To be called in the child of a fork only; the pointers in `plan` must be arrays that end with a null pointer.
unsafe fn execute(plan: &Plan) -> ! {
    // SAFETY: calls of the C library that are safe after a fork, with pointers to live values.
    unsafe {
        libc::close(plan.not_mine);
        let mut byte = 0_u8;
        if libc::read(plan.go, (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(NOT_EXECUTED);
        }
        reset_signals();
        if plan.identity.is_some_and(|identity| !become_user(identity)) {
            give_up(plan.failure, BECOMING_THE_USER);
        }
        libc::sigprocmask(libc::SIG_SETMASK, plan.mask.as_ref(), ptr::null_mut());
        if let Some(&file) = plan.arguments.first() {
            libc::execvpe(file, plan.arguments.as_ptr(), plan.environment.as_ptr());
        }
        give_up(plan.failure, EXECUTING)
    }
}

/// Signals that leaktrace handles get their default action, before any can arrive; ignored ones stay ignored, but for
/// `SIGPIPE`, which the runtime of this language ignores in every program.
unsafe fn reset_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: an all-zero `sigaction` is the default action with no flags, and both pointers are to live values.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let read = libc::sigaction(signal, ptr::null(), &raw mut action) == 0;
            if read && (action.sa_sigaction != libc::SIG_IGN || signal == libc::SIGPIPE) {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
    }
}

/// Groups first: once the user has changed, they cannot be.
unsafe fn become_user(identity: &Identity) -> bool {
    let (user, group) = (identity.user.as_raw(), identity.group.as_raw());
    // SAFETY: `Gid` is a transparent `gid_t`, and the length is that of the slice.
    unsafe {
        libc::setgroups(identity.groups.len(), identity.groups.as_ptr().cast()) == 0
            && libc::setresgid(group, group, group) == 0
            && libc::setresuid(user, user, user) == 0
    }
}

/// Tells the parent what failed, and ends.
unsafe fn give_up(failure: RawFd, step: i32) -> ! {
    let errno = Errno::last_raw();
    let message = [step, errno];
    // SAFETY: the message is `MESSAGE_BYTES` long, and lives.
    unsafe {
        libc::write(failure, message.as_ptr().cast(), MESSAGE_BYTES);
        libc::_exit(NOT_EXECUTED)
    }
}
