//! Tracing a process that is already running.

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    clock::{Due, Timers},
    guard, output,
    snapshot::Detail,
    trace::{Trace, watched},
};
use crate::{
    profile::{Exit, Profile},
    settings::TraceSettings,
    target::Process,
};

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The time is up, or somebody pressed Ctrl-C.
    Asked,
    /// The process ended.
    Exited,
    /// The process replaced its program.
    Replaced,
}

/// Attaches to `pid`, reports until the end, and detaches.
pub async fn run(settings: &TraceSettings, pid: u32) -> Result<()> {
    super::raise_file_limit();
    let process = Process::open(pid)?;
    guard::check(&process)?;
    let mut interrupts = Interrupts::listen()?;
    let mut trace = Trace::new(settings, process)?;
    trace.arm()??;
    let until_asked = "; Ctrl-C ends the trace and shows the report";
    announce(
        &mut trace,
        settings,
        if settings.duration.is_some() { "" } else { until_asked },
    );
    let end = watch(settings, &mut trace, &mut interrupts).await?;
    trace.stop()?;
    if settings.verbose {
        trace.timings().iter().for_each(|line| output::say(line));
    }
    match end {
        End::Asked => {}
        End::Exited => {
            trace.set_exit(Exit::Ended);
            output::say(&format!("process {pid} has ended"));
        }
        End::Replaced => output::say(&format!(
            "process {pid} has replaced its program: this is the report up to then"
        )),
    }
    output::write_all(settings, &trace.profile(Detail::Full)?)
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
    if settings.verbose {
        trace.timings().iter().for_each(|line| output::say(line));
    }
}

async fn watch(settings: &TraceSettings, trace: &mut Trace, interrupts: &mut Interrupts) -> Result<End> {
    let mut timers = Timers::start(settings);
    let exited = watched(trace.process().exited_fd())?;
    let mut previous = None;
    loop {
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
        if trace.is_replaced() {
            return Ok(End::Replaced);
        }
    }
}

/// A short report of what changed since the previous one.
pub fn report(settings: &TraceSettings, trace: &mut Trace, previous: &mut Option<Profile>) -> Result<()> {
    let started = std::time::Instant::now();
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
