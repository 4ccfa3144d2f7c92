//! How long it takes to attach and to detach, with few threads and with many.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    Setting,
    program::{self, Frames, Program},
    say,
    table::{Row, Spread},
    tracer::{self, time_after},
};

/// The times of one round.
struct Times {
    /// From the start of leaktrace to the first call seen.
    to_traced: Duration,
    /// Placing the probes.
    attach: Duration,
    /// Taking them away.
    detach: Duration,
    /// From Ctrl-C to the end of leaktrace, with its report written.
    to_end: Duration,
}

/// Measures.
pub fn measure(setting: &Setting) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for threads in [1, 1000] {
        rows.extend(with_threads(threads, setting)?);
    }
    Ok(rows)
}

fn with_threads(threads: u64, setting: &Setting) -> Result<Vec<Row>> {
    let rounds = if setting.quick { 3 } else { 9 };
    say(&format!("attach to {threads} threads, {rounds} rounds"));
    let mut program = Program::start(&program::path("threads", Frames::Bare))?;
    program.run(threads - 1)?;
    let rounds: Vec<Times> = (0..rounds).map(|_| round(&program, setting)).collect::<Result<_>>()?;
    let benchmark = format!("attach, {threads} thread{}", if threads == 1 { "" } else { "s" });
    let row = |what, pick: fn(&Times) -> Duration| {
        let times = rounds.iter().map(|times| pick(times).as_secs_f64() * 1e3);
        Row::new(&benchmark, what, "ms", Spread::of(times))
    };
    Ok(vec![
        row("attach", |times| times.attach),
        row("start to tracing", |times| times.to_traced).noted("tables, programs, memory map and symbols included"),
        row("detach", |times| times.detach),
        row("Ctrl-C to end", |times| times.to_end).noted("report included"),
    ])
}

fn round(program: &Program, setting: &Setting) -> Result<Times> {
    let mut tracer = tracer::start_leaktrace(&setting.leaktrace, program.pid(), &[])?;
    let (line, to_traced) = tracer.wait_for("attached ")?;
    let attach = time_after(&line, " in ").with_context(|| format!("leaktrace said: {line}"))?;
    let ended = tracer.end()?;
    Ok(Times {
        to_traced,
        attach,
        detach: ended.time_after("detached in ")?,
        to_end: ended.took,
    })
}
