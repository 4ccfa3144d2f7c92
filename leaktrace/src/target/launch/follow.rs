//! The thread that traces a command, from its start to its end.

use std::fs;
use std::sync::mpsc::Receiver;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::ptrace;
use nix::unistd::Pid;
use tokio::sync::mpsc::UnboundedSender;

use super::child::Command;
use super::loader::{Loader, Step};
use super::stops::{Go, Stop, go, interrupt, poll, seize, wait};
use super::{Event, Exit, LaunchError, Order, io_error};

/// How often, and how far apart, something that other threads are about to do is looked at.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(1);
/// How often a process that is changing its main thread is tried to be traced again: two seconds.
const SEIZE_ATTEMPTS: u32 = 2000;

/// Starts `command`, and leaves it stopped before its first instruction.
pub(super) fn start(command: &Command) -> Result<Pid, LaunchError> {
    let waiting = command.fork()?;
    let pid = waiting.pid;
    let traced = seize(pid).map_err(io_error).and_then(|()| waiting.go());
    if let Err(error) = traced {
        // Never told to execute, the child ends.
        drop(waiting);
        wait(pid);
        return Err(LaunchError::Trace(command.name(), error));
    }
    loop {
        match wait(pid) {
            Stop::Executed => return Ok(pid),
            Stop::Ended(exit) => return Err(command.failure(&waiting, exit)),
            stop => pass(pid, stop, Go::Freely),
        }
    }
}

/// Follows the command `pid`, stopped as [`start`] left it, until it ends or nobody listens.
pub(super) fn follow(pid: Pid, events: &UnboundedSender<Event>, orders: &Receiver<Order>) {
    let mut following = Following {
        pid,
        events,
        orders,
        loader: None,
        program: Event::Held,
    };
    let mut stop = Stop::Executed;
    loop {
        stop = match following.at(stop) {
            Next::GoOn => {
                pass(pid, stop, Loader::go(following.loader.as_ref()));
                wait(pid)
            }
            Next::AwaitReplacement => await_replacement(pid),
            Next::Release => {
                leave(pid, stop);
                Stop::Ended(await_end(pid))
            }
            Next::Leave => return leave(pid, stop),
            Next::Ended => return,
        };
    }
}

/// What is known of a followed process between its stops.
struct Following<'channels> {
    pid: Pid,
    events: &'channels UnboundedSender<Event>,
    orders: &'channels Receiver<Order>,
    /// At work until the program itself runs.
    loader: Option<Loader>,
    /// What the next program is told as.
    program: Event,
}

/// What follows a stop.
enum Next {
    GoOn,
    AwaitReplacement,
    /// Without tracing, to the end.
    Release,
    /// Without us.
    Leave,
    Ended,
}

impl Following<'_> {
    /// Tells of `stop` what is to be told, and says how to go on.
    fn at(&mut self, stop: Stop) -> Next {
        match stop {
            Stop::Ended(exit) => {
                // Whoever does not listen does not want to know.
                let _ = self.events.send(Event::Ended(exit));
                Next::Ended
            }
            Stop::Executed => self.at_program(),
            Stop::SystemCall => self.at_system_call(),
            Stop::Exiting => match ending(self.pid) {
                Ending::Process => self.hold(Event::Exiting),
                Ending::MainThread if self.events.send(Event::LeaderGone).is_err() => Next::Leave,
                Ending::MainThread => Next::GoOn,
                Ending::Replacement => Next::AwaitReplacement,
            },
            Stop::Signal(_) | Stop::Group | Stop::Tracer => self.go_on(),
        }
    }

    fn at_program(&mut self) -> Next {
        let next = self.hold(self.program);
        self.program = Event::Executed;
        self.loader = Loader::of(self.pid);
        match next {
            Next::GoOn if self.loader.is_none() => self.hold(Event::Started),
            next => next,
        }
    }

    fn at_system_call(&mut self) -> Next {
        match self.loader.as_mut().map(|loader| loader.step(self.pid)) {
            Some(Step::Mapped(address)) => self.hold(Event::Mapped(address)),
            Some(Step::Done) => {
                self.loader = None;
                self.hold(Event::Started)
            }
            Some(Step::More) | None => self.go_on(),
        }
    }

    /// Tells of a stop, and waits to be told how to go on: without us, when nobody is left to tell.
    fn hold(&self, event: Event) -> Next {
        // Said about an earlier stop, or about none.
        while self.orders.try_recv().is_ok() {}
        if self.events.send(event).is_err() {
            return Next::Leave;
        }
        match self.orders.recv() {
            Ok(Order::Proceed) => Next::GoOn,
            Ok(Order::Release) => Next::Release,
            Err(_) => Next::Leave,
        }
    }

    fn go_on(&self) -> Next {
        if self.events.is_closed() {
            Next::Leave
        } else {
            Next::GoOn
        }
    }
}

/// Lets the process go on as it would without a tracer.
fn pass(pid: Pid, stop: Stop, how: Go) {
    match stop {
        Stop::Signal(signal) => go(pid, how, signal),
        Stop::Group => go(pid, Go::Listen, 0),
        _ => go(pid, how, 0),
    }
}

/// Stops tracing. The process goes on, or stays stopped where job control stopped it.
fn leave(pid: Pid, stop: Stop) {
    let signal = if let Stop::Signal(signal) = stop { signal } else { 0 };
    go(pid, Go::Alone, signal);
}

/// Waits, as its parent, for the end of a process that was released. One that asks its parent to trace it gets that from
/// the kernel, and stops at its next signal: it is let go again. An exec is such a signal then, which would kill it.
fn await_end(pid: Pid) -> Exit {
    loop {
        match wait(pid) {
            Stop::Ended(exit) => return exit,
            Stop::Signal(libc::SIGTRAP) => leave(pid, Stop::Tracer),
            stop => leave(pid, stop),
        }
    }
}

/// What ends with the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Everything.
    Process,
    /// Only the thread: it called `pthread_exit`, and others run on.
    MainThread,
    /// The program: another thread is executing one, and waits for this thread to end.
    Replacement,
}

/// What ends with the main thread of `pid`, which is stopped about to end.
fn ending(pid: Pid) -> Ending {
    let others = other_threads(pid);
    if others.is_empty() {
        return Ending::Process;
    }
    let in_call = ptrace::getregs(pid).map(|registers| registers.orig_rax.cast_signed());
    if in_call == Ok(libc::SYS_exit) {
        return if others.iter().any(|&thread| lives(pid, thread)) {
            Ending::MainThread
        } else {
            Ending::Process
        };
    }
    if others.into_iter().any(|thread| executes(pid, thread)) {
        Ending::Replacement
    } else {
        Ending::Process
    }
}

fn other_threads(pid: Pid) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let numbers = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|&thread| thread != pid.as_raw()).collect()
}

fn lives(pid: Pid, thread: i32) -> bool {
    let Ok(line) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")) else {
        return false;
    };
    !matches!(state(&line), None | Some('Z' | 'X'))
}

/// The letter after the name, which may itself contain anything.
fn state(line: &str) -> Option<char> {
    line.rsplit_once(") ")?.1.chars().next()
}

/// Whether `thread` waits in a call that executes a program. One that is running may be about to: it is looked at
/// again, a few times.
fn executes(pid: Pid, thread: i32) -> bool {
    for _ in 0..LOOKS {
        match fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall")) {
            Ok(line) if line.starts_with("running") => sleep(PAUSE),
            Ok(line) => return is_execution(&line),
            Err(_) => return false,
        }
    }
    false
}

fn is_execution(line: &str) -> bool {
    let number = line
        .split_ascii_whitespace()
        .next()
        .and_then(|number| number.parse().ok());
    matches!(number, Some(libc::SYS_execve | libc::SYS_execveat))
}

/// Lets the main thread end, and traces the one that takes its place, once it has. The kernel does not take over
/// tracing from one to the other, and cannot be asked before: it would wait for the exec, which waits for us.
fn await_replacement(pid: Pid) -> Stop {
    go(pid, Go::Freely, 0);
    for _ in 0..SEIZE_ATTEMPTS {
        if let Some(stop) = poll(pid) {
            return stop;
        }
        if seize(pid).is_ok() && interrupt(pid).is_ok() {
            return match wait(pid) {
                Stop::Tracer => Stop::Executed,
                other => other,
            };
        }
        sleep(PAUSE);
    }
    wait(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_calls_as_proc_shows_them() {
        assert_eq!(state("7 (a) b) S 1 7 7"), Some('S'));
        assert_eq!(state("7"), None);
        assert!(is_execution("59 0x7ffd 0x0 0x1 0x0 0x0 0x0 0x7ffd 0x7f1a\n"));
        assert!(is_execution("322 0x3 0x0"));
        assert!(!is_execution("590 0x3"));
        assert!(!is_execution("-1 0x7ffd 0x7f1a\n"));
        assert!(!is_execution("running\n"));
    }
}
