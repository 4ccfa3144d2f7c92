//! A web service under load while it is traced: it answers every request, however often leaktrace comes and goes.

use std::env;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, PATIENCE};
use leaktrace_tests::estimate::own_function;
use leaktrace_tests::golang::{self, Build, Test, Toolchain};
use leaktrace_tests::tracer;
use leaktrace_tests::trial::TRACES;
use libtest_mimic::Trial;
use serde_json::Value;

/// Connections of the load.
const CONNECTIONS: &str = "16";
/// Requests a second.
const RATE: &str = "500";

/// Run with each version of Go.
const TESTS: &[(&str, Test)] = &[
    ("attached_again_and_again", attached_again_and_again),
    ("its_leak_is_found", its_leak_is_found),
];

pub fn trials() -> Vec<Trial> {
    golang::trials("golang_service", TRACES, TESTS)
}

/// A service, and who asks it.
struct Service {
    server: Child,
    load: Child,
}

impl Service {
    fn start(toolchain: &Toolchain) -> Result<Self> {
        let mut server = Child::spawn(&mut Command::new(toolchain.build("http", Build::Stripped)?))?;
        let ready = server.out.expect("READY ")?;
        let address = ready.trim_start_matches("READY ");
        let mut load = Command::new(toolchain.build("load", Build::Stripped)?);
        let mut load = Child::spawn(load.args([address, CONNECTIONS]))?;
        load.out.expect("READY")?;
        load.write(&format!("start {RATE}\n"))?;
        load.out.expect("STARTED")?;
        Ok(Self { server, load })
    }

    /// Ends both; every request was answered, and answered well.
    fn end(mut self) -> Result<Value> {
        self.load.write("stop\n")?;
        let done = self.load.out.expect("DONE ")?;
        let done: Value = serde_json::from_str(done.trim_start_matches("DONE "))?;
        self.server.write("truth\n")?;
        let truth = self.server.out.expect("TRUTH ")?;
        let truth: Value = serde_json::from_str(truth.trim_start_matches("TRUTH "))?;
        ensure!(
            done["errors"] == 0 && done["requests"] == truth["requests"],
            "{done} {truth}"
        );
        self.server.write("end\n")?;
        let ended = self.server.finish(PATIENCE)?;
        ensure!(ended.status.success(), "the server ended: {ended:?}");
        Ok(done)
    }
}

fn attached_again_and_again(toolchain: &Toolchain) -> Result<()> {
    let exhaustive = env::var_os("LEAKTRACE_EXHAUSTIVE").is_some();
    let mut service = Service::start(toolchain)?;
    let rounds = if exhaustive { 1000 } else { 30 };
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let since = Instant::now();
        let tracer = tracer::attach(service.server.pid(), &[])?;
        slowest = slowest.max(since.elapsed());
        let report = tracer.stop().with_context(|| format!("round {round}"))?;
        ensure!(
            service.server.running()?,
            "the service ended in round {round}: {}",
            service.server.tell()
        );
        ensure!(
            report.profile.accounting.lost.is_empty(),
            "round {round}: {:?}",
            report.profile.accounting
        );
    }
    let took = begun.elapsed();
    let done = service.end()?;
    let requests = done["requests"].as_f64().unwrap_or(0.0);
    ensure!(requests > took.as_secs_f64() * 100.0, "it was hardly asked: {done}");
    eprintln!("{rounds} attachments in {took:.1?}, the slowest {slowest:.1?} from its start to tracing; {done}");
    Ok(())
}

/// What the handler leaks comes first, with the stack from the handler on.
fn its_leak_is_found(toolchain: &Toolchain) -> Result<()> {
    let service = Service::start(toolchain)?;
    let tracer = tracer::attach(service.server.pid(), &[])?;
    sleep(Duration::from_secs(10));
    let profile = tracer.stop()?.profile;
    service.end()?;
    let first = profile.sites.first().context("no sites")?;
    ensure!(own_function(first) == "main.newDocuments", "{first:?}");
    let functions: Vec<&str> = first
        .stack
        .frames
        .iter()
        .filter_map(|frame| frame.function.as_deref())
        .collect();
    for caller in ["main.remember", "main.handle", "net/http.(*conn).serve"] {
        ensure!(functions.contains(&caller), "{functions:?}");
    }
    ensure!(first.stack.whole && first.verdict == "growing", "{first:?}");
    Ok(())
}
