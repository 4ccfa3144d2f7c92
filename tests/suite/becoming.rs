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
        traced("becoming::attached_and_then_untraceable", attached_to_nothing),
        traced("becoming::launched", launched),
    ]
}

/// Attached, the report up to then is shown, and the program that has taken its place is traced, to the byte from when
/// that is said on.
fn attached() -> Result<()> {
    let next = Fixture::compile("many")?;
    let mut running = Fixture::compile("becomes")?.start(&[next.text()?])?;
    let mut tracer = tracer::attach(running.pid(), &[])?;
    running.go()?;
    running.child.out.expect("READY")?;
    tracer.armed()?;
    let truth = running.play()?;
    let report = tracer.stop()?;
    let shown = report.ended.out.join("\n");
    // Five blocks, each from a call of its own.
    let blocks = shown
        .lines()
        .filter(|line| line.trim_start().starts_with("gone "))
        .count();
    ensure!(blocks == 5, "the first program's report is not shown:\n{shown}");
    let said = report.ended.err.join("\n");
    ensure!(said.contains("has replaced its program"), "{said}");
    check(&report, &truth)?;
    running.end_well()
}

/// A new program that cannot be traced ends the trace, with the report of the one before.
fn attached_to_nothing() -> Result<()> {
    let next = Fixture::compile_with("untraced", &["-O2", "-static", "-s"])?;
    let mut running = Fixture::compile("becomes")?.start(&[next.text()?])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.go()?;
    let report = tracer.finish()?;
    let gone = report.profile.of_function("gone");
    ensure!((gone.live_bytes, gone.live_count) == (5000, 5), "{gone:?}");
    let said = report.ended.err.join("\n");
    ensure!(said.contains("the new one is not traced"), "{said}");
    ensure!(compare::accounting_faults(&report.profile).is_empty());
    Ok(())
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
