//! Tracing a command from its first instruction to its end.

use std::ffi::OsString;

use anyhow::Result;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    attach::{Asked, Interrupts, announce, report},
    clock::{Due, Timers},
    output,
    snapshot::Detail,
    trace::Trace,
};
use crate::{
    probes::plan::PlanError,
    profile::{Exit, Profile},
    settings::TraceSettings,
    target::launch::{self, Event, Launched},
};

/// A command being traced.
struct Session<'a> {
    settings: &'a TraceSettings,
    launched: Launched,
    trace: Option<Trace>,
    /// Why nothing could be traced so far.
    unarmed: Option<PlanError>,
    announced: bool,
    previous: Option<Profile>,
    /// Whether it runs without ptrace by now.
    released: bool,
    /// The profile made while the memory of the ending command was still there, or its program.
    last: Option<Profile>,
}

/// Starts the command, reports until its end, and says how it ended.
pub async fn run(settings: &TraceSettings, command: &[OsString]) -> Result<()> {
    // Before signals are caught: the command inherits what was ignored.
    let launched = launch::launch(command)?;
    super::raise_file_limit();
    let mut interrupts = Interrupts::listen()?;
    let mut session = Session {
        settings,
        launched,
        trace: None,
        unarmed: None,
        announced: false,
        previous: None,
        released: false,
        last: None,
    };
    let exit = session.follow(&mut interrupts).await?;
    session.finish(exit)
}

impl Session<'_> {
    /// Until the command ends, or the time is up: then there is no exit.
    async fn follow(&mut self, interrupts: &mut Interrupts) -> Result<Option<Exit>> {
        let mut timers = Timers::start(self.settings);
        let mut timed = false;
        let mut asked = 0;
        loop {
            tokio::select! {
                biased;
                event = self.launched.next() => match event {
                    Some(Event::Ended(exit)) => {
                        // What the kernel side has told before the end may not have been heard yet.
                        self.trace.as_mut().map(Trace::drain);
                        self.look_for_replacement()?;
                        return Ok(Some(exit_of(exit)));
                    }
                    Some(event) => {
                        self.handle(event)?;
                        // The time that was asked for is time traced.
                        if self.announced && !timed {
                            (timers, timed) = (Timers::start(self.settings), true);
                        }
                    }
                    None => return Ok(Some(Exit::Ended)),
                },
                who = interrupts.next() => {
                    // A terminal has sent it to the command as well, which decides.
                    asked += u32::from(who == Asked::ByProgram);
                    if who == Asked::ByProgram && (asked > 1 || !self.terminate()) {
                        return Ok(None);
                    }
                }
                due = timers.due() => {
                    if due == Due::End {
                        return Ok(None);
                    }
                    self.tick(due)?;
                }
                () = events_ready(self.trace.as_ref()) => {
                    self.trace.as_mut().map(Trace::drain);
                    self.look_for_replacement()?;
                }
            }
        }
    }

    /// Asks the command to end; says whether it is there to be asked.
    fn terminate(&self) -> bool {
        kill(Pid::from_raw(self.launched.pid as i32), Signal::SIGTERM).is_ok()
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            // Of another program in its place, too: the one before is gone, and its memory with it.
            Event::Held | Event::Executed => self.begin()?,
            Event::Mapped(_) => self.arm()?,
            Event::Started if self.is_to_be_released() => {
                self.released = true;
                self.launched.release();
                return Ok(());
            }
            Event::Started => {}
            Event::Exiting => self.last = self.final_profile()?,
            Event::LeaderGone | Event::Ended(_) => return Ok(()),
        }
        self.launched.proceed();
        Ok(())
    }

    /// A program is in memory and has not run.
    fn begin(&mut self) -> Result<()> {
        self.trace = None;
        self.previous = None;
        self.announced = false;
        self.trace = Some(Trace::new(self.settings, self.launched.pid)?);
        self.arm()
    }

    fn arm(&mut self) -> Result<()> {
        let Some(trace) = &mut self.trace else { return Ok(()) };
        match trace.arm()? {
            // Its loader may map one yet; without a loader nothing will change, and nothing of it has run so far.
            Err(nothing) if !trace.has_loader() => {
                let _ = kill(Pid::from_raw(self.launched.pid as i32), Signal::SIGKILL);
                return Err(nothing.into());
            }
            Err(nothing) => self.unarmed = Some(nothing),
            Ok(0) => {}
            Ok(_) if self.announced => {}
            Ok(_) => {
                announce(trace, self.settings, "");
                self.announced = true;
            }
        }
        Ok(())
    }

    fn tick(&mut self, due: Due) -> Result<()> {
        let Some(trace) = &mut self.trace else { return Ok(()) };
        if self.last.is_some() {
            return Ok(());
        }
        match due {
            Due::Report if self.announced => report(self.settings, trace, &mut self.previous),
            _ => {
                trace.turn();
                self.look_for_replacement()
            }
        }
    }

    /// Whether the command is to run without ptrace from now on: all that it starts with has been seen.
    fn is_to_be_released(&self) -> bool {
        let Some(trace) = &self.trace else { return false };
        if !self.settings.hold {
            return true;
        }
        let objection = launch::objection(trace.space());
        if let Some(why) = objection {
            output::say(&format!("{} is not held at its end: {why}", trace.process().comm));
        }
        objection.is_some()
    }

    /// A released command that becomes another program cannot be held before that runs. Its trace ends here.
    fn look_for_replacement(&mut self) -> Result<()> {
        let Some(trace) = self.trace.as_mut().filter(|trace| trace.is_replaced()) else {
            return Ok(());
        };
        if !self.released || self.last.is_some() {
            return Ok(());
        }
        trace.stop()?;
        self.last = Some(trace.profile(Detail::Full)?);
        output::say(&format!(
            "process {} has replaced its program, and was not held for that: the report is of the one before; to trace \
             the new one, start it directly",
            self.launched.pid
        ));
        Ok(())
    }

    /// The numbers are final, and the memory is there to be looked at.
    fn final_profile(&mut self) -> Result<Option<Profile>> {
        let Some(trace) = &mut self.trace else { return Ok(None) };
        trace.settle()?;
        trace.look_for_holders();
        trace.take_notes().iter().for_each(|note| output::say(note));
        trace.follow_code();
        Ok(Some(trace.profile(Detail::Full)?))
    }

    fn finish(mut self, exit: Option<Exit>) -> Result<()> {
        let Some(trace) = &mut self.trace else { return Ok(()) };
        trace.stop()?;
        if !self.announced
            && let Some(nothing) = self.unarmed
        {
            return Err(nothing.into());
        }
        let mut profile = match self.last {
            Some(profile) => profile,
            None => trace.profile(Detail::Full)?,
        };
        profile.target.exit = exit;
        output::say(&ending(exit));
        output::write_all(self.settings, &profile)
    }
}

/// Waits for the kernel side of the trace to tell something, if there is a trace.
async fn events_ready(trace: Option<&Trace>) {
    match trace {
        Some(trace) => trace.events_ready().await,
        None => std::future::pending().await,
    }
}

fn ending(exit: Option<Exit>) -> String {
    match exit {
        None => "the command runs on, no longer traced".into(),
        Some(Exit::Status(status)) => format!("the command ended with exit status {status}"),
        Some(Exit::Signal(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("the command was killed by {signal}"),
            Err(_) => format!("the command was killed by signal {number}"),
        },
        Some(Exit::Ended) => "the command has ended".into(),
    }
}

fn exit_of(exit: launch::Exit) -> Exit {
    match exit {
        launch::Exit::Status(status) => Exit::Status(status),
        launch::Exit::Signal(number) => Exit::Signal(number),
        launch::Exit::Unknown => Exit::Ended,
    }
}
