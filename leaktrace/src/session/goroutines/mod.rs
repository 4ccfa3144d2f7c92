//! Goroutines of a running process, looked at once or again and again. No probe is placed, and nothing is stopped.

pub mod view;

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::time::{MissedTickBehavior, interval_at};

use self::view::Viewer;
use super::{attach::Interrupts, output::say, trace::watched};
use crate::{
    cli::GoroutinesFormat,
    go::{GoError, Runtime},
    profile::goroutines::Goroutines,
    report::goroutines as report,
    settings::GoroutinesSettings,
    target::{AddressSpace, Process},
};

/// Shows the goroutines of a process.
pub async fn run(settings: &GoroutinesSettings) -> Result<()> {
    let process = Process::open(settings.pid)?;
    let space = AddressSpace::read(process.pid).with_context(|| {
        format!(
            "cannot read the memory map of process {}; if it still runs, try again",
            process.pid
        )
    })?;
    let runtime = Runtime::open(&space).map_err(|error| ended_or(&process, error))?;
    let mut viewer = Viewer::new(&process, runtime);
    viewer.notes().iter().for_each(|note| say(note));
    let last = match settings.interval {
        None => Some(last_look(settings, &process, &mut viewer)?),
        Some(interval) => watch(settings, interval, &process, &mut viewer).await?,
    };
    let last = last.with_context(|| format!("process {} has ended before its goroutines were read", process.pid))?;
    write(settings, &last)
}

/// Looks until the end; gives the last look.
async fn watch(
    settings: &GoroutinesSettings,
    interval: Duration,
    process: &Process,
    viewer: &mut Viewer,
) -> Result<Option<Goroutines>> {
    let mut interrupts = Interrupts::listen()?;
    let exited = watched(process.exited_fd())?;
    let start = tokio::time::Instant::now();
    let mut timer = interval_at(start, interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = settings.duration.map(|duration| start + duration);
    let mut last: Option<Goroutines> = None;
    loop {
        let is_over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = exited.readable() => {
                say(&format!("process {} has ended", process.pid));
                return Ok(last);
            }
            _ = interrupts.next() => return last_look(settings, process, viewer).map(Some).or(Ok(last)),
            () = is_over => return last_look(settings, process, viewer).map(Some),
            _ = timer.tick() => {
                let now = match look(settings, process, viewer) {
                    Ok(now) => now,
                    // What was seen before it ended is shown.
                    Err(_) if last.is_some() && !process.is_alive() => continue,
                    Err(error) => return Err(error),
                };
                if settings.format == GoroutinesFormat::Text {
                    let mut out = io::stdout().lock();
                    report::write_interval(last.as_ref(), &now, &report::view(settings.top), &mut out)?;
                    out.flush()?;
                }
                last = Some(now);
            }
        }
    }
}

/// The look that the full report is made of.
fn last_look(settings: &GoroutinesSettings, process: &Process, viewer: &mut Viewer) -> Result<Goroutines> {
    if !settings.leaks {
        return look(settings, process, viewer);
    }
    let started = Instant::now();
    let goroutines = viewer.look_for_leaks().map_err(|error| ended_or(process, error))?;
    if settings.verbose {
        say(&format!("looked twice for leaks in {:?}", started.elapsed()));
    }
    Ok(goroutines)
}

fn look(settings: &GoroutinesSettings, process: &Process, viewer: &mut Viewer) -> Result<Goroutines> {
    let started = Instant::now();
    let goroutines = viewer.look().map_err(|error| ended_or(process, error))?;
    if settings.verbose {
        let took = started.elapsed();
        say(&format!(
            "{} goroutines read in {:?}, told in {took:?}",
            goroutines.count,
            viewer.reading()
        ));
    }
    Ok(goroutines)
}

fn write(settings: &GoroutinesSettings, goroutines: &Goroutines) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match settings.format {
        GoroutinesFormat::Text => report::write_text(goroutines, &report::view(settings.top), &mut out)?,
        GoroutinesFormat::Folded => report::write_folded(goroutines, &mut out)?,
        GoroutinesFormat::Json => {
            serde_json::to_writer_pretty(&mut out, goroutines).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}

/// What could not be read of a process that has ended needs no other reason.
fn ended_or(process: &Process, error: GoError) -> anyhow::Error {
    if process.is_alive() {
        return error.into();
    }
    anyhow::anyhow!("process {} has ended: there is nothing left to read", process.pid)
}
