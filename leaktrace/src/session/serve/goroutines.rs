//! Looks at the goroutines of a process, each time that somebody asks, in a thread of its own: a look can take long, and
//! the trace must not wait for it.

use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};

use crate::{
    go::{GoError, Runtime},
    profile::goroutines::Goroutines,
    report::goroutines::Which,
    serve::desk::{Answer, Bell, Desk, Refusal, desk},
    session::goroutines::view::Viewer,
    target::{AddressSpace, Process, Program},
};

/// After so many looks what was kept from one to the next is thrown away, so that it does not grow for ever.
const KEPT_FOR: u32 = 1000;

/// Reads goroutines on request.
pub struct Reader {
    process: Arc<Process>,
    /// The program that was looked at last, and how.
    opened: Option<(Program, Viewer)>,
    looks: u32,
}

impl Reader {
    /// Starts a thread that looks at the goroutines of `process` for those who ask.
    pub fn start(process: Arc<Process>) -> Result<Bell<Which, Goroutines>> {
        let (bell, desk) = desk();
        let reader = Self {
            process,
            opened: None,
            looks: 0,
        };
        let thread = thread::Builder::new().name("goroutines".into());
        // It ends when nobody is left to ask.
        let _detached = thread
            .spawn(move || reader.serve(desk))
            .context("cannot start a thread")?;
        Ok(bell)
    }

    fn serve(mut self, mut desk: Desk<Which, Goroutines>) {
        loop {
            let asks = desk.blocking_next();
            if asks.is_empty() {
                return;
            }
            let (all, leaked): (Vec<_>, Vec<_>) = asks.into_iter().partition(|ask| ask.what == Which::All);
            for asks in [all, leaked] {
                if let Some(first) = asks.first() {
                    let answer = self.look(first.what);
                    for ask in asks {
                        ask.answer(answer.clone());
                    }
                }
            }
        }
    }

    fn look(&mut self, which: Which) -> Answer<Goroutines> {
        let Ok(program) = self.process.program() else {
            return Err(self.ended());
        };
        if self.opened.as_ref().is_none_or(|(opened, _)| *opened != program) {
            self.opened = Some((program, self.open()?));
        }
        let Some((_, viewer)) = &mut self.opened else {
            return Err(self.ended());
        };
        self.looks += 1;
        if self.looks.is_multiple_of(KEPT_FOR) {
            viewer.forget();
        }
        let looked = match which {
            Which::All => viewer.look(),
            Which::Leaked => viewer.look_for_leaks(),
        };
        // What was read may be another program's by now, taken for this one's.
        match self.process.program() {
            Ok(now) if now == program => looked.map(Arc::new).map_err(|error| self.refusal(&error)),
            Ok(_) => Err(Refusal::Unavailable(format!(
                "process {} has just become another program: ask again",
                self.process.pid
            ))),
            Err(_) => Err(self.ended()),
        }
    }

    fn open(&self) -> Result<Viewer, Refusal> {
        let space = AddressSpace::read(self.process.pid).map_err(|_| self.ended())?;
        let runtime = Runtime::open(&space).map_err(|error| self.refusal(&error))?;
        Ok(Viewer::new(&self.process, runtime))
    }

    fn refusal(&self, error: &GoError) -> Refusal {
        let pid = self.process.pid;
        match error {
            _ if !self.process.is_alive() => self.ended(),
            GoError::NotGo(_) => Refusal::Absent(format!("process {pid} is no Go program: it has no goroutines")),
            GoError::NoProof { what, .. } => Refusal::Unavailable(format!(
                "the heap of process {pid} cannot be looked through for leaks: {what}"
            )),
            error => Refusal::Unavailable(error.to_string()),
        }
    }

    fn ended(&self) -> Refusal {
        Refusal::Unavailable(format!(
            "process {} has ended: there is nothing left to read",
            self.process.pid
        ))
    }
}
