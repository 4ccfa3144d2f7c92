//! The rate of a Go program's own heap profile: set while it is traced, put back however the trace ends by itself, and left
//! alone where there is no such profile. And what holds its objects, asked for at the end.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::Child;
use leaktrace_tests::golang::{self, Build, Test, Toolchain};
use leaktrace_tests::tracer;
use leaktrace_tests::trial::TRACES;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Run with each version of Go.
const TESTS: &[(&str, Test)] = &[
    ("set_and_put_back", set_and_put_back),
    ("left_alone_where_there_is_none", left_alone_where_there_is_none),
    ("a_variable_holds_what_leaks", a_variable_holds_what_leaks),
];

pub fn trials() -> Vec<Trial> {
    golang::trials("golang_rate", TRACES, TESTS)
}

fn start(toolchain: &Toolchain, files: &[&str]) -> Result<Child> {
    let mut child = Child::spawn(&mut Command::new(toolchain.build_of(files, Build::Plain)?))?;
    child.out.expect("READY")?;
    Ok(child)
}

/// The rate, as the program itself has it.
fn rate(child: &mut Child) -> Result<u64> {
    child.write("profile\n")?;
    let line = child.out.expect("PROFILE ")?;
    let told: Value = serde_json::from_str(line.trim_start_matches("PROFILE "))?;
    told["rate"].as_u64().context("no rate")
}

fn set_and_put_back(toolchain: &Toolchain) -> Result<()> {
    let mut child = start(toolchain, &["heap", "heap_sites", "heap_profiled"])?;
    let before = rate(&mut child)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let tracer = tracer::attach(child.pid(), &["--go-mem-profile-rate", "4KiB"])?;
        ensure!(rate(&mut child)? == 4096, "not set");
        tracer.child.signal(signal)?;
        let report = tracer.finish()?;
        let said = report.ended.err.join(" ");
        ensure!(said.contains("this was written into it"), "{said}");
        let now = rate(&mut child)?;
        ensure!(now == before, "{now} after {signal}, and {before} before the trace");
    }
    child.signal(Signal::SIGKILL)
}

fn left_alone_where_there_is_none(toolchain: &Toolchain) -> Result<()> {
    let mut child = start(toolchain, &["heap", "heap_sites"])?;
    let report = tracer::attach(child.pid(), &["--go-mem-profile-rate", "4KiB"])?.stop()?;
    let said = report.ended.err.join(" ");
    ensure!(said.contains("is not set: its linker has switched"), "{said}");
    ensure!(child.running()?, "{}", child.tell());
    child.signal(Signal::SIGKILL)
}

fn a_variable_holds_what_leaks(toolchain: &Toolchain) -> Result<()> {
    let mut child = start(toolchain, &["heap", "heap_sites"])?;
    let tracer = tracer::attach(child.pid(), &["--reach", "--duration", "8s"])?;
    child.write("start\n")?;
    child.out.expect("STARTED")?;
    let report = tracer.finish()?;
    let leak =
        report.profile.sites.iter().find(|site| {
            site.stack.frames.first().and_then(|frame| frame.function.as_deref()) == Some("main.newBuffer")
        });
    let leak = leak.context("the leak of buffers is not among the sites")?;
    let first = leak.holders.first().context("nothing is said to hold it")?;
    let (held, of) = (first["held"].as_u64().unwrap_or(0), first["of"].as_u64().unwrap_or(0));
    let by = first["root"].as_str().unwrap_or_default();
    ensure!(
        by.starts_with("main.known") && 10 * held >= 9 * of && of > 20,
        "{first}"
    );
    child.signal(Signal::SIGKILL)
}
