//! Runs leaktrace as a user would: attached to a process or launching one, ended by Ctrl-C or by the target's end.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::child::{Child, Ended, PATIENCE, run};
use crate::host;
use crate::profile::Profile;
use crate::truth::{START, Truth};

/// How the line starts that says that every probe is in place.
pub const ARMED: &str = "leaktrace: tracing ";

/// A leaktrace that runs.
pub struct Tracer {
    /// The process.
    pub child: Child,
    /// Where it writes its profile.
    pub json: PathBuf,
    _dir: TempDir,
}

/// What a trace left behind.
#[derive(Debug)]
pub struct Report {
    /// The profile.
    pub profile: Profile,
    /// How leaktrace ended, and all it said.
    pub ended: Ended,
    /// Time from being told to end, or from the start of waiting, to the end.
    pub took: Duration,
}

impl Report {
    /// All that it wrote to standard output, with one space where it had any, for lines are broken to fit.
    pub fn words(&self) -> String {
        let lines = self.ended.out.iter();
        lines
            .flat_map(|line| line.split_whitespace())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A leaktrace command with nothing on it yet.
pub fn command() -> Command {
    let mut command = Command::new(host::leaktrace());
    command
        .env("NO_COLOR", "1")
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID")
        .env_remove("SUDO_USER");
    command
}

/// Runs leaktrace to its end.
pub fn leaktrace(args: &[&str]) -> Result<Ended> {
    run(command().args(args))
}

/// Attaches to a process and waits until every probe is in place.
pub fn attach(pid: u32, args: &[&str]) -> Result<Tracer> {
    let mut tracer = start(args, &[OsStr::new("--pid"), OsStr::new(&pid.to_string())])?;
    tracer.armed()?;
    Ok(tracer)
}

/// Launches a program. Its standard streams are leaktrace's own.
pub fn launch<T: AsRef<OsStr>>(args: &[&str], program: &[T]) -> Result<Tracer> {
    let words: Vec<&OsStr> = std::iter::once(OsStr::new("--"))
        .chain(program.iter().map(AsRef::as_ref))
        .collect();
    start(args, &words)
}

fn start(args: &[&str], rest: &[&OsStr]) -> Result<Tracer> {
    let dir = tempfile::tempdir()?;
    let json = dir.path().join("profile.json");
    let mut command = command();
    command
        .args(args)
        .arg("--output")
        .arg(&json)
        .args(rest)
        .env("TRUTH", "whole");
    Ok(Tracer {
        child: Child::spawn(&mut command)?,
        json,
        _dir: dir,
    })
}

impl Tracer {
    /// Waits until every probe is in place.
    pub fn armed(&mut self) -> Result<()> {
        self.child.err.expect(ARMED).map(drop)
    }

    /// Lets a launched fixture through both its gates, and takes the truth it tells on the way.
    pub fn play(&mut self) -> Result<Truth> {
        self.child.write("\n\n")?;
        let line = self.child.out.expect(START);
        Truth::parse(&line.with_context(|| self.child.tell())?)
    }

    /// Ends it by Ctrl-C, and reads what it found.
    pub fn stop(self) -> Result<Report> {
        self.child.signal(Signal::SIGINT)?;
        self.finish()
    }

    /// Waits until it ends by itself, and reads what it found.
    pub fn finish(mut self) -> Result<Report> {
        let since = Instant::now();
        let status = self.child.wait(PATIENCE)?;
        let took = since.elapsed();
        let ended = Ended {
            status,
            out: self.child.out.rest(),
            err: self.child.err.rest(),
        };
        ensure!(
            status.success(),
            "leaktrace ended with {status}: {}",
            ended.err.join("\n")
        );
        let profile = Profile::read(&self.json).with_context(|| format!("{:?}", ended.err))?;
        Ok(Report { profile, ended, took })
    }
}
