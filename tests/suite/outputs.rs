//! Every format from one trace says the same, and `render` makes each of them again from the saved profile.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::run;
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::needs::Need;
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer::{self, leaktrace};
use leaktrace_tests::trial::{TRACES, traced, trial};
use libtest_mimic::Trial;
use tempfile::TempDir;

pub fn trials() -> Vec<Trial> {
    let pprof = [TRACES, &[Need::Program("go")]].concat();
    vec![
        traced("outputs::all_at_once", all_at_once),
        traced("outputs::folded_adds_up_for_each_metric", folded_adds_up),
        traced("outputs::render_says_the_same", render_says_the_same),
        traced("outputs::json_on_standard_output", json_on_standard_output),
        trial("outputs::pprof_tool_agrees", &pprof, pprof_tool_agrees),
    ]
}

/// Traces a fixture with one file per format, all of which are then in the directory.
fn traced_files(fixture: &str) -> Result<(TempDir, Profile)> {
    let dir = tempfile::tempdir()?;
    let fixture = Fixture::compile(fixture)?;
    let files = ["p.json", "p.folded", "p.svg", "p.pb.gz", "p.txt"].map(|name| path(dir.path(), name));
    let flags: Vec<&str> = files.iter().flat_map(|file| ["--output", file.as_str()]).collect();
    let mut tracer = tracer::launch(&flags, &[&fixture.path])?;
    tracer.play()?;
    let profile = tracer.finish()?.profile;
    Ok((dir, profile))
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_string_lossy().into_owned()
}

fn all_at_once() -> Result<()> {
    let (dir, profile) = traced_files("realloc")?;
    let saved = Profile::read(&dir.path().join("p.json"))?;
    ensure!(
        saved.accounting.live_bytes == profile.accounting.live_bytes,
        "two JSON files differ"
    );
    let svg = fs::read_to_string(dir.path().join("p.svg"))?;
    ensure!(
        svg.contains("<svg") && svg.contains("up"),
        "this is no flame graph: {svg:.200}"
    );
    let text = fs::read_to_string(dir.path().join("p.txt"))?;
    ensure!(
        text.contains("of_nothing") && text.contains("up"),
        "sites are missing:\n{text}"
    );
    ensure!(!text.contains('\u{1b}'), "colours in a file");
    let pprof = fs::read(dir.path().join("p.pb.gz"))?;
    ensure!(pprof.starts_with(&[0x1f, 0x8b]), "not gzipped");
    Ok(())
}

fn folded_sum(lines: impl Iterator<Item = impl AsRef<str>>) -> Result<u64> {
    let numbers = lines.map(|line| {
        let line = line.as_ref();
        let (_, number) = line.rsplit_once(' ').with_context(|| format!("not folded: {line:?}"))?;
        number.parse::<u64>().with_context(|| format!("not folded: {line:?}"))
    });
    numbers.sum()
}

fn folded_adds_up() -> Result<()> {
    let (dir, profile) = traced_files("realloc")?;
    let accounting = &profile.accounting;
    let text = fs::read_to_string(dir.path().join("p.folded"))?;
    ensure!(
        folded_sum(text.lines())? == accounting.live_bytes,
        "live bytes:\n{text}"
    );
    let json = path(dir.path(), "p.json");
    let metrics = [
        ("live-bytes", accounting.live_bytes),
        ("live-count", accounting.live_count),
        ("alloc-bytes", accounting.allocated_bytes),
        ("alloc-count", accounting.allocations),
    ];
    for (metric, total) in metrics {
        let ended = leaktrace(&["render", "--format", "folded", "--metric", metric, &json])?;
        ensure!(ended.status.success(), "{ended:?}");
        let sum = folded_sum(ended.out.iter())?;
        ensure!(
            sum == total,
            "{metric}: the lines add up to {sum}, the total is {total}"
        );
    }
    Ok(())
}

fn render_says_the_same() -> Result<()> {
    let (dir, _) = traced_files("realloc")?;
    let json = path(dir.path(), "p.json");
    for name in ["p.txt", "p.folded", "p.svg", "p.pb.gz", "p.json"] {
        let again = path(dir.path(), &format!("again-{name}"));
        let ended = leaktrace(&["render", "--output", &again, &json])?;
        ensure!(ended.status.success(), "{ended:?}");
        ensure!(
            fs::read(&again)? == fs::read(dir.path().join(name))?,
            "{name} is not the same when rendered again"
        );
    }
    Ok(())
}

fn json_on_standard_output() -> Result<()> {
    let mut running = Fixture::compile("malloc")?.start(&[])?;
    let tracer = tracer::attach(running.pid(), &["--format", "json"])?;
    running.play()?;
    let report = tracer.stop()?;
    let printed = Profile::parse(&report.ended.out.join("\n"))?;
    ensure!(
        printed.accounting.live_bytes == report.profile.accounting.live_bytes,
        "file and output differ"
    );
    running.end_well()
}

fn pprof_tool_agrees() -> Result<()> {
    let (dir, profile) = traced_files("realloc")?;
    let file = path(dir.path(), "p.pb.gz");
    let index = [
        ("inuse_space", profile.accounting.live_bytes),
        ("alloc_space", profile.accounting.allocated_bytes),
    ];
    for (index, total) in index {
        let mut go = Command::new("go");
        go.args(["tool", "pprof", "-top", "-unit=b", "-sample_index", index, &file]);
        let ended = run(&mut go)?;
        ensure!(ended.status.success(), "{ended:?}");
        let shown = ended
            .out
            .iter()
            .find(|line| line.starts_with("Showing nodes"))
            .context("no total")?;
        ensure!(
            shown.contains(&format!("of {total}B total")),
            "{index} should be {total}: {shown}"
        );
    }
    Ok(())
}
