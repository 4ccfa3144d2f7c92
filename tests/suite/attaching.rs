//! Attaching in the middle of a life, more than once, and at once from two sides.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use leaktrace_tests::child::{Child, PATIENCE};
use leaktrace_tests::compare::{self, LINKER};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer::{self, command};
use leaktrace_tests::trial::traced;
use leaktrace_tests::truth::Truth;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

pub fn trials() -> Vec<Trial> {
    vec![
        traced("attaching::old_frees_are_noted", old_frees_are_noted),
        traced("attaching::two_at_once", two_at_once),
        traced("attaching::one_after_another", one_after_another),
        traced("attaching::quick_to_arm_and_to_end", quick_to_arm_and_to_end),
        traced("attaching::duration", duration),
        traced("attaching::names_the_target", names_the_target),
        traced("attaching::plugin_loaded_later", plugin_loaded_later),
        traced("attaching::main_thread_gone_before", main_thread_gone_before),
        traced(
            "attaching::main_thread_gone_and_another_trace_ends",
            main_thread_gone_and_another_trace_ends,
        ),
    ]
}

/// Four frees and three reallocs of blocks from before the attach: seven, counted beside the truth.
fn old_frees_are_noted() -> Result<()> {
    let mut running = Fixture::compile("old_blocks")?.start(&[])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    let truth = running.play()?;
    let report = tracer.stop()?;
    compare::exact(&report.profile, &truth, &[])?;
    let notes = &report.profile.accounting.notes;
    ensure!(
        notes.values().any(|count| *count == 7),
        "no note counts the 7 old blocks: {notes:?}"
    );
    running.end_well()
}

fn two_at_once() -> Result<()> {
    let mut running = Fixture::compile("realloc")?.start(&[])?;
    let first = tracer::attach(running.pid(), &[])?;
    let second = tracer::attach(running.pid(), &[])?;
    let truth = running.play()?;
    compare::exact(&first.stop()?.profile, &truth, &[])?;
    compare::exact(&second.stop()?.profile, &truth, &[])?;
    running.end_well()
}

/// The second trace begins where the first has ended, and sees nothing of what the first saw.
fn one_after_another() -> Result<()> {
    let mut running = Fixture::compile("malloc")?.start(&[])?;
    let first = tracer::attach(running.pid(), &[])?;
    let truth = running.play()?;
    compare::exact(&first.stop()?.profile, &truth, &[])?;
    let second = tracer::attach(running.pid(), &[])?.stop()?;
    compare::exact(&second.profile, &Truth::default(), &[])?;
    running.end_well()
}

fn quick_to_arm_and_to_end() -> Result<()> {
    let running = Fixture::compile("busy")?.start(&["4", "100"])?;
    let began = Instant::now();
    let tracer = tracer::attach(running.pid(), &[])?;
    let armed = began.elapsed();
    let report = tracer.stop()?;
    ensure!(armed < Duration::from_secs(2), "armed after {armed:?}");
    ensure!(
        report.took < Duration::from_secs(1),
        "ended {:?} after Ctrl-C",
        report.took
    );
    running.play_to_the_end()
}

fn duration() -> Result<()> {
    let running = Fixture::compile("busy")?.start(&["1", "1000"])?;
    let tracer = tracer::attach(running.pid(), &["--duration", "700ms"])?;
    let report = tracer.finish()?;
    let window = Duration::from_nanos(report.profile.window.duration_ns);
    ensure!(
        window >= Duration::from_millis(690) && window < Duration::from_secs(3),
        "the window is {window:?}"
    );
    let wall = report
        .profile
        .window
        .end_unix_ns
        .saturating_sub(report.profile.window.start_unix_ns);
    ensure!(
        wall.abs_diff(report.profile.window.duration_ns) < 100_000_000,
        "wall clock {wall} ns, window {window:?}"
    );
    running.play_to_the_end()
}

fn names_the_target() -> Result<()> {
    let fixture = Fixture::compile("malloc")?;
    let mut running = fixture.start(&["an", "argument"])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    let target = tracer.stop()?.profile.target;
    ensure!(target.pids == [running.pid()], "pids {:?}", target.pids);
    ensure!(
        target.command == format!("{} an argument", fixture.text()?),
        "command {:?}",
        target.command
    );
    ensure!(target.exe == fixture.text()?, "exe {:?}", target.exe);
    ensure!(target.language == "c", "language {:?}", target.language);
    ensure!(!target.allocators.is_empty(), "no allocators");
    ensure!(target.exit.is_null(), "it has not ended: {}", target.exit);
    running.end_well()
}

fn plugin_loaded_later() -> Result<()> {
    let library = Fixture::compile_with("plugin", &["-O1", "-g", "-fno-omit-frame-pointer", "-shared", "-fPIC"])?;
    let mut running = Fixture::compile("loads_plugin")?.start(&[library.text()?])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    let truth = running.play()?;
    let report = tracer.stop()?;
    // dlopen itself allocates too, in the linker and in libc: only the plugin's own is known here.
    let leaks = report.profile.of_function("plugin_leaks");
    ensure!(Some(&leaks) == truth.sites.get("plugin_leaks"), "found {leaks:?}");
    ensure!(compare::accounting_faults(&report.profile).is_empty());
    running.end_well()
}

/// The kernel finds a process's memory through its main thread. Where that is gone, leaktrace is exact all the same,
/// or says that it is not, or declines in one line. What it may not do is call nothing the whole truth.
fn exact_or_said_so(profile: &Profile, truth: &Truth) -> Result<()> {
    let admitted = !profile.accounting.complete && !profile.accounting.lost.is_empty();
    if admitted {
        Ok(())
    } else {
        compare::exact(profile, truth, LINKER)
    }
}

fn main_thread_gone_before() -> Result<()> {
    let mut running = Fixture::compile("main_gone")?.start(&[])?;
    let mut tracer = Child::spawn(command().args(["--format", "json", "--pid", &running.pid().to_string()]))?;
    let armed = tracer.err.expect(tracer::ARMED).is_ok();
    let truth = running.play()?;
    if armed {
        tracer.signal(Signal::SIGINT)?;
        let ended = tracer.finish(PATIENCE)?;
        exact_or_said_so(&Profile::parse(&ended.out.join("\n"))?, &truth)?;
    } else {
        let ended = tracer.finish(PATIENCE)?;
        ensure!(ended.status.code() == Some(1) && ended.err.len() == 1, "{ended:?}");
        let line = ended.err.concat();
        ensure!(line.contains("main thread") && !line.contains("zombie"), "{line}");
    }
    running.end_well()
}

/// A second trace of anything that uses the same libc takes its probes away again, and must leave the first's.
fn main_thread_gone_and_another_trace_ends() -> Result<()> {
    let mut running = Fixture::compile("ends")?.start(&["without-main-at-the-gate"])?;
    let neighbour = Fixture::compile("malloc")?.start(&[])?;
    let first = tracer::attach(running.pid(), &[])?;
    running.go()?;
    running.child.out.expect("GONE")?;
    tracer::attach(neighbour.pid(), &[])?.stop()?;
    let truth = running.play()?;
    running.end()?;
    exact_or_said_so(&first.finish()?.profile, &truth)?;
    neighbour.play_to_the_end()
}
