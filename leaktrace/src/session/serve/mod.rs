//! `leaktrace serve`: a trace that answers like Go's pprof endpoint until it ends.

mod goroutines;

use std::sync::Arc;

use anyhow::{Result, ensure};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::goroutines::Reader;
use super::{
    attach::{self, End, Interrupts},
    clock::{Due, Timers},
    output,
    snapshot::Detail,
    trace::{Trace, watched},
};
use crate::{
    profile::{Exit, Profile},
    serve::{
        self, Depth, Listener, Sources,
        desk::{Ask, Desk, Refusal, desk},
    },
    settings::{ServeSettings, TraceSettings},
    target::Process,
};

/// Those who wait for a profile.
type Asks = Vec<Ask<Depth, Profile>>;

/// A trace that is served.
struct Session<'a> {
    settings: &'a TraceSettings,
    pid: u32,
    trace: Trace,
    /// Why there is no heap to be served, if there is none.
    no_heap: Option<String>,
    asks: Desk<Depth, Profile>,
    interrupts: Interrupts,
}

/// Attaches, serves until the end, and detaches.
pub async fn run(settings: &ServeSettings) -> Result<()> {
    let listener = Listener::bind(settings.listen).await?;
    super::raise_file_limit();
    let interrupts = Interrupts::listen()?;
    let mut trace = attach::open(&settings.trace, settings.pid)?;
    let no_heap = arm(&mut trace)?;
    let (heap, asks) = desk();
    let (end, ending) = watch::channel(false);
    let mut session = Session {
        settings: &settings.trace,
        pid: settings.pid,
        trace,
        no_heap,
        asks,
        interrupts,
    };
    session.announce(&listener);
    let process = Arc::new(Process::open(settings.pid)?);
    let goroutines = Reader::start(Arc::clone(&process))?;
    let server = tokio::spawn(serve::run(
        listener,
        Sources {
            pid: settings.pid,
            heap,
            goroutines,
            command_line: Arc::new(move || process.arguments().ok().filter(|arguments| !arguments.is_empty())),
            ending,
        },
    ));
    let followed = session.follow().await;
    // Whatever has happened, those who wait are told.
    let _nobody = end.send(true);
    followed?;
    session.finish(server).await
}

/// Places the probes; says why there is no heap to be seen, where goroutines can be all the same.
fn arm(trace: &mut Trace) -> Result<Option<String>> {
    match trace.arm()? {
        Ok(_) => Ok(None),
        Err(nothing) if trace.process().language == "go" => {
            let why = trace.take_notes().into_iter().next();
            let why = why.unwrap_or_else(|| nothing.to_string());
            Ok(Some(format!("no heap profile: {why}")))
        }
        Err(nothing) => Err(nothing.into()),
    }
}

impl Session<'_> {
    /// Says what is served, and where: the address on standard output, for others to use.
    fn announce(&mut self, listener: &Listener) {
        match &self.no_heap {
            None => attach::announce(&mut self.trace, self.settings, "; Ctrl-C ends it"),
            Some(why) => output::say(&format!(
                "serving the goroutines of {} (process {}); {why}; Ctrl-C ends it",
                self.trace.process().comm,
                self.pid
            )),
        }
        listener.warning().iter().for_each(|line| output::say(line));
        output::say_on_stdout(&listener.url());
    }

    /// Answers until the trace is to end. A program that takes the place of the one traced is traced in its turn.
    async fn follow(&mut self) -> Result<()> {
        loop {
            let end = self.watch().await?;
            self.trace.stop()?;
            attach::say_timings(&mut self.trace, self.settings);
            match end {
                End::Asked => return Ok(()),
                End::Exited => {
                    self.trace.set_exit(Exit::Ended);
                    output::say(&format!("process {} has ended", self.pid));
                    return Ok(());
                }
                End::Replaced => {}
            }
            match attach::next_program(self.settings, self.pid).await {
                Ok(next) => (self.trace, self.no_heap) = (next, None),
                Err(why) => {
                    output::say(&format!(
                        "process {} has replaced its program, and the new one is not traced ({why:#})",
                        self.pid
                    ));
                    return Ok(());
                }
            }
            output::say(&format!(
                "process {} has replaced its program: what that held is gone, the new one is served",
                self.pid
            ));
            attach::announce(&mut self.trace, self.settings, "");
        }
    }

    async fn watch(&mut self) -> Result<End> {
        let exited = watched(self.trace.process().exited_fd())?;
        let mut timers = Timers::start(self.settings);
        loop {
            if self.trace.is_replaced() {
                return Ok(End::Replaced);
            }
            tokio::select! {
                biased;
                _ = self.interrupts.next() => return Ok(End::Asked),
                _ = exited.readable() => return Ok(End::Exited),
                due = timers.due() => if due == Due::Turn {
                    self.trace.turn();
                    self.trace.take_notes().iter().for_each(|note| output::say(note));
                },
                asks = self.asks.next() => {
                    ensure!(!asks.is_empty(), "requests are no longer answered: start leaktrace serve again");
                    self.answer(asks);
                }
                () = self.trace.events_ready() => self.trace.drain(),
            }
        }
    }

    fn answer(&mut self, asks: Asks) {
        let is_full = asks.iter().any(|ask| ask.what == Depth::Full);
        let detail = if is_full { Detail::Full } else { Detail::Brief };
        let answer = match &self.no_heap {
            Some(why) => Err(Refusal::Unavailable(why.clone())),
            None => match self.trace.profile(detail) {
                Ok(profile) => Ok(Arc::new(profile)),
                Err(error) => Err(Refusal::Failed(format!("the tables cannot be read: {error:#}"))),
            },
        };
        for ask in asks {
            ask.answer(answer.clone());
        }
    }

    /// Answers those who are still there from what was found in the end.
    async fn finish(mut self, server: JoinHandle<()>) -> Result<()> {
        let mut server = server;
        loop {
            tokio::select! {
                biased;
                _ended = &mut server => return Ok(()),
                _ = self.interrupts.next() => return Ok(()),
                asks = self.asks.next(), if !server.is_finished() => self.answer(asks),
            }
        }
    }
}
