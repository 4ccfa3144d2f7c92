//! What cannot be done is said in one line: what, why, what to do. Exit code 1; wrong usage is 2.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, Ended, PATIENCE, run};
use leaktrace_tests::fixture::{Fixture, Running};
use leaktrace_tests::host;
use leaktrace_tests::needs::Need;
use leaktrace_tests::tracer::{ARMED, command, leaktrace};
use leaktrace_tests::trial::{traced, trial};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

const NOBODY: u32 = 65534;

pub fn trials() -> Vec<Trial> {
    let usage: &[&[&str]] = &[
        &[],
        &["--bogus"],
        &["--pid", "many"],
        &["--pid", "-1"],
        &["--pid", "0"],
        &["--pid", "1", "--duration", "soon"],
        &["--pid", "1", "--min-bytes", "much"],
        &["--pid", "1", "--max-live", "0"],
        &["--pid", "1", "--", "true"],
        &["--pid", "1", "--no-hold"],
        &["--pid", "1", "--output", "report.unknown"],
        &["--pid", "1", "--format", "unknown"],
        &["render"],
    ];
    let mut trials: Vec<Trial> = usage
        .iter()
        .map(|words| {
            let name = format!(
                "errors::usage::{}",
                if words.is_empty() {
                    "nothing".into()
                } else {
                    words.join("_")
                }
            );
            trial(name, &[Need::Binary], move || wrong_usage(words))
        })
        .collect();
    trials.extend([
        trial("errors::nothing_there_to_render", &[Need::Binary], nothing_to_render),
        trial("errors::not_a_profile", &[Need::Binary], not_a_profile),
        traced("errors::no_such_process", no_such_process),
        traced("errors::kernel_thread", kernel_thread),
        traced("errors::zombie", zombie),
        traced("errors::command_not_found", command_not_found),
        traced("errors::command_not_a_program", command_not_a_program),
        traced("errors::program_of_32_bits", program_of_32_bits),
        traced("errors::no_allocator", no_allocator),
        traced("errors::no_allocator_launched", no_allocator_launched),
        traced("errors::others_process_as_nobody", others_process_as_nobody),
        traced("errors::own_process_as_nobody", own_process_as_nobody),
        traced("errors::output_directory_missing", output_directory_missing),
        traced("errors::output_in_proc", output_in_proc),
        traced("errors::disk_full", disk_full),
        traced("errors::standard_output_full", standard_output_full),
        traced("errors::broken_pipe", broken_pipe),
    ]);
    trials
}

/// One line on standard error, from leaktrace, that has every one of `words` in it; exit code 1; no panic.
fn one_line(ended: &Ended, words: &[&str]) -> Result<()> {
    ensure!(ended.status.code() == Some(1), "exit code: {ended:?}");
    ensure!(ended.err.len() == 1, "{} lines: {:?}", ended.err.len(), ended.err);
    let line = ended.err.first().context("it said nothing")?;
    ensure!(line.starts_with("leaktrace: "), "{line:?}");
    ensure!(!line.contains("panicked") && !line.contains("Error {"), "{line:?}");
    let low = line.to_lowercase();
    let absent: Vec<_> = words
        .iter()
        .filter(|word| !low.contains(&word.to_lowercase()))
        .collect();
    ensure!(absent.is_empty(), "{line:?} does not say {absent:?}");
    Ok(())
}

fn wrong_usage(words: &[&str]) -> Result<()> {
    let ended = leaktrace(words)?;
    ensure!(ended.status.code() == Some(2), "exit code: {ended:?}");
    ensure!(
        !ended.err.is_empty() && ended.out.is_empty(),
        "usage belongs on standard error: {ended:?}"
    );
    ensure!(
        !ended.err.iter().any(|line| line.contains("panicked")),
        "{:?}",
        ended.err
    );
    Ok(())
}

fn nothing_to_render() -> Result<()> {
    one_line(
        &leaktrace(&["render", "/nowhere/profile.json"])?,
        &["/nowhere/profile.json"],
    )
}

fn not_a_profile() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (name, text) in [
        ("empty", ""),
        ("array", "[1]"),
        ("other", r#"{"schema":"leaktrace.profile/9"}"#),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, text)?;
        one_line(&leaktrace(&["render", &file.to_string_lossy()])?, &[name])?;
    }
    Ok(())
}

fn no_such_process() -> Result<()> {
    one_line(&leaktrace(&["--pid", "999999999"])?, &["999999999", "process"])
}

fn kernel_thread() -> Result<()> {
    // The second process of every system is the parent of the kernel's threads; a container has none.
    let name = fs::read_to_string("/proc/2/comm").unwrap_or_default();
    ensure!(
        name.trim() == "kthreadd",
        "process 2 is {name:?}: no kernel thread to try it on"
    );
    one_line(&leaktrace(&["--pid", "2"])?, &["2", "kernel"])
}

fn zombie() -> Result<()> {
    let mut dead = Command::new("true").stdin(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/stat", dead.id());
    while !fs::read_to_string(&status)?.contains(") Z ") {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let ended = leaktrace(&["--pid", &dead.id().to_string()])?;
    dead.wait()?;
    one_line(&ended, &["ended"])
}

fn command_not_found() -> Result<()> {
    one_line(
        &leaktrace(&["--", "no-such-command-anywhere"])?,
        &["no-such-command-anywhere"],
    )?;
    one_line(&leaktrace(&["--", "/no/such/path"])?, &["/no/such/path"])
}

fn command_not_a_program() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("notes");
    fs::write(&file, "not a program")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let name = file.to_string_lossy();
    one_line(&leaktrace(&["--", &name])?, &[&name])?;
    one_line(&leaktrace(&["--", "/etc"])?, &["/etc"])
}

/// Starts a program that has no gates.
fn start_plain(fixture: &Fixture) -> Result<Running> {
    Ok(Running {
        child: Child::spawn(&mut Command::new(&fixture.path))?,
    })
}

fn program_of_32_bits() -> Result<()> {
    let fixture = Fixture::compile_with("pause32", &["-m32", "-nostdlib", "-static"])?;
    let mut running = start_plain(&fixture)?;
    one_line(&leaktrace(&["--pid", &running.pid().to_string()])?, &["32-bit"])?;
    ensure!(running.child.running()?, "the target is gone");
    one_line(&leaktrace(&["--", fixture.text()?])?, &["32-bit"])
}

const STATIC: &[&str] = &["-nostdlib", "-static", "-s"];

fn no_allocator() -> Result<()> {
    let mut running = start_plain(&Fixture::compile_with("static_pause", STATIC)?)?;
    one_line(&leaktrace(&["--pid", &running.pid().to_string()])?, &["allocator"])?;
    ensure!(running.child.running()?, "the target is gone");
    Ok(())
}

fn no_allocator_launched() -> Result<()> {
    let fixture = Fixture::compile_with("static_pause", STATIC)?;
    one_line(&leaktrace(&["--", fixture.text()?])?, &["allocator"])
}

/// A leaktrace that nobody may read and run, wherever the real one is kept.
fn as_nobody(args: &[&str]) -> Result<Ended> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let copy = dir.path().join("leaktrace");
    fs::copy(host::leaktrace(), &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    run(Command::new(&copy).args(args).current_dir("/").uid(NOBODY).gid(NOBODY))
}

fn others_process_as_nobody() -> Result<()> {
    let running = Fixture::compile("malloc")?.start(&[])?;
    one_line(&as_nobody(&["--pid", &running.pid().to_string()])?, &["sudo"])?;
    running.play_to_the_end()
}

fn own_process_as_nobody() -> Result<()> {
    let mut sleeper = Command::new("sleep")
        .arg("60")
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .spawn()?;
    let ended = as_nobody(&["--pid", &sleeper.id().to_string()]);
    sleeper.kill()?;
    sleeper.wait()?;
    one_line(&ended?, &["sudo"])
}

/// What can be known before is said before the target is touched, not after an hour of tracing.
fn output_directory_missing() -> Result<()> {
    let file = "/no/such/directory/report.json";
    one_line(&leaktrace(&["--output", file, "--pid", "1"])?, &[file])
}

fn output_in_proc() -> Result<()> {
    refused_output(Path::new("/proc/report.json"))
}

fn refused_output(file: &Path) -> Result<()> {
    let running = Fixture::compile("malloc")?.start(&[])?;
    let name = file.to_string_lossy();
    let ended = leaktrace(&[
        "--duration",
        "100ms",
        "--output",
        &name,
        "--pid",
        &running.pid().to_string(),
    ])?;
    without_progress(ended, &[&name])?;
    running.play_to_the_end()
}

/// A file system of one page, and that is taken.
fn disk_full() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let place = dir.path();
    let mounted = run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4k", "none"])
        .arg(place))?;
    ensure!(mounted.status.success(), "{mounted:?}");
    let result = fs::write(place.join("taken"), [0; 4096])
        .map_err(Into::into)
        .and_then(|()| on_full_disk(place));
    let unmounted = run(Command::new("umount").arg(place))?;
    ensure!(unmounted.status.success(), "{unmounted:?}");
    result
}

fn on_full_disk(place: &Path) -> Result<()> {
    let running = Fixture::compile("malloc")?.start(&[])?;
    let file = place.join("report.json");
    let pid = running.pid().to_string();
    let ended = leaktrace(&[
        "--duration",
        "100ms",
        "--output",
        &file.to_string_lossy(),
        "--pid",
        &pid,
    ])?;
    without_progress(ended, &["report.json", "space"])?;
    running.play_to_the_end()
}

fn standard_output_full() -> Result<()> {
    let running = Fixture::compile("malloc")?.start(&[])?;
    let script = "exec \"$0\" --duration 100ms --format json --pid \"$1\" > /dev/full";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .arg(host::leaktrace())
        .arg(running.pid().to_string());
    without_progress(run(&mut shell)?, &["standard output", "space"])?;
    running.play_to_the_end()
}

/// As [`one_line`], after the line that says that the trace began.
fn without_progress(mut ended: Ended, words: &[&str]) -> Result<()> {
    ended.err.retain(|line| !line.starts_with(ARMED));
    one_line(&ended, words)
}

fn broken_pipe() -> Result<()> {
    let mut running = Fixture::compile("malloc")?.start(&[])?;
    let pid = running.pid().to_string();
    let mut tracer = Child::spawn(command().args(["--interval", "100ms", "--pid", &pid]))?;
    tracer.err.expect(ARMED)?;
    tracer.close_stdout();
    running.play()?;
    tracer.signal(Signal::SIGINT)?;
    let ended = tracer.finish(PATIENCE)?;
    ensure!(ended.status.code() == Some(0), "{ended:?}");
    ensure!(!ended.err.iter().any(|line| line.contains("ipe")), "{:?}", ended.err);
    running.end_well()
}
