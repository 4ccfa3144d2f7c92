//! A traced process that becomes another program: what the old program held is gone with it.

use anyhow::{Result, ensure};
use leaktrace_tests::compare;
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced;
use leaktrace_tests::truth::{START, Truth};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        traced("becoming::attached", attached),
        traced("becoming::launched", launched),
    ]
}

/// Attached, the trace was of the program that is gone: it ends there, with all that was held then.
fn attached() -> Result<()> {
    let next = Fixture::compile("many")?;
    let mut running = Fixture::compile("becomes")?.start(&[next.text()?])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.go()?;
    running.child.out.expect("READY")?;
    let report = tracer.finish()?;
    let gone = report.profile.of_function("gone");
    ensure!((gone.live_bytes, gone.live_count) == (5000, 5), "{gone:?}");
    ensure!(
        report.ended.err.iter().any(|line| line.contains("program")),
        "{:?}",
        report.ended.err
    );
    ensure!(compare::accounting_faults(&report.profile).is_empty());
    running.play_to_the_end()
}

/// Launched, the program is the last one it became: what a shell held before its exec is nobody's.
fn launched() -> Result<()> {
    let (first, next) = (Fixture::compile("becomes")?, Fixture::compile("many")?);
    let mut tracer = tracer::launch(&[], &[first.text()?, next.text()?])?;
    tracer.child.write("\n\n\n")?;
    let truth = Truth::parse(&tracer.child.out.expect(START)?)?;
    check(&tracer.finish()?, &truth)
}

fn check(report: &tracer::Report, truth: &Truth) -> Result<()> {
    let profile = &report.profile;
    for (name, amounts) in &truth.sites {
        ensure!(
            profile.of_function(name) == *amounts,
            "{name}: {:?}",
            profile.of_function(name)
        );
    }
    let live = profile.accounting.live_bytes;
    ensure!(
        live == truth.total().live_bytes,
        "live {live}, true is {}",
        truth.total().live_bytes
    );
    ensure!(
        compare::accounting_faults(profile).is_empty(),
        "{:?}",
        compare::accounting_faults(profile)
    );
    Ok(())
}
