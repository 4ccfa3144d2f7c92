//! The pipeline: a target is found, probes are planned and placed, what they see is recorded, and reports are made.
//!
//! With `serve` and `top` the only room with tokio and signals.

pub(crate) mod arm;
mod attach;
mod clock;
mod code;
mod cohorts;
mod go;
mod goroutines;
pub mod guard;
mod launch;
mod loader;
mod output;
mod own_code;
mod ranges;
mod recorder;
mod serve;
mod snapshot;
mod trace;
mod window;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::settings::{GoroutinesSettings, ServeSettings, Subject, TraceSettings};

/// Traces until the end that the settings ask for, and writes the reports.
pub fn run(settings: &TraceSettings) -> Result<()> {
    output::check(settings)?;
    event_loop()?.block_on(async {
        match &settings.subject {
            Subject::Process(pid) => attach::run(settings, *pid).await,
            Subject::Command(command) => launch::run(settings, command).await,
        }
    })
}

/// Shows the goroutines of a process, once or until the end that the settings ask for.
pub fn run_goroutines(settings: &GoroutinesSettings) -> Result<()> {
    event_loop()?.block_on(goroutines::run(settings))
}

/// Traces a process and answers requests, until the process ends or leaktrace is told to.
pub fn run_serve(settings: &ServeSettings) -> Result<()> {
    event_loop()?.block_on(serve::run(settings))
}

fn event_loop() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start: no event loop to be had from the system")
}

/// Each file of a target is held open. Where the limit cannot be raised, the one there is must do. Not to be called
/// before a command is started, which would inherit it.
fn raise_file_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
