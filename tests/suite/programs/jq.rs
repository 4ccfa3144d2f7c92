//! jq 1.6 leaks two blocks of 76 bytes together for each record that `ltrimstr` gets a number for. It is stripped and
//! has no frame pointers.

use std::process::Command;

use anyhow::{Result, ensure};
use leaktrace_tests::child::{Child, run};
use leaktrace_tests::profile::{Profile, Site};
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced_program;
use leaktrace_tests::truth::Amounts;
use libtest_mimic::Trial;

use super::sound;

const RECORDS: u64 = 5000;

pub fn trials() -> Vec<Trial> {
    vec![
        traced_program("programs::jq::leak_launched", "jq", leak_launched),
        traced_program("programs::jq::control_launched", "jq", control_launched),
        traced_program("programs::jq::leak_attached", "jq", leak_attached),
    ]
}

/// The leak is of version 1.6: others have none.
fn leaks_here() -> Result<bool> {
    let version = run(Command::new("jq").arg("--version"))?;
    Ok(version.out.iter().any(|line| line.starts_with("jq-1.6")))
}

fn launched(filter: &str) -> Result<Profile> {
    let mut tracer = tracer::launch(&[], &["jq", "-c", filter])?;
    tracer.child.write(&"1\n".repeat(RECORDS as usize))?;
    tracer.child.close_stdin();
    let report = tracer.finish()?;
    let answers = report.ended.out.iter().filter(|line| *line == "1").count();
    ensure!(answers as u64 == RECORDS, "{answers} answers to {RECORDS} records");
    sound(&report.profile)?;
    Ok(report.profile)
}

/// All that is outstanding, without the buffers of standard streams, which libc allocates for itself.
fn outstanding(profile: &Profile) -> Amounts {
    sum(profile
        .sites
        .iter()
        .filter(|site| !site.module().starts_with("libc.so")))
}

fn sum<'a>(sites: impl Iterator<Item = &'a Site>) -> Amounts {
    let mut sum = Amounts::default();
    sites.for_each(|site| sum += site.amounts);
    sum
}

fn leak_launched() -> Result<()> {
    let expected = if leaks_here()? {
        (76 * RECORDS, 2 * RECORDS)
    } else {
        (0, 0)
    };
    let found = outstanding(&launched("ltrimstr(1)")?);
    ensure!(
        (found.live_bytes, found.live_count) == expected,
        "outstanding {found:?}, true is {expected:?}"
    );
    Ok(())
}

fn control_launched() -> Result<()> {
    let found = outstanding(&launched(".")?);
    ensure!(
        (found.live_bytes, found.live_count) == (0, 0),
        "outstanding {found:?} where nothing leaks"
    );
    Ok(())
}

/// Attached in the middle of its work: each record from then on leaves its two blocks.
fn leak_attached() -> Result<()> {
    let mut jq = Child::spawn(Command::new("jq").args(["--unbuffered", "-c", "ltrimstr(1)"]))?;
    answered(&mut jq, 100)?;
    let tracer = tracer::attach(jq.pid(), &[])?;
    answered(&mut jq, RECORDS)?;
    let profile = tracer.stop()?.profile;
    sound(&profile)?;
    let expected = if leaks_here()? {
        (76 * RECORDS, 2 * RECORDS)
    } else {
        (0, 0)
    };
    let found = sum(profile.sites.iter().filter(|site| site.amounts.live_count >= RECORDS));
    ensure!(
        (found.live_bytes, found.live_count) == expected,
        "outstanding {found:?}, true is {expected:?}"
    );
    jq.close_stdin();
    ensure!(
        jq.wait(leaktrace_tests::child::PATIENCE)?.success(),
        "jq did not end well: {}",
        jq.tell()
    );
    Ok(())
}

fn answered(jq: &mut Child, records: u64) -> Result<()> {
    for _ in 0..records {
        jq.write("1\n")?;
        jq.out.expect("1")?;
    }
    Ok(())
}
