//! postgres: one backend and the postmaster, traced while they answer.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, PATIENCE, run};
use leaktrace_tests::host;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced_program;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::unistd::User;
use tempfile::TempDir;

use super::{mostly_whole, sound};

pub fn trials() -> Vec<Trial> {
    vec![
        traced_program("programs::postgres::backend", "postgres", backend),
        traced_program("programs::postgres::postmaster", "postgres", postmaster),
    ]
}

/// A cluster in a directory of its own, listening on a socket there.
struct Cluster {
    server: Child,
    dir: TempDir,
    tools: PathBuf,
    user: (u32, u32),
}

impl Cluster {
    fn start() -> Result<Self> {
        let tools = host::find_program("postgres").context("no postgres")?.canonicalize()?;
        let tools = tools.parent().context("no directory")?.to_owned();
        let account = User::from_name("postgres")?.context("no user postgres, and postgres does not run as root")?;
        let user = (account.uid.as_raw(), account.gid.as_raw());
        let dir = tempfile::tempdir()?;
        chown(dir.path(), Some(user.0), Some(user.1))?;
        let data = dir.path().join("data");
        let mut initdb = tool(&tools, "initdb", user);
        let made = run(initdb.args(["--no-sync", "--auth=trust", "--pgdata"]).arg(&data))?;
        ensure!(made.status.success(), "{made:?}");
        let mut postgres = tool(&tools, "postgres", user);
        postgres
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-D"])
            .arg(&data)
            .arg("-k")
            .arg(dir.path());
        let mut server = Child::spawn(&mut postgres)?;
        while !server
            .err
            .so_far()
            .iter()
            .any(|line| line.contains("ready to accept connections"))
        {
            ensure!(server.running()?, "postgres does not start: {}", server.tell());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self {
            server,
            dir,
            tools,
            user,
        })
    }

    fn client(&self) -> Command {
        let mut psql = tool(&self.tools, "psql", self.user);
        psql.args(["-X", "-q", "-A", "-t", "-d", "postgres", "-h"])
            .arg(self.dir.path());
        psql
    }

    fn end(mut self) -> Result<()> {
        self.server.signal(Signal::SIGINT)?;
        ensure!(
            self.server.wait(PATIENCE)?.success(),
            "postgres did not end well: {}",
            self.server.tell()
        );
        Ok(())
    }
}

fn tool(dir: &Path, name: &str, (uid, gid): (u32, u32)) -> Command {
    let mut command = Command::new(dir.join(name));
    command.current_dir("/").uid(uid).gid(gid).env("LC_ALL", "C");
    command
}

const WORK: &str = "create temp table t as select i, md5(i::text) as m from generate_series(1, 20000) i;
    select 'answer', count(*), sum(i), min(m), max(m) from t;\n";
const ANSWER: &str = "answer|20000|200010000|";

fn backend() -> Result<()> {
    let cluster = Cluster::start()?;
    let mut psql = Child::spawn(&mut cluster.client())?;
    psql.write("select 'backend ' || pg_backend_pid();\n")?;
    let line = psql.out.expect("backend ")?;
    let pid = line.trim_start_matches("backend ").parse()?;
    let tracer = tracer::attach(pid, &[])?;
    psql.write(WORK)?;
    psql.out.expect(ANSWER).with_context(|| psql.tell())?;
    let profile = tracer.stop()?.profile;
    sound(&profile)?;
    mostly_whole(&profile, 50)?;
    psql.write("drop table t;\n")?;
    psql.write(WORK)?;
    psql.out.expect(ANSWER).context("after the trace")?;
    psql.close_stdin();
    ensure!(psql.wait(PATIENCE)?.success(), "psql did not end well: {}", psql.tell());
    cluster.end()
}

/// The postmaster forks a backend for each client: those are other processes, and all get their answers.
fn postmaster() -> Result<()> {
    let cluster = Cluster::start()?;
    let tracer = tracer::attach(cluster.server.pid(), &[])?;
    for number in 0..10 {
        let ended = run(cluster
            .client()
            .args(["-c", &format!("select 'client', {number} * 11")]))?;
        ensure!(ended.out == [format!("client|{}", number * 11)], "{ended:?}");
    }
    sound(&tracer.stop()?.profile)?;
    cluster.end()
}
