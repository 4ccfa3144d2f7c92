//! Goroutines, as seen from outside and as Go itself tells them: the same number, states, functions and origins.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, Ended, PATIENCE, run};
use leaktrace_tests::golang::{self, Build, Test, Told, Toolchain, Truth, is_shown};
use leaktrace_tests::host;
use leaktrace_tests::needs::Need;
use leaktrace_tests::trial::{TRACES, trial};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Run with each version of Go.
const TESTS: &[(&str, Test)] = &[
    ("as_go_tells_them", as_go_tells_them),
    ("growth_by_origin", growth_by_origin),
    ("a_process_that_ends", a_process_that_ends),
    ("leaks_are_proven", leaks_are_proven),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = golang::trials("goroutines", TRACES, TESTS);
    let needs = [TRACES, &[Need::Program("sleep")]].concat();
    trials.push(trial("goroutines::other_programs_are_refused", &needs, other_programs));
    trials
}

fn goroutines(pid: u32, options: &[&str]) -> Command {
    let mut command = Command::new(host::leaktrace());
    command.args(["goroutines", "--pid", &pid.to_string()]).args(options);
    command
}

fn look(pid: u32) -> Result<Value> {
    let ended = run(&mut goroutines(pid, &["--format", "json"]))?;
    ensure!(ended.status.success(), "{:?}", ended.err);
    Ok(serde_json::from_str(&ended.out.join("\n"))?)
}

fn number(value: &Value, field: &str) -> Result<u64> {
    value[field]
        .as_u64()
        .with_context(|| format!("no number {field:?} in {value}"))
}

/// A look in Go's own words.
fn told(look: &Value) -> Result<BTreeMap<Told, u64>> {
    let mut all = BTreeMap::new();
    for stack in look["stacks"].as_array().context("no stacks")? {
        let site = &look["sites"][number(stack, "site")? as usize];
        if site["start"] == "runtime.main" {
            continue;
        }
        let frames = stack["stack"]["frames"].as_array().context("no frames")?;
        ensure!(stack["stack"]["whole"] == true, "not whole: {stack}");
        let functions = frames.iter().filter_map(|frame| frame["function"].as_str());
        let told = Told {
            state: stack["state"].as_str().context("no state")?.to_owned(),
            functions: functions.filter(|name| is_shown(name)).map(str::to_owned).collect(),
            // The statement itself, not the call into which it was inlined.
            created_at: site["created_by"][0]["line"].as_u64().map(|line| line as u32),
        };
        *all.entry(told).or_default() += number(stack, "count")?;
    }
    Ok(all)
}

/// Go leaves out wrappers that the compiler made; 100 calls are all that it shows of a stack.
fn without_wrappers(told: BTreeMap<Told, u64>) -> BTreeMap<Told, u64> {
    let mut plain = BTreeMap::new();
    for (mut one, count) in told {
        one.functions.retain(|name| !name.ends_with("-fm"));
        *plain.entry(one).or_default() += count;
    }
    plain
}

fn as_go_tells_them(toolchain: &Toolchain) -> Result<()> {
    for build in [Build::Plain, Build::Stripped, Build::StrippedPie] {
        let mut child = toolchain.start("goroutines", build)?;
        let truth = Truth::ask(&mut child)?;
        let look = look(child.pid())?;
        let (ours, gos) = (without_wrappers(told(&look)?), without_wrappers(truth.told()));
        let keys: BTreeSet<&Told> = ours.keys().chain(gos.keys()).collect();
        let wrong: Vec<String> = keys
            .into_iter()
            .filter(|key| ours.get(key) != gos.get(key))
            .map(|key| format!("{key:?}: found {:?}, Go says {:?}", ours.get(key), gos.get(key)))
            .collect();
        ensure!(wrong.is_empty(), "{build:?}:\n{}", wrong.join("\n"));
        ensure!(
            gos.values().sum::<u64>() == 125,
            "the truth is short of goroutines: {gos:?}"
        );
        let counted = (number(&look, "count")?, number(&look, "num_goroutine")?);
        ensure!(counted.0 == 126, "{build:?}: {counted:?}");
        ensure!(
            counted.1 == truth.goroutines,
            "{build:?}: {counted:?}, Go says {}",
            truth.goroutines
        );
        ensure!(look["go"]["version"].as_str() == Some(truth.version.split(' ').next().unwrap_or_default()));
        ensure!(
            look["go"].get("layout_of").is_none() && look["lost"] == serde_json::json!({}),
            "{look}"
        );
        end(child)?;
    }
    Ok(())
}

/// The fixture ends as it wants to: nothing was done to it.
fn end(mut child: Child) -> Result<()> {
    child.write("end\n")?;
    let ended = child.finish(PATIENCE)?;
    ensure!(
        ended.status.success(),
        "the fixture ended with {}: {:?}",
        ended.status,
        ended.err
    );
    Ok(())
}

fn command(child: &mut Child, line: &str, answer: &str) -> Result<()> {
    child.write(line)?;
    child.out.expect(answer)?;
    Ok(())
}

fn growth_by_origin(toolchain: &Toolchain) -> Result<()> {
    let mut child = toolchain.start("goroutines", Build::Stripped)?;
    command(&mut child, "grow 30\n", "GROWN")?;
    let mut watch = Child::spawn(&mut goroutines(child.pid(), &["--interval", "300ms"]))?;
    watch.out.expect("")?;
    watch.out.expect("    +30  to 30  main.grow ")?;
    command(&mut child, "grow 70\n", "GROWN")?;
    watch.out.expect("    +70  to 100  main.grow ")?;
    command(&mut child, "shrink\n", "SHRUNK")?;
    command(&mut child, "grow 45\n", "GROWN")?;
    watch.signal(Signal::SIGINT)?;
    let ended = watch.finish(PATIENCE)?;
    ensure!(ended.status.success(), "{ended:?}");
    let report = ended.out.join("\n");
    ensure!(
        report.contains("171 goroutines, and 4 of the runtime's own; 15 more than "),
        "{report}"
    );
    ensure!(report.contains("45 goroutines, 26 %; 15 more than "), "{report}");
    end(child)
}

/// What ends while it is watched is reported in a line, with what was seen.
fn a_process_that_ends(toolchain: &Toolchain) -> Result<()> {
    let mut child = toolchain.start("goroutines", Build::Plain)?;
    let pid = child.pid();
    let mut watch = Child::spawn(&mut goroutines(pid, &["--interval", "200ms"]))?;
    watch.out.expect("")?;
    child.write("end\n")?;
    child.wait(PATIENCE)?;
    let ended = watch.finish(PATIENCE)?;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(
        ended.err == [format!("leaktrace: process {pid} has ended")],
        "{:?}",
        ended.err
    );
    ensure!(ended.out.join("\n").contains("126 goroutines, and "), "{:?}", ended.out);
    refused(&run(&mut goroutines(pid, &[]))?, "no process")
}

/// What the fixture leaks, by function.
const LEAKED: [(&str, u64); 7] = [
    ("main.leakedReceive", 7),
    ("main.leakedSend", 5),
    ("main.leakedSelect", 4),
    ("main.leakedMutex", 3),
    ("main.leakedGroup", 2),
    ("main.leakedNil", 1),
    ("main.leakedPair", 2),
];

/// How many goroutines are proven to be leaked, by the function of the program that they are in.
fn leaked(look: &Value) -> Result<BTreeMap<String, u64>> {
    let mut leaked = BTreeMap::new();
    for stack in look["stacks"].as_array().context("no stacks")? {
        let count = number(stack, "leaked")?;
        let frames = stack["stack"]["frames"].as_array().into_iter().flatten();
        let own = frames
            .filter_map(|frame| frame["function"].as_str())
            .find(|name| name.starts_with("main."));
        if count > 0 {
            *leaked.entry(own.unwrap_or("none").to_owned()).or_default() += count;
            ensure!(
                stack["blocked_on"].as_array().is_some_and(|on| !on.is_empty()),
                "{stack}"
            );
        }
    }
    Ok(leaked)
}

/// None that can still be woken, ever; and all that are leaked, but for one that a word somewhere seems to name: every
/// word that could be a pointer is taken for one. At each of several looks under load.
fn leaks_are_proven(toolchain: &Toolchain) -> Result<()> {
    let expected: BTreeMap<String, u64> = LEAKED.map(|(name, count)| (name.to_owned(), count)).into();
    let mut child = toolchain.start("leaks", Build::Stripped)?;
    for _ in 0..3 {
        let ended = run(&mut goroutines(child.pid(), &["--leaks", "--format", "json"]))?;
        ensure!(ended.status.success(), "{:?}", ended.err);
        let look: Value = serde_json::from_str(&ended.out.join("\n"))?;
        let found = leaked(&look)?;
        let wrong = found
            .iter()
            .find(|(name, count)| expected.get(*name).is_none_or(|most| *count > most));
        ensure!(
            wrong.is_none(),
            "{wrong:?} can be woken: found {found:?}, leaked are {expected:?}"
        );
        let (proven, examined) = (number(&look["leaks"], "proven")?, number(&look["leaks"], "examined")?);
        ensure!(proven == found.values().sum::<u64>() && examined > 24, "{look}");
        ensure!(proven >= 23, "found {found:?}, leaked are {expected:?}");
    }
    as_gos_own_profile(&mut child, &expected)?;
    child.write("end\n")?;
    // The fixture sees that all the others could be woken.
    child.out.expect("WOKEN")?;
    Ok(())
}

/// Go 1.27 can tell leaked goroutines itself: `7 @ 0x… 0x…`, then a line for each call.
fn as_gos_own_profile(child: &mut Child, expected: &BTreeMap<String, u64>) -> Result<()> {
    child.write("profile\n")?;
    let line = child.out.expect("PROFILE ")?;
    let profile: String = serde_json::from_str(line.trim_start_matches("PROFILE "))?;
    if profile.is_empty() {
        return Ok(());
    }
    let mut gos: BTreeMap<String, u64> = BTreeMap::new();
    for paragraph in profile.split("\n\n") {
        let count = paragraph
            .lines()
            .find_map(|line| line.split_once(" @ ")?.0.parse::<u64>().ok());
        let own = paragraph.split(['\t', '+']).find(|word| word.starts_with("main."));
        if let (Some(count), Some(own)) = (count, own) {
            *gos.entry(own.to_owned()).or_default() += count;
        }
    }
    ensure!(gos == *expected, "Go says {gos:?}, leaked are {expected:?}");
    Ok(())
}

fn refused(ended: &Ended, why: &str) -> Result<()> {
    ensure!(ended.status.code() == Some(1) && ended.out.is_empty(), "{ended:?}");
    ensure!(ended.err.len() == 1 && ended.err[0].contains(why), "{:?}", ended.err);
    Ok(())
}

fn other_programs() -> Result<()> {
    let child = Child::spawn(Command::new("sleep").arg("60"))?;
    // Until it is the program that it becomes.
    std::thread::sleep(Duration::from_millis(200));
    refused(&run(&mut goroutines(child.pid(), &[]))?, "is no Go program")
}
