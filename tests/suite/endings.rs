//! Every way for a program to end, launched and attached: the report is made, and holds what was held at the end.

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::PATIENCE;
use leaktrace_tests::compare::{self, LINKER};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced;
use leaktrace_tests::truth::Truth;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The fixture's argument, and what a parent then sees.
const WAYS: &[(&str, &str)] = &[
    ("return", r#"{"status":1}"#),
    ("exit", r#"{"status":2}"#),
    ("_exit", r#"{"status":3}"#),
    ("thread", r#"{"status":4}"#),
    ("without-main", r#"{"status":5}"#),
    ("abort", r#"{"signal":6}"#),
    ("kill", r#"{"signal":9}"#),
    ("segv", r#"{"signal":11}"#),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &(way, status) in WAYS {
        trials.push(traced(format!("endings::{way}::launch"), move || launched(way, status)));
        trials.push(traced(format!("endings::{way}::attach"), move || attached(way)));
    }
    trials.push(traced("endings::target_killed", target_killed));
    trials
}

/// To the byte; but once the main thread has gone, any other trace that ends on this machine can take the probes away.
/// What came before is there then, nothing is invented, and the report says what is the matter.
fn agrees(profile: &Profile, truth: &Truth, way: &str) -> Result<()> {
    if way != "without-main" {
        return compare::exact(profile, truth, LINKER);
    }
    let lost: Vec<&str> = profile.accounting.lost.keys().map(String::as_str).collect();
    ensure!(
        !profile.accounting.complete && lost == ["main_thread_gone"],
        "lost {lost:?}"
    );
    let (found, most) = (profile.of_function("leaked"), truth.total());
    ensure!((500..=most.live_bytes).contains(&found.live_bytes), "{found:?}");
    let faults = compare::accounting_faults(profile);
    ensure!(faults.is_empty(), "{faults:?}");
    Ok(())
}

fn launched(way: &str, status: &str) -> Result<()> {
    let fixture = Fixture::compile("ends")?;
    let mut tracer = tracer::launch(&[], &[fixture.text()?, way])?;
    let truth = tracer.play()?;
    let report = tracer.finish()?;
    agrees(&report.profile, &truth, way)?;
    let expected: Value = serde_json::from_str(status)?;
    ensure!(
        report.profile.target.exit == expected,
        "exit {}",
        report.profile.target.exit
    );
    Ok(())
}

/// Attached, leaktrace is not the parent: it ends by itself when the process does, and says that it ended.
fn attached(way: &str) -> Result<()> {
    let mut running = Fixture::compile("ends")?.start(&[way])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    let truth = running.play()?;
    running.end()?;
    let report = tracer.finish().context("the process has ended")?;
    agrees(&report.profile, &truth, way)?;
    ensure!(
        report.profile.target.exit == json!("ended"),
        "exit {}",
        report.profile.target.exit
    );
    Ok(())
}

fn target_killed() -> Result<()> {
    let mut running = Fixture::compile("malloc")?.start(&[])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    let truth = running.play()?;
    running.child.signal(Signal::SIGKILL)?;
    running.child.wait(PATIENCE)?;
    compare::exact(&tracer.finish()?.profile, &truth, &[])
}
