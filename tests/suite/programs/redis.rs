//! redis-server under load. Debian's allocates with jemalloc, a library loaded beside libc.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, Ended, PATIENCE, run};
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer::{ARMED, command};
use leaktrace_tests::trial::traced_program;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use super::mostly_whole;

pub fn trials() -> Vec<Trial> {
    vec![traced_program("programs::redis", "redis-benchmark", under_load)]
}

fn under_load() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("redis.sock");
    let mut server = Child::spawn(
        Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--daemonize",
                "no",
                "--dir",
            ])
            .arg(dir.path())
            .arg("--unixsocket")
            .arg(&socket),
    )?;
    while !socket.exists() {
        ensure!(server.running()?, "redis does not start: {}", server.tell());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut tracer = Child::spawn(command().args(["--format", "json", "--pid", &server.pid().to_string()]))?;
    tracer.err.expect(ARMED)?;
    let load = benchmark(&socket);
    tracer.signal(Signal::SIGINT)?;
    let ended = tracer.finish(PATIENCE)?;
    load?;
    ensure!(cli(&socket, &["ping"])?.out == ["PONG"], "redis does not answer");
    ensure!(
        cli(&socket, &["incrby", "counted", "41"])?.out == ["41"],
        "redis does not count"
    );
    ensure!(server.running()?, "redis is gone");
    is_complete(&server, &ended)
}

fn benchmark(socket: &Path) -> Result<()> {
    let mut load = Command::new("redis-benchmark");
    load.args(["-n", "20000", "-c", "20", "-q", "-t", "set,get,lpush,lpop", "-s"])
        .arg(socket);
    let ended = run(&mut load)?;
    ensure!(ended.status.success(), "{ended:?}");
    let all = [ended.out, ended.err].concat().join("\n");
    ensure!(!all.contains("rror"), "requests failed: {all}");
    ensure!(
        all.matches("requests per second").count() >= 4,
        "the load did not end: {all}"
    );
    Ok(())
}

fn cli(socket: &Path, words: &[&str]) -> Result<Ended> {
    run(Command::new("redis-cli").arg("-s").arg(socket).args(words))
}

/// Where redis is built with jemalloc, its blocks are seen, and none of what jemalloc reserves.
fn is_complete(server: &Child, ended: &Ended) -> Result<()> {
    ensure!(ended.status.success(), "{ended:?}");
    let profile = Profile::parse(&ended.out.join("\n"))?;
    let accounting = &profile.accounting;
    ensure!(
        accounting.complete && accounting.lost.is_empty(),
        "lost {:?}",
        accounting.lost
    );
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid())).context("redis is gone")?;
    let allocators = &profile.target.allocators;
    ensure!(
        !maps.contains("jemalloc") || allocators.iter().any(|name| name == "jemalloc"),
        "it found {allocators:?}"
    );
    ensure!(accounting.allocations > 20_000, "{accounting:?}");
    let of_jemalloc = profile
        .sites
        .iter()
        .find(|site| site.module().starts_with("libjemalloc"));
    ensure!(of_jemalloc.is_none(), "{of_jemalloc:?}");
    mostly_whole(&profile, 20_000)
}
