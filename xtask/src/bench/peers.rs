//! The peers, where they are installed, on the same program as `pair`. None is needed, and none is installed for this.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    Setting, cost,
    program::{self, Frames, Program},
    say,
    table::{Row, Spread},
    tracer::Tracer,
};
use crate::command::{on_path, workspace};

/// A peer that attaches to a running process.
struct Peer {
    name: &'static str,
    program: &'static str,
    /// What it says when it is ready, on standard error or output.
    ready: &'static str,
    arguments: fn(u32, &Path) -> Vec<String>,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "bcc memleak",
        program: "memleak-bpfcc",
        ready: "Attaching to pid",
        arguments: |pid, _| ["-p", &pid.to_string(), "3600"].map(Into::into).to_vec(),
    },
    Peer {
        name: "bpftrace, malloc + return + free",
        program: "bpftrace",
        ready: "Attach",
        arguments: |pid, libc| vec!["-p".into(), pid.to_string(), "-e".into(), script(libc)],
    },
];

/// Preloaded into the program, not attached.
const HEAPTRACK: &str = "heaptrack";

/// Measures those that are there, and says which are not.
pub fn measure(setting: &Setting) -> Vec<Row> {
    let rounds = if setting.quick { 2 } else { 5 };
    let mut rows = Vec::new();
    for peer in PEERS {
        rows.push(row(peer.name, peer.program, || attached(peer, rounds)));
    }
    rows.push(row("heaptrack, preloaded", HEAPTRACK, || preloaded(rounds)));
    rows
}

/// A number for each round, with and without the peer.
type Rounds = Vec<(f64, f64)>;

/// A peer that fails is told of and does not end the benchmarks.
fn row(name: &str, program: &str, measure: impl FnOnce() -> Result<Rounds>) -> Row {
    let row = Row::new("peers, pair with frame pointers", name, "ns per malloc + free", None);
    if !on_path(program) {
        return row.noted("not installed");
    }
    say(&format!("peer: {name}"));
    match measure() {
        Ok(rounds) => Row {
            value: Spread::of(rounds.iter().map(|(with, _)| *with)),
            to_untraced: Spread::of(rounds.iter().map(|(with, without)| with / without)),
            ..row
        },
        Err(error) => row.noted(format!("failed: {error:#}")),
    }
}

fn attached(peer: &Peer, rounds: usize) -> Result<Rounds> {
    let mut program = Program::start(&program::path("pair", Frames::Pointers))?;
    let libc = libc_of(program.pid()).context("the program has no libc")?;
    (0..rounds)
        .map(|_| {
            let without = cost::pace(&mut program)?;
            let arguments = (peer.arguments)(program.pid(), &libc);
            // They say on standard output what they say; leaktrace says it on standard error.
            let mut tracer = Tracer::start_talkative(Command::new(peer.program).args(arguments))?;
            tracer.wait_for(peer.ready)?;
            let with = settled_pace(&mut program, without)?;
            tracer.interrupt()?;
            Ok((with, without))
        })
        .collect()
}

/// The pace once the probes are there: peers say that they are ready before they are.
fn settled_pace(program: &mut Program, without: f64) -> Result<f64> {
    for _ in 0..100 {
        if program.run(10_000)?.cpu_per_operation() > 10.0 * without {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    cost::pace(program)
}

fn preloaded(rounds: usize) -> Result<Rounds> {
    let path = program::path("pair", Frames::Pointers);
    let data = workspace().join("target/bench/heaptrack-data");
    let numbers = (0..rounds).map(|_| {
        let without = cost::pace(&mut Program::start(&path)?)?;
        let mut heaptrack = Command::new(HEAPTRACK);
        heaptrack.arg("--output").arg(&data).arg(&path);
        Ok((cost::pace(&mut Program::start_by(&mut heaptrack)?)?, without))
    });
    let numbers = numbers.collect();
    for ending in ["", ".gz", ".zst"] {
        // Whichever it wrote.
        let _ = fs::remove_file(format!("{}{ending}", data.display()));
    }
    numbers
}

/// What memleak does, in as few words as bpftrace needs.
fn script(libc: &Path) -> String {
    let libc = libc.display();
    format!(
        "uprobe:{libc}:malloc {{ @size[tid] = arg0; }} \
         uretprobe:{libc}:malloc /@size[tid]/ {{ @live[retval] = @size[tid]; @site[retval] = ustack; \
         delete(@size[tid]); }} \
         uprobe:{libc}:free {{ delete(@live[arg0]); delete(@site[arg0]); }}"
    )
}

/// The file of the C library that a process has mapped.
fn libc_of(pid: u32) -> Option<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let path = maps
        .lines()
        .find_map(|line| line.split_whitespace().nth(5).filter(|path| path.contains("/libc.so")))?;
    Some(PathBuf::from(path))
}
