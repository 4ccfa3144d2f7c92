//! What a call costs: a program untraced, with empty handlers on the same probes (the floor under every tracer that
//! traps at these calls), and traced. Every round measures all of them on the same running program.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use super::{
    Setting,
    program::{self, Frames, Program},
    say,
    table::{Row, Spread},
    tracer::{self, Ended},
};

/// CPU time that one measurement should take, nanoseconds.
const ENOUGH_NS: f64 = 3e8;
/// Operations to settle and to find the pace by.
const TRIAL: u64 = 20_000;

/// What a round measures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Untraced,
    Floor,
    Traced,
    Against(PathBuf),
}

/// CPU time per operation by mode, a number for each round.
type Costs = BTreeMap<Mode, Vec<f64>>;

/// Measures program `name`, compiled both ways.
pub fn measure(name: &str, unit: &'static str, setting: &Setting) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for frames in Frames::ALL {
        rows.extend(one(name, unit, frames, setting)?);
    }
    Ok(rows)
}

/// CPU time of an operation in nanoseconds: settles, then measures for long enough.
pub fn pace(program: &mut Program) -> Result<f64> {
    let trial = program.run(TRIAL)?.cpu_per_operation();
    let operations = (ENOUGH_NS / trial.max(1.0)) as u64;
    Ok(program.run(operations)?.cpu_per_operation())
}

fn one(name: &str, unit: &'static str, frames: Frames, setting: &Setting) -> Result<Vec<Row>> {
    let rounds = if setting.quick { 3 } else { 9 };
    say(&format!("{name} {}, {rounds} rounds", frames.words()));
    let mut program = Program::start(&program::path(name, frames))?;
    let mut modes = vec![Mode::Untraced, Mode::Floor, Mode::Traced];
    modes.extend(setting.against.iter().cloned().map(Mode::Against));
    let mut costs = Costs::new();
    let mut attached = String::new();
    for round in 0..rounds {
        // Another mode begins each round, so that none always follows the same one.
        modes.rotate_left(usize::from(round > 0));
        for mode in &modes {
            let (cost, how) = in_mode(mode, &mut program, setting)?;
            costs.entry(mode.clone()).or_default().push(cost);
            if *mode == Mode::Traced {
                attached = how;
            }
        }
    }
    let benchmark = format!("{name}, {}", frames.words());
    Ok(costs
        .keys()
        .map(|mode| row(&benchmark, unit, mode, &costs, &attached))
        .collect())
}

/// Cost of an operation, and how the probes were attached.
fn in_mode(mode: &Mode, program: &mut Program, setting: &Setting) -> Result<(f64, String)> {
    match mode {
        Mode::Untraced => Ok((pace(program)?, String::new())),
        Mode::Floor => traced(&setting.leaktrace, program, &["--attach-with", "empty"], false),
        Mode::Traced => traced(&setting.leaktrace, program, &[], true),
        Mode::Against(other) => traced(other, program, &[], true),
    }
}

/// Cost of an operation while the program is traced, and how the probes were attached.
pub fn traced(leaktrace: &Path, program: &mut Program, options: &[&str], records: bool) -> Result<(f64, String)> {
    let options = [options, &["--interval", "1h"]].concat();
    let tracer = tracer::leaktrace(leaktrace, program.pid(), &options)?;
    let cost = pace(program)?;
    let ended = tracer.end()?;
    check(&ended, records)?;
    Ok((cost, how(&ended)))
}

/// A trace that did not record is no trace, and empty handlers that did are not empty.
fn check(ended: &Ended, records: bool) -> Result<()> {
    let allocations = ended.accounted("allocations")?;
    if records {
        ensure!(
            ended.is_complete(),
            "a trace was not complete: {}",
            ended.profile["accounting"]
        );
        ensure!(allocations >= TRIAL, "a trace saw {allocations} allocations only");
    } else {
        ensure!(allocations == 0, "empty handlers recorded {allocations} allocations");
    }
    Ok(())
}

/// `14 probes by session`.
fn how(ended: &Ended) -> String {
    let line = ended.said.iter().find_map(|line| line.split_once("attached "));
    let how = line.and_then(|(_, rest)| rest.split_once(" in "));
    how.map_or_else(String::new, |(how, _)| how.to_owned())
}

fn row(benchmark: &str, unit: &'static str, mode: &Mode, costs: &Costs, attached: &str) -> Row {
    let numbers = costs.get(mode).map(Vec::as_slice).unwrap_or_default();
    let times = |other: &Mode| {
        let others = costs.get(other).map(Vec::as_slice).unwrap_or_default();
        Spread::of(numbers.iter().zip(others).map(|(number, other)| number / other))
    };
    let what = match mode {
        Mode::Untraced => "untraced".to_owned(),
        Mode::Floor => "empty handlers".to_owned(),
        Mode::Traced => "traced".to_owned(),
        Mode::Against(path) => format!("traced by {}", path.display()),
    };
    let mut row = Row::new(benchmark, &what, unit, Spread::of(numbers.iter().copied()));
    if *mode != Mode::Untraced {
        row.to_untraced = times(&Mode::Untraced);
    }
    if !matches!(mode, Mode::Untraced | Mode::Floor) {
        row.to_floor = times(&Mode::Floor);
    }
    if *mode == Mode::Traced {
        row.noted(attached)
    } else {
        row
    }
}
