//! Tracing a process that is already running.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    clock::{Due, Timers},
    guard, output,
    snapshot::Detail,
    trace::{Trace, watched},
};
use crate::{
    probes::plan::PlanError,
    profile::{Exit, Profile},
    settings::TraceSettings,
    target::Process,
};

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The time is up, or somebody pressed Ctrl-C.
    Asked,
    /// The process ended.
    Exited,
    /// The process replaced its program.
    Replaced,
}

/// How long a new program is given to map an allocator, and the time between two looks.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Attaches to `pid`, reports until the end, and detaches. A program that takes the place of the one attached to is
/// traced in its turn: the memory of the one before is gone.
pub async fn run(settings: &TraceSettings, pid: u32) -> Result<()> {
    super::raise_file_limit();
    let mut interrupts = Interrupts::listen()?;
    let mut trace = open(settings, pid)?;
    if let Err(nothing) = trace.arm()? {
        return Err(refusal(&nothing, &mut trace));
    }
    announce(&mut trace, settings, advice(settings));
    let mut timers = Timers::start(settings);
    loop {
        let end = watch(settings, &mut trace, &mut interrupts, &mut timers).await?;
        let replaced = Instant::now();
        trace.stop()?;
        trace.take_notes().iter().for_each(|note| output::say(note));
        say_timings(&mut trace, settings);
        if end == End::Exited {
            trace.set_exit(Exit::Ended);
            output::say(&format!("process {pid} has ended"));
        }
        let profile = trace.profile(Detail::Full)?;
        if end != End::Replaced {
            return output::write_all(settings, &profile);
        }
        match next_program(settings, pid).await {
            Ok(next) => trace = next,
            Err(why) => {
                output::say(&format!(
                    "process {pid} has replaced its program, and the new one is not traced ({why:#}): this is the \
                     report up to then"
                ));
                return output::write_all(settings, &profile);
            }
        }
        output::say(&format!(
            "process {pid} has replaced its program: what that held is gone, its report up to then {}; the new one is \
             traced from {:.0?} after",
            output::write_interim(settings, &profile)?,
            replaced.elapsed()
        ));
        announce(&mut trace, settings, advice(settings));
    }
}

/// Why nothing is traced, and what can be seen all the same.
fn refusal(nothing: &PlanError, trace: &mut Trace) -> anyhow::Error {
    let notes = trace.take_notes();
    let (process, why) = (trace.process(), notes.first());
    match (process.language, why) {
        ("go", Some(why)) => anyhow::anyhow!("{nothing}; {why}"),
        _ => anyhow::anyhow!("{nothing}"),
    }
}

pub fn open(settings: &TraceSettings, pid: u32) -> Result<Trace> {
    let process = Process::open(pid)?;
    guard::check(&process)?;
    Trace::new(settings, pid)
}

/// The trace of the program that process `pid` has become, armed as soon as its loader has mapped an allocator.
pub async fn next_program(settings: &TraceSettings, pid: u32) -> Result<Trace> {
    let since = Instant::now();
    let mut trace = open(settings, pid)?;
    trace.set_began_untraced();
    loop {
        match trace.arm()? {
            Ok(_) => return Ok(trace),
            Err(nothing) if since.elapsed() > PATIENCE || !trace.has_loader() => return Err(nothing.into()),
            // Whether it is still there at all is asked again.
            Err(_) => drop(Process::open(pid)?),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn advice(settings: &TraceSettings) -> &'static str {
    if settings.duration.is_some() {
        ""
    } else {
        "; Ctrl-C ends the trace and shows the report"
    }
}

pub fn say_timings(trace: &mut Trace, settings: &TraceSettings) {
    if settings.verbose {
        trace.timings().iter().for_each(|line| output::say(line));
    }
}

/// One line on what is traced, once everything is in place, and what is not; `advice` is what the user can do.
pub fn announce(trace: &mut Trace, settings: &TraceSettings, advice: &str) {
    for note in trace.take_notes() {
        output::say(&note);
    }
    let process = trace.process();
    let allocators = trace.allocators().join(", ");
    output::say(&format!(
        "tracing {} (process {}): {allocators}{advice}",
        process.comm, process.pid
    ));
    say_timings(trace, settings);
}

async fn watch(
    settings: &TraceSettings,
    trace: &mut Trace,
    interrupts: &mut Interrupts,
    timers: &mut Timers,
) -> Result<End> {
    let exited = watched(trace.process().exited_fd())?;
    let mut previous = None;
    loop {
        if trace.is_replaced() {
            return Ok(End::Replaced);
        }
        tokio::select! {
            biased;
            _ = interrupts.next() => return Ok(End::Asked),
            _ = exited.readable() => return Ok(End::Exited),
            due = timers.due() => match due {
                Due::End => return Ok(End::Asked),
                Due::Turn => {
                    trace.turn();
                    trace.take_notes().iter().for_each(|note| output::say(note));
                }
                Due::Report => report(settings, trace, &mut previous)?,
            },
            () = trace.events_ready() => trace.drain(),
        }
    }
}

/// A short report of what changed since the previous one.
pub fn report(settings: &TraceSettings, trace: &mut Trace, previous: &mut Option<Profile>) -> Result<()> {
    let started = Instant::now();
    let profile = trace.profile(Detail::Brief)?;
    if settings.verbose {
        output::say(&format!(
            "profile of {} sites made in {:?}",
            profile.sites.len(),
            started.elapsed()
        ));
    }
    output::write_interval(settings, previous.as_ref(), &profile)?;
    *previous = Some(profile);
    Ok(())
}

/// Ctrl-C, and being asked to end.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    /// From now on these signals do not end leaktrace by themselves.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| anyhow::anyhow!("cannot listen for signals: {e}"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for any of them.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::ByTerminal,
            _ = self.terminate.recv() => Asked::ByProgram,
            _ = self.hangup.recv() => Asked::ByProgram,
        }
    }
}

/// Who asked leaktrace to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Ctrl-C, which goes to everything on the terminal.
    ByTerminal,
    /// A signal to leaktrace alone.
    ByProgram,
}
