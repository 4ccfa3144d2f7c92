//! What is outstanding is not what leaks: a cache that has filled, a block from the start and churn are none.

use anyhow::{Context, Result, ensure};
use leaktrace_tests::compare;
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::profile::{Profile, Site};
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![traced("verdicts::a_leak_among_what_stays", a_leak_among_what_stays)]
}

fn a_leak_among_what_stays() -> Result<()> {
    let mut running = Fixture::compile("kinds")?.start(&[])?;
    let tracer = tracer::attach(running.pid(), &["--interval", "500ms"])?;
    let truth = running.play()?;
    let profile = tracer.stop()?.profile;
    compare::exact(&profile, &truth, &[])?;
    running.end_well()?;
    for innocent in ["cached", "at_the_start", "churning"] {
        let site = site(&profile, innocent)?;
        let accused = site.verdict == "leak" || site.verdict == "growing";
        ensure!(!accused, "{innocent} is called {:?}: {}", site.verdict, site.why);
    }
    let site = site(&profile, "leaking")?;
    ensure!(
        site.verdict == "growing" || site.verdict == "leak",
        "the leak is called {:?}: {}",
        site.verdict,
        site.why
    );
    ensure!(
        profile.timeline.len() >= 5,
        "a timeline of {} points over four seconds",
        profile.timeline.len()
    );
    Ok(())
}

fn site<'a>(profile: &'a Profile, function: &'a str) -> Result<&'a Site> {
    profile
        .sites_of(function)
        .next()
        .with_context(|| format!("no site in {function}"))
}
