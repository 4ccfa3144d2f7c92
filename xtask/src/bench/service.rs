//! A web service in Go under load: `tests/fixtures/go/http.go`, asked by `load.go`, both built by the newest Go there is.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::command::{on_path, run, target_dir, workspace};

/// The versions of Go that the set-up fetches, newest first.
const VERSIONS: &str = include_str!("../../../tests/go-versions");
/// Connections that the load keeps.
const CONNECTIONS: &str = "16";

/// A program that is spoken to by lines. Ends with this value.
struct Talker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// The service and its load.
pub struct Service {
    server: Talker,
    load: Talker,
}

/// What the load saw in a while, and what the service used.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Requests answered in a second.
    pub throughput: f64,
    /// Half of the answers took at most this, microseconds.
    pub p50_us: f64,
    /// Of a hundred answers 99 took at most this, microseconds.
    pub p99_us: f64,
    /// CPU time of the service for a request, microseconds.
    pub cpu_us: f64,
}

/// The newest Go that is there.
pub fn toolchain() -> Option<PathBuf> {
    let versions = VERSIONS.lines().filter(|line| !line.starts_with('#'));
    let fetched = versions.filter_map(|line| line.split(' ').next()).map(|version| {
        let home = target_dir().join("go").join(version);
        home.join("go/bin/go")
    });
    let own = on_path("go").then(|| PathBuf::from("go"));
    fetched.into_iter().find(|go| go.is_file()).or(own)
}

/// Builds both programs.
pub fn build(go: &Path) -> Result<()> {
    for name in ["http", "load"] {
        let source = workspace().join("tests/fixtures/go").join(name).with_extension("go");
        let mut command = Command::new(go);
        command.envs([("GO111MODULE", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "")]);
        run(command
            .args(["build", "-ldflags=-s -w", "-o"])
            .arg(path(name))
            .arg(source))?;
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    workspace().join("target/bench").join(format!("go-{name}"))
}

impl Service {
    /// Starts both.
    pub fn start() -> Result<Self> {
        let mut server = Talker::start(&mut Command::new(path("http")))?;
        let address = server.answer("READY")?;
        let mut load = Talker::start(Command::new(path("load")).args([&address, CONNECTIONS]))?;
        load.answer("READY")?;
        Ok(Self { server, load })
    }

    /// Process id of the service.
    pub fn pid(&self) -> u32 {
        self.server.child.id()
    }

    /// Asks for so long, at this rate a second; as fast as answers come without one.
    pub fn ask(&mut self, rate: Option<u32>, long: Duration) -> Result<Seen> {
        let before = cpu_time(self.pid()).context("the service has ended")?;
        self.load.say(&format!("start {}", rate.unwrap_or(0)))?;
        self.load.answer("STARTED")?;
        thread::sleep(long);
        self.load.say("stop")?;
        let answer = self.load.answer("DONE")?;
        let used = cpu_time(self.pid())
            .context("the service has ended")?
            .saturating_sub(before);
        let done: Value = serde_json::from_str(&answer).with_context(|| format!("the load said: {answer}"))?;
        let number = |field: &str| {
            let number = done[field].as_f64();
            number.with_context(|| format!("the load did not say {field}: {done}"))
        };
        ensure!(number("errors")? == 0.0, "requests were not answered: {done}");
        let requests = number("requests")?.max(1.0);
        Ok(Seen {
            throughput: number("throughput")?,
            p50_us: number("p50_us")?,
            p99_us: number("p99_us")?,
            cpu_us: used.as_secs_f64() * 1e6 / requests,
        })
    }
}

impl Talker {
    fn start(command: &mut Command) -> Result<Self> {
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a program was started without pipes");
        };
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("a program of the service has ended")
    }

    /// What follows the word on the line that starts with it.
    fn answer(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line).context("cannot read an answer")? > 0 {
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
            line.clear();
        }
        bail!("a program of the service ended without saying {word}");
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time that a process has used.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    parse_cpu_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The kernel counts in hundredths of a second for all that reads `/proc`.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // After the name, which may have anything in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_that_of_program_and_kernel() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194304 100 0 0 0 250 30 0 0 20 0 8 0 1000 1 1";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_millis(2800)));
        assert_eq!(parse_cpu_time("77 (a) S 1"), None);
    }
}
