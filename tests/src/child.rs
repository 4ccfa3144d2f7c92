//! A child process with bounded patience: every wait has a deadline, and it dies with the value that holds it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Longer than anything here should take, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A running program with all three of its streams in our hands.
pub struct Child {
    inner: std::process::Child,
    stdin: Option<ChildStdin>,
    /// What it writes on standard output.
    pub out: Lines,
    /// What it writes on standard error.
    pub err: Lines,
}

/// What is left of a program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Every line of its standard output.
    pub out: Vec<String>,
    /// Every line of its standard error.
    pub err: Vec<String>,
}

/// The lines of a stream, read as they come.
pub struct Lines {
    name: &'static str,
    incoming: Receiver<String>,
    seen: Vec<String>,
}

impl Child {
    /// Starts a program in a process group of its own, which does not outlive a suite that is killed.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        command.process_group(0);
        // SAFETY: between fork and exec only the prctl system call is made.
        unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into)) };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut inner = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let out = inner.stdout.take().context("no standard output")?;
        let err = inner.stderr.take().context("no standard error")?;
        Ok(Self {
            stdin: inner.stdin.take(),
            out: Lines::of(out, "standard output"),
            err: Lines::of(err, "standard error"),
            inner,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// Writes to its standard input.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its standard input is closed")?;
        stdin
            .write_all(text.as_bytes())
            .context("it does not read its standard input")
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes our end of its standard output.
    pub fn close_stdout(&mut self) {
        self.out = Lines::of(std::io::empty(), "standard output");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).with_context(|| format!("cannot send {signal}"))
    }

    /// Whether it has not ended yet.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.inner.try_wait()?.is_none())
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("it had not ended after {patience:?}; {}", self.tell());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for its end and takes what it wrote.
    pub fn finish(mut self, patience: Duration) -> Result<Ended> {
        let status = self.wait(patience)?;
        Ok(Ended {
            status,
            out: self.out.rest(),
            err: self.err.rest(),
        })
    }

    /// What it has written so far, for a message.
    pub fn tell(&mut self) -> String {
        format!(
            "standard output {:?}, standard error {:?}",
            self.out.so_far(),
            self.err.so_far()
        )
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The whole group: a program that leaktrace started ends with it. It may all be gone already.
        let _gone = killpg(Pid::from_raw(self.pid().cast_signed()), Signal::SIGKILL);
        let _reaped = self.inner.wait();
    }
}

impl Lines {
    fn of(stream: impl Read + Send + 'static, name: &'static str) -> Self {
        let (sender, incoming) = channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        Self {
            name,
            incoming,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that starts with `start`.
    pub fn expect(&mut self, start: &str) -> Result<String> {
        self.expect_within(start, PATIENCE)
    }

    /// Waits for a line that starts with `start`, no longer than `patience`.
    pub fn expect_within(&mut self, start: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let why = match self.incoming.recv_timeout(left) {
                Ok(line) if line.starts_with(start) => {
                    self.seen.push(line.clone());
                    return Ok(line);
                }
                Ok(line) => {
                    self.seen.push(line);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => format!("within {patience:?}"),
                Err(RecvTimeoutError::Disconnected) => "before it closed".to_owned(),
            };
            return Err(anyhow!(
                "no line {start:?} on {} {why}; it said {:?}",
                self.name,
                self.seen
            ));
        }
    }

    /// Every line so far, without waiting.
    pub fn so_far(&mut self) -> &[String] {
        self.seen.extend(self.incoming.try_iter());
        &self.seen
    }

    /// Every line up to the stream's end, which is near: the program has ended. A grandchild that still holds the
    /// stream is not waited for longer than a second.
    pub fn rest(&mut self) -> Vec<String> {
        while let Ok(line) = self.incoming.recv_timeout(Duration::from_secs(1)) {
            self.seen.push(line);
        }
        std::mem::take(&mut self.seen)
    }
}

/// Runs a program to its end with nothing on its standard input.
pub fn run(command: &mut Command) -> Result<Ended> {
    let mut child = Child::spawn(command)?;
    child.close_stdin();
    child.finish(PATIENCE).with_context(|| format!("{command:?}"))
}
