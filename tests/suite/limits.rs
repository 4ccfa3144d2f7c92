//! Tables that are too small: leaktrace goes on, counts what it could not keep, and says which flag helps.

use anyhow::{Context, Result, ensure};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        traced("limits::live_blocks", live_blocks),
        traced("limits::stacks", stacks),
        traced("limits::programs_are_cheap_to_verify", cheap_to_verify),
    ]
}

/// Instructions that the verifier may look at in one program: it gives up at a million.
const MOST_VERIFIED: u64 = 50_000;

fn trace(fixture: &str, flags: &[&str]) -> Result<(Profile, String)> {
    let mut running = Fixture::compile(fixture)?.start(&[])?;
    let tracer = tracer::attach(running.pid(), flags)?;
    running.play()?;
    let report = tracer.stop()?;
    running.end_well()?;
    let said = [report.ended.out, report.ended.err].concat().join("\n");
    Ok((report.profile, said))
}

/// 1,000 blocks, room for 100: each of them is either live or counted as lost.
fn live_blocks() -> Result<()> {
    let (profile, said) = trace("many", &["--max-live", "100"])?;
    let accounting = &profile.accounting;
    ensure!(!accounting.complete, "it calls itself complete");
    ensure!(
        (50..=150).contains(&accounting.live_count),
        "{} live, with room for 100",
        accounting.live_count
    );
    let lost = 1000 - accounting.live_count;
    ensure!(
        accounting.lost.values().any(|count| *count == lost),
        "{lost} are lost, it counts {:?}",
        accounting.lost
    );
    ensure!(said.contains("--max-live"), "it does not say which flag helps:\n{said}");
    Ok(())
}

/// The kernel itself says what it looked at. Older ones than 5.16 do not, and cannot load the programs.
fn cheap_to_verify() -> Result<()> {
    for way in ["session", "multi"] {
        let (_, said) = trace("malloc", &["--attach-with", way, "--verbose"])?;
        let loaded: Vec<&str> = said.lines().filter(|line| line.contains("loaded ")).collect();
        ensure!(loaded.len() >= 3, "by {way} {} programs:\n{said}", loaded.len());
        for line in loaded {
            let count = line
                .strip_suffix(" instructions verified")
                .and_then(|line| line.rsplit(' ').next());
            let count: u64 = count.with_context(|| format!("no count: {line}"))?.parse()?;
            ensure!(count < MOST_VERIFIED, "by {way}: {line}");
        }
    }
    Ok(())
}

/// 200 blocks over 40 stacks, room for 4: every byte is still there, and what has no stack is counted as that.
fn stacks() -> Result<()> {
    let (profile, said) = trace("distinct", &["--max-stacks", "4"])?;
    let accounting = &profile.accounting;
    ensure!(!accounting.complete, "it calls itself complete");
    ensure!(
        (accounting.live_bytes, accounting.live_count) == (2000, 200),
        "{accounting:?}"
    );
    ensure!(
        profile.sites.len() <= 5,
        "{} sites, with room for 4",
        profile.sites.len()
    );
    let nameless = profile.sites.iter().filter(|site| site.stack.frames.is_empty());
    let nameless: u64 = nameless.map(|site| site.amounts.allocated_count).sum();
    ensure!(nameless >= 100, "{nameless} blocks without a stack");
    ensure!(
        accounting.lost.values().any(|n| *n == nameless),
        "{nameless} have no stack, it counts {:?}",
        accounting.lost
    );
    ensure!(
        said.contains("--max-stacks"),
        "it does not say which flag helps:\n{said}"
    );
    Ok(())
}
