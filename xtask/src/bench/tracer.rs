//! leaktrace, or a peer, tracing a program: started, waited for, and ended like a person would.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::command::shown;

/// The longest wait for anything that a tracer says.
const PATIENCE: Duration = Duration::from_mins(2);

/// A tracer at work. Ends with this value.
pub struct Tracer {
    name: String,
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    output: Option<JoinHandle<String>>,
    started: Instant,
}

/// What a leaktrace said when it was ended.
pub struct Ended {
    /// Its profile.
    pub profile: Value,
    /// Time from the signal to its end.
    pub took: Duration,
    /// All it said on standard error.
    pub said: Vec<String>,
}

/// leaktrace on process `pid`, from when it says that it traces.
pub fn leaktrace(program: &Path, pid: u32, options: &[&str]) -> Result<Tracer> {
    let mut tracer = start_leaktrace(program, pid, options)?;
    tracer.wait_for("attached ")?;
    Ok(tracer)
}

/// leaktrace on process `pid`, just started.
pub fn start_leaktrace(program: &Path, pid: u32, options: &[&str]) -> Result<Tracer> {
    let mut command = Command::new(program);
    command
        .args(["--verbose", "--format", "json", "--pid"])
        .arg(pid.to_string())
        .args(options);
    Tracer::start(&mut command)
}

impl Tracer {
    /// Starts a tracer that says on standard error how it is doing, and writes its findings on standard output.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::spawn(command, |child, sender| {
            listen(child.stderr.take(), sender);
            child
                .stdout
                .take()
                .map(|output| thread::spawn(move || read_all(output)))
        })
    }

    /// Starts a tracer that says on either how it is doing.
    pub fn start_talkative(command: &mut Command) -> Result<Self> {
        // Python would say it at its end.
        Self::spawn(command.env("PYTHONUNBUFFERED", "1"), |child, sender| {
            listen(child.stderr.take(), sender.clone());
            listen(child.stdout.take(), sender);
            None
        })
    }

    fn spawn(
        command: &mut Command,
        attend: impl FnOnce(&mut Child, Sender<String>) -> Option<JoinHandle<String>>,
    ) -> Result<Self> {
        let name = shown(command);
        let started = Instant::now();
        let pipes = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = pipes.spawn().with_context(|| format!("cannot run {name}"))?;
        let (sender, lines) = mpsc::channel();
        let output = attend(&mut child, sender);
        Ok(Self {
            name,
            child,
            lines,
            said: Vec::new(),
            output,
            started,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard error with this in it; gives the line, and the time since the start.
    pub fn wait_for(&mut self, words: &str) -> Result<(String, Duration)> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(words) {
                        return Ok((line, self.started.elapsed()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("{} did not say `{words}` in time", self.name),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended: {}", self.name, self.said.join(" | "))
                }
            }
        }
    }

    /// Interrupts it and waits for its end; gives what it wrote on standard output.
    pub fn interrupt(&mut self) -> Result<(ExitStatus, String)> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)
            .with_context(|| format!("{} cannot be ended", self.name))?;
        let status = self.child.wait().context("cannot wait for a tracer")?;
        let output = self.output.take().map(JoinHandle::join);
        self.said.extend(self.lines.iter());
        Ok((status, output.and_then(Result::ok).unwrap_or_default()))
    }

    /// Ends a leaktrace and reads its profile.
    pub fn end(mut self) -> Result<Ended> {
        let asked = Instant::now();
        let (status, output) = self.interrupt()?;
        let took = asked.elapsed();
        let said = std::mem::take(&mut self.said);
        ensure!(
            status.success(),
            "{} failed ({status}): {}",
            self.name,
            said.join(" | ")
        );
        let profile = serde_json::from_str(&output).with_context(|| format!("{} wrote no profile", self.name))?;
        Ok(Ended { profile, took, said })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// A number of the profile's accounting.
    pub fn accounted(&self, field: &str) -> Result<u64> {
        let number = self.profile["accounting"][field].as_u64();
        number.with_context(|| format!("the profile has no number of {field}"))
    }

    /// Whether it saw everything.
    pub fn is_complete(&self) -> bool {
        self.profile["accounting"]["complete"] == true
    }

    /// The time in the line that has these words before it.
    pub fn time_after(&self, words: &str) -> Result<Duration> {
        let found = self.said.iter().find_map(|line| time_after(line, words));
        found.with_context(|| format!("leaktrace did not say how long `{words}`"))
    }
}

/// The time that follows these words in a line.
pub fn time_after(line: &str, words: &str) -> Option<Duration> {
    let (_, rest) = line.split_once(words)?;
    let text = rest.trim_start().split([' ', ';', ',']).next()?;
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * seconds))
}

/// Sends every line on, until the end.
fn listen(to: Option<impl Read + Send + 'static>, sender: Sender<String>) {
    let Some(to) = to else { return };
    thread::spawn(move || {
        for line in BufReader::new(to).lines().map_while(Result::ok) {
            // Nobody may be listening any more.
            let _ = sender.send(line);
        }
    });
}

fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What could be read is what there is.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_printed() {
        for took in [3, 4_500, 15_500_000, 63_712_345, 3_500_000_000] {
            let took = Duration::from_nanos(took);
            let line = format!("leaktrace: attached 14 probes by session in {took:?}; more");
            assert_eq!(time_after(&line, " by session in"), Some(took));
        }
    }

    #[test]
    fn other_words_are_no_time() {
        assert_eq!(time_after("attached in a moment", "in"), None);
        assert_eq!(time_after("attached", "detached in"), None);
        assert_eq!(time_after("detached in 5 parsecs", "in"), None);
    }
}
