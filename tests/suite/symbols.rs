//! Where names come from: files that were changed, replaced, deleted, stripped, or that only the program itself sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::Child;
use leaktrace_tests::fixture::{Fixture, PLAIN, Running};
use leaktrace_tests::host;
use leaktrace_tests::needs::Need;
use leaktrace_tests::profile::{Frame, Profile, Site};
use leaktrace_tests::symbols::pack;
use leaktrace_tests::tracer::{self, Report};
use leaktrace_tests::trial::{traced, trial};
use libtest_mimic::Trial;

/// The flags of a library.
const LIBRARY: &[&str] = &["-O1", "-g", "-shared", "-fPIC", "-Wl,--build-id"];
/// Longer than leaktrace takes to open the files of new code.
const OPENED: Duration = Duration::from_millis(2500);

pub fn trials() -> Vec<Trial> {
    let packing = [
        Need::Binary,
        Need::Tracing,
        Need::Program("xz"),
        Need::Program("objcopy"),
    ];
    let namespaces = [Need::Binary, Need::Tracing, Need::Program("unshare")];
    vec![
        trial("symbols::mini_debug_information", &packing, mini_debug_information),
        traced("symbols::a_library_cut_short", || changed(cut_short)),
        traced("symbols::a_library_overwritten", || changed(overwrite)),
        traced("symbols::a_library_replaced", || unharmed(replace)),
        traced("symbols::a_library_deleted", || {
            unharmed(|path| Ok(fs::remove_file(path)?))
        }),
        traced("symbols::a_program_deleted_that_has_ended", deleted_and_ended),
        trial(
            "symbols::another_file_at_the_same_path",
            &namespaces,
            other_at_same_path,
        ),
        trial("symbols::a_root_of_its_own", &namespaces, own_root),
    ]
}

/// A copy of a fixture that a test may do anything to, in a directory of its own.
fn own_copy(name: &str, flags: &[&str]) -> Result<(tempfile::TempDir, Fixture)> {
    let compiled = Fixture::compile_with(name, flags)?;
    let dir = tempfile::tempdir_in(host::target_dir())?;
    let path = dir.path().join(name);
    fs::copy(&compiled.path, &path)?;
    Ok((dir, Fixture { path }))
}

fn names_at<'a>(profile: &'a Profile, function: &str) -> Result<Vec<&'a str>> {
    let site = profile
        .sites_of(function)
        .next()
        .with_context(|| format!("no site in {function}"));
    let all: Vec<&str> = profile.sites.iter().map(Site::function).collect();
    let site = site.with_context(|| format!("{all:?}"))?;
    Ok(site.stack.frames.iter().map(Frame::name).collect())
}

fn expect_chain(profile: &Profile) -> Result<()> {
    let names = names_at(profile, "chain_third")?;
    ensure!(
        names.starts_with(&["chain_third", "chain_second", "chain_first", "main"]),
        "{names:?}"
    );
    Ok(())
}

fn mini_debug_information() -> Result<()> {
    let (_dir, fixture) = own_copy("chain", &["-O1", "-Wl,--build-id"])?;
    pack(&fixture.path)?;
    let mut running = fixture.start(&[])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    let profile = tracer.stop()?.profile;
    running.end_well()?;
    let notes = &profile.accounting.notes;
    ensure!(!notes.contains_key("files_without_debug"), "{notes:?}");
    expect_chain(&profile)
}

/// Traces a program that loads a library, to which `act` does something once its code was seen.
fn with_library(act: fn(&Path) -> Result<()>) -> Result<Report> {
    let (_dir, library) = own_copy("plugin", LIBRARY)?;
    let mut running = Fixture::compile("loads_plugin")?.start(&[library.text()?])?;
    let tracer = tracer::attach(running.pid(), &["--output", "-"])?;
    running.play()?;
    sleep(OPENED);
    act(&library.path)?;
    let report = tracer.stop()?;
    // Code that was taken away is not there to end with.
    drop(running);
    Ok(report)
}

/// What was overwritten in place gives no names, and the report says so in words.
fn changed(act: fn(&Path) -> Result<()>) -> Result<()> {
    let report = with_library(act)?;
    let accounting = &report.profile.accounting;
    ensure!(accounting.notes.get("changed_files") == Some(&1), "{accounting:?}");
    let words = "1 file overwritten during the trace, and not used for names";
    ensure!(report.words().contains(words), "{:?}", report.ended.out);
    let site = report.profile.sites.iter().find(|site| site.amounts.live_count == 12);
    let site = site.context("the library's blocks are not there")?;
    ensure!(site.function().is_empty(), "a wrong name: {}", site.function());
    ensure!(site.module() == "plugin", "module {}", site.module());
    Ok(())
}

fn cut_short(path: &Path) -> Result<()> {
    Ok(fs::File::options().write(true).open(path)?.set_len(100)?)
}

/// As `cp` does it: other contents in the same file.
fn overwrite(path: &Path) -> Result<()> {
    let other = Fixture::compile_with("plugin", &["-O0", "-shared", "-fPIC", "-Wl,--build-id"])?;
    fs::copy(other.path, path)?;
    Ok(())
}

/// What was replaced or deleted is still there for whoever has it open.
fn unharmed(act: fn(&Path) -> Result<()>) -> Result<()> {
    let profile = with_library(act)?.profile;
    let notes = &profile.accounting.notes;
    ensure!(!notes.contains_key("changed_files"), "{notes:?}");
    ensure!(
        profile.of_function("plugin_leaks").live_count == 12,
        "{:?}",
        profile.sites
    );
    Ok(())
}

/// As an upgrade does it: another file of that name.
fn replace(path: &Path) -> Result<()> {
    let fresh = path.with_extension("new");
    overwrite(&fresh)?;
    Ok(fs::rename(fresh, path)?)
}

fn deleted_and_ended() -> Result<()> {
    let (_dir, fixture) = own_copy("chain", PLAIN)?;
    let mut running = fixture.start(&[])?;
    fs::remove_file(&fixture.path)?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    running.end_well()?;
    expect_chain(&tracer.finish()?.profile)
}

/// Starts `command` under `unshare`, and waits until the fixture in it is ready.
fn start_unshared(script: &str, args: &[&Path]) -> Result<Running> {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .args(args);
    let mut child = Child::spawn(&mut command)?;
    child.out.expect("READY")?;
    Ok(Running { child })
}

/// In the program's mount namespace its path leads to it, in ours to another program.
fn other_at_same_path() -> Result<()> {
    let (_dir, ours) = own_copy("malloc", PLAIN)?;
    let theirs = Fixture::compile("chain")?;
    let script = r#"mount --bind "$1" "$2" && exec "$2""#;
    let mut running = start_unshared(script, &[&theirs.path, &ours.path])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    let profile = tracer.stop()?.profile;
    running.end_well()?;
    ensure!(profile.target.exe == ours.text()?, "{:?}", profile.target.exe);
    expect_chain(&profile)
}

/// A root directory with its own libraries, debug file and program; in ours there is nothing at these paths.
fn own_root() -> Result<()> {
    let dir = tempfile::tempdir_in(host::target_dir())?;
    let program = Fixture::compile_with("chain", PLAIN)?;
    fill_root(dir.path(), &program.path)?;
    let script = r#"cd "$1" && exec chroot . /leaktrace-suite/chain"#;
    let mut running = start_unshared(script, &[dir.path()])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    running.end_well()?;
    let profile = tracer.finish()?.profile;
    ensure!(
        profile.target.exe.ends_with("leaktrace-suite/chain"),
        "{}",
        profile.target.exe
    );
    expect_chain(&profile)?;
    let frame = profile
        .sites_of("chain_third")
        .next()
        .and_then(|site| site.stack.frames.first());
    let line = frame.and_then(|frame| frame.line);
    ensure!(line.is_some(), "the debug file beside it was not found: {frame:?}");
    Ok(())
}

/// Puts a program there, its debug information in a file beside it, and the libraries that it needs.
fn fill_root(root: &Path, program: &Path) -> Result<()> {
    let listed = Command::new("ldd").arg(program).output()?.stdout;
    let listed = String::from_utf8(listed)?;
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = below(root, library);
        fs::create_dir_all(to.parent().context("a library in no directory")?)?;
        fs::copy(library, to)?;
    }
    let inside = below(root, "/leaktrace-suite/chain");
    let debug = below(root, "/leaktrace-suite/.debug/chain.debug");
    fs::create_dir_all(debug.parent().context("no directory")?)?;
    fs::copy(program, &inside)?;
    let steps = r#"objcopy --only-keep-debug "$1" "$2" && strip "$1" && objcopy --add-gnu-debuglink="$2" "$1""#;
    let status = Command::new("sh")
        .args(["-c", steps, "sh"])
        .arg(inside)
        .arg(debug)
        .status()?;
    ensure!(status.success(), "objcopy: {status}");
    Ok(())
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
