//! Starting a command held, and following it to its end.
//!
//! The command is a child of leaktrace, traced with ptrace by a thread of its own. It is stopped before its first
//! instruction, after each file with code that its loader maps, when another program takes its place, and when it is
//! about to end, its memory still there; between those it runs on its own, and gets its signals unchanged. ptrace is
//! used without the option that kills: whatever happens to leaktrace, the command runs on. For programs that do not
//! work under ptrace, [`Launched::release`] ends the tracing, and only the end is told from then on.
//!
//! What cannot be had:
//! - A setuid program loses its privilege, unless leaktrace is root: the kernel grants none under an unprivileged
//!   tracer.
//! - Only the main thread is traced. Where it ends before the others ([`Event::LeaderGone`]), the process ends without
//!   [`Event::Exiting`]. Where another thread executes a program, that program has run for some microseconds before
//!   [`Event::Executed`].
//! - A loader that is started by hand (`/lib64/ld-linux-x86-64.so.2 program`) counts as a static program: what it maps
//!   is not told.
//! - A second `SIGKILL` during [`Event::Exiting`] ends it, and the memory is gone under the reader.

mod child;
mod follow;
mod identity;
mod loader;
mod objection;
mod stops;

use std::ffi::OsString;
use std::io;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use identity::Identity;
pub use objection::objection;

/// A command that was started, and is held until told to proceed.
///
/// Dropping it lets the command run on, untraced from its next stop.
#[derive(Debug)]
pub struct Launched {
    /// Its process.
    pub pid: u32,
    events: UnboundedReceiver<Event>,
    orders: mpsc::Sender<Order>,
}

/// What a followed command has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its program is in memory, and has not run. Stopped until [`Launched::proceed`].
    Held,
    /// Its loader has mapped a file with code at this address; nothing of that has run. Stopped until
    /// [`Launched::proceed`].
    Mapped(u64),
    /// Its loader has done: what it mapped is all there, and the program itself is about to make its first system call.
    /// Of a static program, this follows [`Event::Held`] at once; of a musl program, whose C library is the loader, it
    /// comes late or never. Stopped until [`Launched::proceed`].
    Started,
    /// It has become another program: whatever was known of its memory is void. Stopped until [`Launched::proceed`].
    Executed,
    /// Its main thread ended while others run on. Not stopped.
    LeaderGone,
    /// It is about to end, and its memory is still there. Stopped until [`Launched::proceed`].
    Exiting,
    /// It has ended. The last event.
    Ended(Exit),
}

/// What is to become of a command that is stopped at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Proceed,
    Release,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit status.
    Status(i32),
    /// Killed by this signal.
    Signal(i32),
    /// Not known: whoever started leaktrace made it ignore `SIGCHLD`, and the kernel kept no status.
    Unknown,
}

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No command was given.
    #[error("no command to start: give one after `--`")]
    NoCommand,
    /// An argument that no program can be given.
    #[error("cannot start '{0}': an argument contains a NUL byte")]
    Argument(String),
    /// The command does not exist.
    #[error("cannot start '{0}': no such command; give its path, or add its directory to PATH")]
    NotFound(String),
    /// The command may not be executed.
    #[error("cannot start '{0}': permission denied; the user it runs as must be able to reach and execute it")]
    Denied(String),
    /// Executing it failed otherwise.
    #[error("cannot start '{0}': {1}")]
    Execute(String, io::Error),
    /// Who called sudo is not clear, and running as root instead was not asked for.
    #[error("cannot tell which user called sudo ({0}); to run the command as root, unset SUDO_UID")]
    Caller(String),
    /// Becoming the user who called sudo failed.
    #[error("cannot run '{0}' as the user who called sudo: {1}")]
    Identity(String, io::Error),
    /// No process or thread could be made for it.
    #[error("cannot start '{0}': no new process: {1}")]
    Fork(String, io::Error),
    /// It may not be traced.
    #[error("cannot hold '{0}' before it starts: {1}; a sandbox, or kernel.yama.ptrace_scope=3, may forbid ptrace")]
    Trace(String, io::Error),
    /// It ended before it was executed.
    #[error("cannot start '{0}': it ended before it was executed ({1:?})")]
    Died(String, Exit),
}

/// Starts `program` (command and arguments) and holds it before its first instruction: [`Event::Held`] is the first
/// event.
///
/// It shares the caller's terminal, process group and standard streams. Under sudo it runs as the user who called
/// sudo. Blocks for the milliseconds this takes. To be called before handlers for signals are installed: a signal that
/// leaktrace was started to ignore, the command ignores too.
///
/// # Errors
/// When the command cannot be executed, or may not be traced.
pub fn launch(program: &[OsString]) -> Result<Launched, LaunchError> {
    let identity = if nix::unistd::geteuid().is_root() {
        identity::caller(|name| std::env::var_os(name))?
    } else {
        None
    };
    launch_as(program, identity)
}

fn launch_as(program: &[OsString], identity: Option<Identity>) -> Result<Launched, LaunchError> {
    let command = child::Command::new(program, identity)?;
    let name = command.name();
    let (started, start) = mpsc::sync_channel(1);
    let (orders, received) = mpsc::channel();
    let (sender, events) = unbounded_channel();
    // One thread for all of it: the kernel takes ptrace requests from the thread that attached.
    let thread = thread::Builder::new().name("follow".to_owned());
    let run = move || match follow::start(&command) {
        Ok(pid) => {
            // The caller waits for this; should it be gone all the same, the first event finds out.
            let _ = started.send(Ok(pid));
            follow::follow(pid, &sender, &received);
        }
        Err(error) => drop(started.send(Err(error))),
    };
    thread
        .spawn(run)
        .map_err(|error| LaunchError::Fork(name.clone(), error))?;
    let ended = |_| LaunchError::Fork(name, io::Error::other("the thread that starts it ended"));
    let pid = start.recv().map_err(ended)??;
    Ok(Launched {
        pid: pid.as_raw().cast_unsigned(),
        events,
        orders,
    })
}

impl Launched {
    /// The next event, when it comes; none after [`Event::Ended`].
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same, blocking. Not to be called from within an asynchronous runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }

    /// Lets the command go on from the event it is stopped at; does nothing when it is not.
    pub fn proceed(&self) {
        // Nobody listens once the command has ended: then there is nothing to let go.
        let _ = self.orders.send(Order::Proceed);
    }

    /// Lets the command go on from the event it is stopped at, and leaves it untraced from then on; does nothing when
    /// it is not stopped. Of all events, only [`Event::Ended`] still comes.
    pub fn release(&self) {
        let _ = self.orders.send(Order::Release);
    }
}

fn io_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

#[cfg(test)]
mod tests;
