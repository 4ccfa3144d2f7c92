//! `leaktrace inspect`: what a trace would do, in text and JSON, of native and Go programs.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, run};
use leaktrace_tests::golang::{self, Build, Toolchain};
use leaktrace_tests::host;
use leaktrace_tests::needs::Need;
use leaktrace_tests::trial::{TRACES, trial};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    let needs = [TRACES, &[Need::Program("sleep")]].concat();
    let mut trials = vec![
        trial("inspect::native_programs", &needs, native_programs),
        trial("inspect::processes_that_are_gone", TRACES, gone),
    ];
    trials.extend(golang::trials("inspect", TRACES, &[("go_programs", go_programs)]));
    trials
}

fn inspect(pid: u32, options: &[&str]) -> Command {
    let mut command = Command::new(host::leaktrace());
    command.args(["inspect", "--pid", &pid.to_string()]).args(options);
    command
}

fn json(pid: u32) -> Result<Value> {
    let ended = run(&mut inspect(pid, &["--format", "json"]))?;
    ensure!(ended.status.success(), "{:?}", ended.err);
    Ok(serde_json::from_str(&ended.out.join("\n"))?)
}

fn native_programs() -> Result<()> {
    let child = Child::spawn(Command::new("sleep").arg("60"))?;
    let found = json(child.pid())?;
    let text = run(&mut inspect(child.pid(), &[]))?;
    child.signal(Signal::SIGKILL)?;
    ensure!(found["schema"] == "leaktrace.inspect/1", "{found}");
    ensure!(
        found["process"]["pid"] == child.pid() && found["refused"].is_null(),
        "{found}"
    );
    ensure!(found.get("go").is_none(), "{}", found["go"]);
    let probes = found["probes"].as_array().context("no probes")?;
    ensure!(probes.iter().any(|probe| probe["function"] == "malloc"), "{probes:?}");
    ensure!(
        text.status.success() && text.out.iter().any(|line| line.starts_with("Probes: ")),
        "{:?}",
        text.out
    );
    ensure!(!text.out.iter().any(|line| line == "Go"), "{:?}", text.out);
    Ok(())
}

fn gone() -> Result<()> {
    let ended = run(&mut inspect(i32::MAX as u32, &[]))?;
    ensure!(
        ended.status.code() == Some(1) && ended.out.is_empty() && ended.err.len() == 1,
        "{:?}",
        ended.err
    );
    Ok(())
}

fn go_programs(toolchain: &Toolchain) -> Result<()> {
    for (build, layout) in [
        (Build::Plain, "debug_info"),
        (Build::Stripped, "version"),
        (Build::StrippedPie, "version"),
    ] {
        let mut child = toolchain.start("goroutines", build)?;
        let found = json(child.pid())?;
        let text = run(&mut inspect(child.pid(), &[]))?;
        child.write("end\n")?;
        let go = &found["go"];
        ensure!(go["layout_from"] == layout && go["cgo"] == false, "{build:?}: {go}");
        ensure!(go["stripped"] == (build != Build::Plain), "{build:?}: {go}");
        ensure!(
            go["version"]
                .as_str()
                .is_some_and(|version| version.starts_with("go1.")),
            "{go}"
        );
        let places = go["places"].as_object().context("no places")?;
        ensure!(
            places.len() == 9 && places.values().all(Value::is_string),
            "{build:?}: {go}"
        );
        let parts = go["parts"].as_array().context("no parts")?;
        for name in ["goroutines", "leaked goroutines", "heap by stack", "timeline"] {
            let part = parts.iter().find(|part| part["name"] == name).context(name)?;
            ensure!(part["works"] == true && part["why"].is_null(), "{build:?}: {part}");
        }
        ensure!(
            text.out.iter().any(|line| line.contains("heap by stack: yes")),
            "{:?}",
            text.out
        );
    }
    Ok(())
}
