//! Whatever happens to leaktrace, the target runs on to its right end.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::Child;
use leaktrace_tests::compare;
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::tracer::{self, command};
use leaktrace_tests::trial::traced;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

pub fn trials() -> Vec<Trial> {
    vec![
        traced(
            "surviving::leaktrace_killed_at_random_moments",
            killed_at_random_moments,
        ),
        traced("surviving::attached_fifty_times", attached_fifty_times),
        traced("surviving::a_thousand_threads", a_thousand_threads),
        traced("surviving::a_filter_that_kills", || filter("kill")),
        traced("surviving::a_filter_that_refuses", || filter("errno")),
        traced("surviving::stopped_and_continued", stopped_and_continued),
    ]
}

fn killed_at_random_moments() -> Result<()> {
    let mut running = Fixture::compile("busy")?.start(&[])?;
    let mut state = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64 | 1;
    let mut moments = Vec::new();
    for _ in 0..20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let moment = Duration::from_millis(state % 400);
        moments.push(moment);
        let tracer = Child::spawn(command().args(["--pid", &running.pid().to_string()]))?;
        sleep(moment);
        tracer.signal(Signal::SIGKILL)?;
        drop(tracer);
        ensure!(
            running.child.running()?,
            "killing leaktrace after {moments:?} killed the target"
        );
    }
    running
        .play_to_the_end()
        .with_context(|| format!("leaktrace was killed after {moments:?}"))
}

fn attached_fifty_times() -> Result<()> {
    let mut running = Fixture::compile("busy")?.start(&["4", "100"])?;
    for round in 0..50 {
        let report = tracer::attach(running.pid(), &[])?
            .stop()
            .with_context(|| format!("round {round}"))?;
        ensure!(running.child.running()?, "the target ended in round {round}");
        let faults = compare::accounting_faults(&report.profile);
        ensure!(faults.is_empty(), "round {round}: {faults:?}");
    }
    running.play_to_the_end()
}

fn a_thousand_threads() -> Result<()> {
    let mut running = Fixture::compile("busy")?.start(&["1000", "20000"])?;
    for round in 0..3 {
        let tracer = tracer::attach(running.pid(), &[])?;
        sleep(Duration::from_millis(500));
        let report = tracer.stop()?;
        ensure!(
            report.profile.accounting.allocations > 0,
            "round {round}: it saw nothing of 1,000 threads"
        );
        let accounting = &report.profile.accounting;
        ensure!(accounting.lost.is_empty(), "round {round}: {accounting:?}");
        ensure!(running.child.running()?, "the target ended in round {round}");
    }
    running.play_to_the_end()
}

/// The target has a seccomp filter that does not let return probes' system call through. Either leaktrace does
/// without return probes and is exact, or it declines in one line; the target runs on.
fn filter(way: &str) -> Result<()> {
    let mut running = Fixture::compile("seccomp")?.start(&[way])?;
    let mut tracer = Child::spawn(command().args(["--format", "json", "--pid", &running.pid().to_string()]))?;
    let armed = tracer.err.expect(tracer::ARMED);
    let truth = running.play().context("the filtered fixture, traced")?;
    if armed.is_err() {
        let ended = tracer.finish(leaktrace_tests::child::PATIENCE)?;
        ensure!(ended.status.code() == Some(1), "{ended:?}");
        ensure!(
            ended.err.len() == 1 && ended.err.iter().all(|line| line.contains("seccomp")),
            "{:?}",
            ended.err
        );
    } else {
        tracer.signal(Signal::SIGINT)?;
        let ended = tracer.finish(leaktrace_tests::child::PATIENCE)?;
        let profile = leaktrace_tests::profile::Profile::parse(&ended.out.join("\n"))?;
        compare::exact(&profile, &truth, &[])?;
    }
    running.end_well()
}

/// A target stopped by SIGSTOP can be attached to and left; it goes on when it is told to.
fn stopped_and_continued() -> Result<()> {
    let mut running = Fixture::compile("malloc")?.start(&[])?;
    running.child.signal(Signal::SIGSTOP)?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.child.signal(Signal::SIGCONT)?;
    let truth = running.play()?;
    running.child.signal(Signal::SIGSTOP)?;
    let report = tracer.stop()?;
    ensure!(
        report.took < Duration::from_secs(1),
        "ended {:?} after Ctrl-C",
        report.took
    );
    running.child.signal(Signal::SIGCONT)?;
    compare::exact(&report.profile, &truth, &[])?;
    running.end_well()
}
