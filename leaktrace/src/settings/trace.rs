//! What the flags of a trace mean.

use std::{ffi::OsString, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use super::size::parse_size;
use crate::{
    cli::{AttachWay, ReportArgs, TraceArgs},
    kernel::{Limits, UnwindLimits, Way},
    report::output,
};

/// A trace, ready to be run.
#[derive(Debug)]
pub struct TraceSettings {
    /// What is traced.
    pub subject: Subject,
    /// When it ends at the latest.
    pub duration: Option<Duration>,
    /// Time between short reports.
    pub interval: Duration,
    /// Blocks younger than this are left out of reports.
    pub min_age: Duration,
    /// Sizes of the tables.
    pub limits: Limits,
    /// How to attach, if not in the best way.
    pub way: Option<Way>,
    /// Whether a command is held at its end, which takes ptrace until then.
    pub hold: bool,
    /// The rate of Go's own heap profile while it is traced, if it is to be set.
    pub go_rate: Option<u64>,
    /// Whether to find out in the end what holds the live objects of Go's heap.
    pub reach: bool,
    /// Whether to say more.
    pub verbose: bool,
    /// Which reports are written, and where.
    pub reports: ReportArgs,
}

/// What is traced.
#[derive(Debug)]
pub enum Subject {
    /// A running process.
    Process(u32),
    /// A command to be started.
    Command(Vec<OsString>),
}

impl TraceSettings {
    /// Checks the flags and gives them meaning.
    pub fn new(args: TraceArgs) -> Result<Self> {
        let reports = args.output.report;
        output::plain_view(&reports)?;
        reports.output.iter().try_for_each(|path| output::check_format(path))?;
        Ok(Self {
            subject: subject(args.pid, args.program)?,
            duration: args
                .duration
                .as_deref()
                .map(|text| at_least_a_tenth("--duration", duration("--duration", text)?))
                .transpose()?,
            interval: at_least_a_tenth("--interval", duration("--interval", &args.interval)?)?,
            min_age: duration("--min-age", &args.output.min_age)?,
            limits: Limits {
                live: count("--max-live", &args.max_live)?,
                // One more, for the site of all stacks that are not kept.
                sites: count("--max-stacks", &args.max_stacks)?.saturating_add(1),
                unwind: UnwindLimits::DEFAULT,
                go: false,
            },
            way: match args.attach_with {
                AttachWay::Auto => None,
                AttachWay::Session => Some(Way::Session),
                AttachWay::Multi => Some(Way::Multi),
                AttachWay::Perf => Some(Way::Perf),
                AttachWay::Empty => Some(Way::Empty),
                AttachWay::Walk => Some(Way::Walk),
                AttachWay::KernelWalk => Some(Way::KernelWalk),
            },
            hold: !args.no_hold,
            go_rate: args.go_mem_profile_rate.as_deref().map(go_rate).transpose()?,
            reach: args.reach,
            verbose: args.verbose,
            reports,
        })
    }
}

fn subject(pid: Option<u32>, program: Vec<OsString>) -> Result<Subject> {
    match (pid, program.is_empty()) {
        (Some(pid), _) => process_id(pid).map(Subject::Process),
        (None, false) => Ok(Subject::Command(program)),
        (None, true) => bail!("nothing to trace: give --pid N, or a command after --"),
    }
}

/// The number of a process.
pub fn process_id(pid: u32) -> Result<u32> {
    ensure!(pid != 0, "--pid 0 is no process: give the number of a running process");
    Ok(pid)
}

pub(super) fn duration(flag: &str, text: &str) -> Result<Duration> {
    humantime::parse_duration(text).with_context(|| format!("{flag} {text} is not a time: write 30s, 5m or 1h30m"))
}

pub(super) fn at_least_a_tenth(flag: &str, time: Duration) -> Result<Duration> {
    ensure!(
        time >= Duration::from_millis(100),
        "{flag} is too short: 100ms is the least"
    );
    Ok(time)
}

/// Bytes for one sample: at least one.
fn go_rate(text: &str) -> Result<u64> {
    let rate = parse_size(text).map_err(|why| anyhow::anyhow!("--go-mem-profile-rate: {why}"))?;
    ensure!(
        rate > 0,
        "--go-mem-profile-rate 0 would switch the profile off: give a number of bytes, such as 64KiB"
    );
    Ok(rate)
}

/// A number of table entries: 1 to 2^30.
fn count(flag: &str, text: &str) -> Result<u32> {
    let number = parse_size(text).map_err(|why| anyhow::anyhow!("{flag} {text}: {why}"))?;
    let entries = u32::try_from(number).ok().filter(|n| (1..=1 << 30).contains(n));
    entries.with_context(|| format!("{flag} {text}: give a number from 1 to 1073741824"))
}
