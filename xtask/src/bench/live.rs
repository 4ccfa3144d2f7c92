//! Ten million live blocks: what a report over them costs, what memory they take, and whether the count is exact.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Setting, machine,
    program::{self, Frames, Program},
    say,
    table::{Row, Spread},
    tracer::{self, Ended, Tracer},
};

/// Blocks held, in a thorough and in a quick run: multiples of the program's thousand sites and four sizes.
const BLOCKS: u64 = 10_000_000;
const QUICK_BLOCKS: u64 = 1_000_000;
/// Mean size of the program's blocks, bytes.
const MEAN_SIZE: u64 = 40;
/// A hash table, as the kernel numbers its types.
const HASH_TABLE: &str = "map_type:\t1";

/// Memory at one moment, bytes.
#[derive(Clone, Copy)]
struct Memory {
    /// The live table, as the kernel accounts for it.
    table: u64,
    /// What the host had available.
    available: u64,
    /// Resident memory of leaktrace, and of the program.
    tracer: u64,
    program: u64,
}

/// Measures.
pub fn measure(setting: &Setting) -> Result<Vec<Row>> {
    let blocks = if setting.quick { QUICK_BLOCKS } else { BLOCKS };
    let reports = if setting.quick { 3 } else { 9 };
    say(&format!("live: {blocks} blocks, {reports} reports"));
    let mut program = Program::start(&program::path("hold", Frames::Bare))?;
    let limit = (blocks + blocks / 5).to_string();
    let options = ["--max-live", &limit, "--interval", "1s"];
    let mut tracer = tracer::leaktrace(&setting.leaktrace, program.pid(), &options)?;
    let before = memory(&tracer, &program)?;
    let held = program.run(blocks)?;
    let times = report_times(&mut tracer, reports)?;
    let after = memory(&tracer, &program)?;
    let ended = tracer.end()?;
    let exact = exactness(&ended, blocks)?;
    let benchmark = format!("live, {} million blocks", blocks / 1_000_000);
    let row = |what, unit, value| Row::new(&benchmark, what, unit, value);
    let mut rows = vec![
        row(
            "interval report",
            "ms",
            Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3)),
        )
        .noted(format!(
            "over {} sites; {exact}",
            ended.profile["sites"].as_array().map_or(0, Vec::len)
        )),
        row("holding a block", "ns", one(held.cpu_per_operation())).noted("CPU time of the program, traced"),
    ];
    rows.extend(memory_rows(&benchmark, before, after, blocks));
    Ok(rows)
}

fn memory_rows(benchmark: &str, before: Memory, after: Memory, blocks: u64) -> Vec<Row> {
    let each = |bytes: i64| one(bytes as f64 / blocks as f64);
    let grown = |before: u64, after: u64| after.cast_signed() - before.cast_signed();
    let host = grown(after.available, before.available)
        - grown(before.program, after.program)
        - grown(before.tracer, after.tracer);
    let row = |what, unit, value| Row::new(benchmark, what, unit, value);
    vec![
        row("kernel memory per block", "B", each(grown(before.table, after.table)))
            .noted("as the kernel accounts for the live table"),
        row("memory gone per block", "B", each(host)).noted("MemAvailable, less what both processes grew by"),
        row(
            "leaktrace resident",
            "MiB",
            one(after.tracer as f64 / f64::from(1 << 20)),
        ),
    ]
}

fn one(number: f64) -> Option<Spread> {
    Spread::of([number])
}

/// Times of the next reports. The first is left out: it gives names to addresses.
fn report_times(tracer: &mut Tracer, reports: usize) -> Result<Vec<Duration>> {
    const WORDS: &str = "made in";
    tracer.wait_for(&format!("sites {WORDS}"))?;
    (0..reports)
        .map(|_| {
            let (line, _) = tracer.wait_for(&format!("sites {WORDS}"))?;
            tracer::time_after(&line, WORDS).with_context(|| format!("leaktrace said: {line}"))
        })
        .collect()
}

/// In words that the report has every block and byte; anything else is an error.
fn exactness(ended: &Ended, blocks: u64) -> Result<String> {
    let (count, bytes) = (ended.accounted("live_count")?, ended.accounted("live_bytes")?);
    let expected = blocks * MEAN_SIZE;
    ensure!(
        ended.is_complete() && count == blocks && bytes == expected,
        "{blocks} blocks of {expected} bytes are live, and the report has {count} of {bytes}: {}",
        ended.profile["accounting"]
    );
    Ok("exact to the byte".into())
}

fn memory(tracer: &Tracer, program: &Program) -> Result<Memory> {
    let read = || {
        Some(Memory {
            table: live_table(tracer.pid())?,
            available: machine::available_memory()?,
            tracer: machine::resident(tracer.pid())?,
            program: machine::resident(program.pid())?,
        })
    };
    read().context("cannot read from /proc how much memory is used")
}

/// Memory of the largest hash table of a process, bytes.
fn live_table(pid: u32) -> Option<u64> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?;
    let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    texts.filter_map(|text| hash_table(&text)).max()
}

/// Memory of the hash table that a descriptor stands for, bytes.
fn hash_table(info: &str) -> Option<u64> {
    info.lines().find(|line| *line == HASH_TABLE)?;
    info.lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hash_tables_are_counted() {
        let info = |kind| format!("pos:\t0\nmap_type:\t{kind}\nkey_size:\t16\nmemlock:\t4096\n");
        assert_eq!(hash_table(&info(1)), Some(4096));
        assert_eq!(hash_table(&info(2)), None);
        assert_eq!(hash_table(&info(14)), None);
    }
}
