//! redis-server under load. Debian's allocates with jemalloc, which leaktrace must say it does not cover.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, Ended, PATIENCE, run};
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer::{ARMED, command};
use leaktrace_tests::trial::traced_program;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

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
    let armed = tracer.err.expect(ARMED).is_ok();
    let load = benchmark(&socket);
    if armed {
        tracer.signal(Signal::SIGINT)?;
    }
    let ended = tracer.finish(PATIENCE)?;
    load?;
    ensure!(cli(&socket, &["ping"])?.out == ["PONG"], "redis does not answer");
    ensure!(
        cli(&socket, &["incrby", "counted", "41"])?.out == ["41"],
        "redis does not count"
    );
    ensure!(server.running()?, "redis is gone");
    speaks_of_jemalloc(&server, &ended, armed)
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

/// Where redis is built with jemalloc, the user learns of it: from the error, or beside the report.
fn speaks_of_jemalloc(server: &Child, ended: &Ended, armed: bool) -> Result<()> {
    if armed {
        ensure!(ended.status.success(), "{ended:?}");
        Profile::parse(&ended.out.join("\n"))?;
    } else {
        ensure!(ended.status.code() == Some(1) && ended.err.len() == 1, "{ended:?}");
    }
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid())).context("redis is gone")?;
    let said = ended.err.iter().any(|line| line.contains("jemalloc"));
    ensure!(
        said || !maps.contains("jemalloc"),
        "it does not speak of jemalloc: {:?}",
        ended.err
    );
    Ok(())
}
