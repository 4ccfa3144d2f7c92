//! `cargo xtask bench`: what a trace costs, against the same program untraced and against the traps alone.
//!
//! Each benchmark is a module: `cost` of a call, `live` blocks by the million, `attach` and detach, `walk` of a stack,
//! `golang`, `peers`. `program`, `service`
//! and `tracer` run the two sides, `table` and `machine` tell. Everything measured in one run is interleaved, so that
//! ratios hold on a machine that is busy with other things.

mod attach;
mod cost;
mod golang;
mod live;
mod machine;
mod peers;
mod program;
mod service;
mod table;
mod tracer;
mod walk;

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use self::table::Row;
use crate::{
    build,
    command::run as run_command,
    privilege::{as_root, is_root},
    setup,
};

/// Options of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Fewer rounds, fewer blocks.
    #[arg(long)]
    quick: bool,
    /// Write the numbers to FILE too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this leaktrace too, in the same rounds: what did a change give?
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// The leaktrace that is already built.
    #[arg(long, value_name = "FILE", hide = true)]
    built: Option<PathBuf>,
    /// Only these.
    names: Vec<Name>,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// CPU time of malloc and free of 64 bytes.
    Pair,
    /// CPU time of mixed sizes on four threads, one block in ten leaked.
    Mixed,
    /// Ten million live blocks: a report over them, and the memory they take.
    Live,
    /// Attaching to and detaching from a process of one thread, and of a thousand.
    Attach,
    /// A stack by its frames: walked by the tables, and by the kernel's own helper.
    Walk,
    /// A web service in Go under load: throughput, times of answers, CPU time.
    Go,
    /// The peers that are installed, on `pair`.
    Peers,
}

/// What every benchmark is given.
pub struct Setting {
    /// The leaktrace measured.
    pub leaktrace: PathBuf,
    /// Others, to compare.
    pub against: Vec<PathBuf>,
    /// Whether it should be quick rather than thorough.
    pub quick: bool,
}

/// The subcommand: builds as the user, measures as root.
pub fn run(args: &BenchArgs) -> Result<()> {
    if let Some(leaktrace) = &args.built {
        return measure(args, leaktrace);
    }
    setup::for_build()?;
    let leaktrace = build::leaktrace()?;
    program::compile_all()?;
    if let Some(path) = &args.json {
        // Made here, so that it belongs to the user.
        File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if is_root() {
        return measure(args, &leaktrace);
    }
    let me = env::current_exe().context("cannot find the program of this very task")?;
    let mut again =
        as_root(me, &[], "the benchmarks, which trace").context("neither root nor sudo: the benchmarks need root")?;
    again.args(env::args_os().skip(1)).arg("--built").arg(&leaktrace);
    run_command(&mut again)
}

fn measure(args: &BenchArgs, leaktrace: &Path) -> Result<()> {
    let setting = Setting {
        leaktrace: leaktrace.to_owned(),
        against: args.against.clone(),
        quick: args.quick,
    };
    let mut rows = Vec::new();
    for name in Name::value_variants() {
        if args.names.is_empty() || args.names.contains(name) {
            rows.extend(one(*name, &setting)?);
        }
    }
    println!("{}", table::text(&rows));
    println!("{}", machine::text());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&table::json(&rows, &machine::json()))?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn one(name: Name, setting: &Setting) -> Result<Vec<Row>> {
    match name {
        Name::Pair => cost::measure("pair", "ns per malloc + free", setting),
        Name::Mixed => cost::measure("mixed", "ns per operation", setting),
        Name::Live => live::measure(setting),
        Name::Walk => walk::measure(setting),
        Name::Attach => attach::measure(setting),
        Name::Go => golang::measure(setting),
        Name::Peers => Ok(peers::measure(setting)),
    }
}

/// A line on what is under way, which can take minutes.
fn say(line: &str) {
    eprintln!("bench: {line}");
}
