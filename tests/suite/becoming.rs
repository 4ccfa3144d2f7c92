//! A traced process that becomes another program: the old program's blocks are gone, the new one's are seen.

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

fn attached() -> Result<()> {
    let next = Fixture::compile("many")?;
    let mut running = Fixture::compile("becomes")?.start(&[next.text()?])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.go()?;
    running.child.out.expect("READY")?;
    let truth = running.play()?;
    check(&tracer.stop()?, &truth)?;
    running.end_well()
}

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
