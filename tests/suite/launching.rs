//! `leaktrace -- CMD`: from the first instruction to the last, as the user who asked.

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, PATIENCE, run};
use leaktrace_tests::compare;
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::needs::Need;
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer::{self, command};
use leaktrace_tests::trial::{TRACES, traced, trial};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::json;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        traced("launching::a_program_that_ends_at_once", ends_at_once),
        traced("launching::found_in_the_path", found_in_the_path),
        traced("launching::keeps_arguments", keeps_arguments),
        traced("launching::through_a_shell", through_a_shell),
        traced("launching::a_program_that_traces_itself", || sanitized("leak")),
        traced("launching::a_program_that_checks_its_memory", || sanitized("address")),
        traced("launching::a_program_that_must_not_be_held", must_not_be_held),
        traced("launching::another_program_after_release", another_after_release),
        traced("launching::ctrl_c_lets_the_program_end_first", ctrl_c),
    ];
    let sudo = [TRACES, &[Need::Program("id")]].concat();
    trials.push(trial(
        "launching::as_the_user_behind_sudo",
        &sudo,
        as_the_user_behind_sudo,
    ));
    trials
}

fn ends_at_once() -> Result<()> {
    let report = tracer::launch(&[], &["/bin/true"])?.finish()?;
    ensure!(
        report.profile.target.exit == json!({"status": 0}),
        "exit {}",
        report.profile.target.exit
    );
    ensure!(compare::accounting_faults(&report.profile).is_empty());
    Ok(())
}

fn found_in_the_path() -> Result<()> {
    let report = tracer::launch(&[], &["sh", "-c", "exit 7"])?.finish()?;
    ensure!(
        report.profile.target.exit == json!({"status": 7}),
        "exit {}",
        report.profile.target.exit
    );
    Ok(())
}

fn keeps_arguments() -> Result<()> {
    let script = "printf '%s|' \"$@\"; cat";
    let mut tracer = tracer::launch(&[], &["sh", "-c", script, "sh", "--pid", "a b", "", "*"])?;
    tracer.child.write("from standard input\n")?;
    tracer.child.close_stdin();
    let report = tracer.finish()?;
    let said = report.ended.out.first().context("it said nothing")?;
    ensure!(said == "--pid|a b||*|from standard input", "it said {said:?}");
    Ok(())
}

/// The shell becomes the fixture: same process, another program. What the shell held is gone with it.
fn through_a_shell() -> Result<()> {
    let fixture = Fixture::compile("malloc")?;
    let mut tracer = tracer::launch(&[], &["sh", "-c", "exec \"$0\"", fixture.text()?])?;
    let truth = tracer.play()?;
    let profile = tracer.finish()?.profile;
    for (name, amounts) in &truth.sites {
        ensure!(
            profile.of_function(name) == *amounts,
            "{name}: {:?}",
            profile.of_function(name)
        );
    }
    ensure!(
        profile.accounting.live_bytes == truth.total().live_bytes,
        "live {}",
        profile.accounting.live_bytes
    );
    Ok(())
}

/// Under sudo, the program is the caller's, not root's: user, group and all.
fn as_the_user_behind_sudo() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("profile.json");
    let mut sudo = command();
    sudo.env("SUDO_UID", "65534")
        .env("SUDO_GID", "65534")
        .env("SUDO_USER", "nobody");
    let ended = run(sudo
        .arg("--output")
        .arg(&file)
        .args(["--", "sh", "-c", "id -u; id -g; id -G"]))?;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(
        ended.out.starts_with(&["65534".into(), "65534".into(), "65534".into()]),
        "{:?}",
        ended.out
    );
    Profile::read(&file).map(drop)
}

/// A terminal sends Ctrl-C to both. The program cleans up and ends with its own status, and the report is whole.
fn ctrl_c() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("profile.json");
    let script = "trap 'echo bye; exit 9' INT; echo up; while :; do sleep 0.05; done";
    let mut child = Child::spawn(command().arg("--output").arg(&file).args(["--", "sh", "-c", script]))?;
    child.out.expect("up")?;
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(child.pid().cast_signed()), Signal::SIGINT)?;
    let ended = child.finish(PATIENCE)?;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(
        ended.out.iter().any(|line| line == "bye"),
        "it did not get to clean up: {ended:?}"
    );
    let exit = Profile::read(&file)?.target.exit;
    ensure!(exit == json!({"status": 9}), "exit {exit}");
    Ok(())
}

/// `LeakSanitizer` stops its own program at its end by ptrace, which fails where somebody else holds the program so.
fn sanitized(sanitizer: &str) -> Result<()> {
    let flag = format!("-fsanitize={sanitizer}");
    let flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-pthread", &flag];
    let fixture = Fixture::compile_with("nothing", &flags)?;
    let mut tracer = tracer::launch(&[], &[&fixture.path])?;
    let truth = tracer.play()?;
    let report = tracer.finish()?;
    let said = &report.ended.err;
    ensure!(report.profile.target.exit == json!({"status": 0}), "{said:?}");
    ensure!(
        said.iter()
            .any(|line| line.ends_with("is not held at its end: LeakSanitizer does not work under ptrace")),
        "{said:?}"
    );
    // What the sanitizer has for itself, it has by other ways than these.
    for (name, amounts) in truth.sites.iter().filter(|(name, _)| *name != "mapped") {
        let found = report.profile.of_function(name);
        ensure!(found == *amounts, "{name}: {found:?}, true is {amounts:?}");
    }
    ensure!(compare::accounting_faults(&report.profile).is_empty());
    Ok(())
}

/// A program that asks whether it is traced gets along with the flag, and only with it; and loses no number by it.
fn must_not_be_held() -> Result<()> {
    let fixture = Fixture::compile("untraced")?;
    let program = fixture.text()?;
    let held = tracer::launch(&[], &[program])?.finish()?;
    ensure!(
        held.profile.target.exit == json!({"status": 97}),
        "{:?}",
        held.ended.err
    );
    let mut tracer = tracer::launch(&["--no-hold"], &[program])?;
    let truth = tracer.play()?;
    let report = tracer.finish()?;
    ensure!(
        report.profile.target.exit == json!({"status": 6}),
        "{:?}",
        report.ended.err
    );
    compare::exact(&report.profile, &truth, &[])
}

/// Not held, it runs before anybody could look at it: the report is of the program before, and says so.
fn another_after_release() -> Result<()> {
    let (first, next) = (Fixture::compile("becomes")?, Fixture::compile("many")?);
    let mut tracer = tracer::launch(&["--no-hold"], &[first.text()?, next.text()?])?;
    tracer.child.write("\n\n\n")?;
    let report = tracer.finish()?;
    let gone = report.profile.of_function("gone");
    ensure!((gone.live_bytes, gone.live_count) == (5000, 5), "{gone:?}");
    let said = &report.ended.err;
    ensure!(
        said.iter().any(|line| line.contains("replaced its program")),
        "{said:?}"
    );
    ensure!(report.profile.target.exit == json!({"status": 0}), "{said:?}");
    ensure!(compare::accounting_faults(&report.profile).is_empty());
    Ok(())
}
