//! The programs that are traced: compiled here, and spoken to by lines, as `xtask/bench/protocol.h` says.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::command::{run, workspace};

/// Every program, by the name of its source file.
const PROGRAMS: &[&str] = &["pair", "mixed", "hold", "threads", "shallow", "deep"];

/// How a program is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Frame pointers are kept.
    Pointers,
    /// They are not, as is usual.
    Bare,
}

impl Frames {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pointers, Self::Bare];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Pointers => "with frame pointers",
            Self::Bare => "without frame pointers",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::Pointers => "-fno-omit-frame-pointer",
            Self::Bare => "-fomit-frame-pointer",
        }
    }
}

/// One run of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Operations done.
    pub operations: u64,
    /// CPU time of all threads, nanoseconds.
    pub cpu_ns: u64,
    /// Time that passed, nanoseconds.
    pub wall_ns: u64,
}

impl Run {
    /// CPU time of an operation, nanoseconds.
    pub fn cpu_per_operation(self) -> f64 {
        self.cpu_ns as f64 / self.operations.max(1) as f64
    }
}

/// A running program, which ends with this value.
pub struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Compiles all programs both ways.
pub fn compile_all() -> Result<()> {
    fs::create_dir_all(directory()).with_context(|| format!("cannot make {}", directory().display()))?;
    for name in PROGRAMS {
        for frames in Frames::ALL {
            let source = workspace().join("xtask/bench").join(name).with_extension("c");
            let flags = ["-O2", "-g", "-Wall", "-Wextra", "-pthread", frames.flag(), "-o"];
            run(Command::new("cc").args(flags).arg(path(name, frames)).arg(source))?;
        }
    }
    Ok(())
}

/// Where the compiled program is.
pub fn path(name: &str, frames: Frames) -> PathBuf {
    directory().join(match frames {
        Frames::Pointers => name.to_owned(),
        Frames::Bare => format!("{name}-bare"),
    })
}

fn directory() -> PathBuf {
    workspace().join("target/bench")
}

impl Program {
    /// Starts a compiled program and waits until it is ready.
    pub fn start(path: &Path) -> Result<Self> {
        Self::start_by(&mut Command::new(path))
    }

    /// Starts a program by another (`heaptrack PROGRAM`) and waits until it is ready.
    pub fn start_by(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_owned();
        let missing = || format!("cannot run {}", Path::new(&name).display());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(missing)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a program was started without pipes");
        };
        let mut program = Self {
            child,
            input,
            output: BufReader::new(output),
        };
        program.answer("ready")?;
        Ok(program)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do its work for `number`, and waits for that.
    pub fn run(&mut self, number: u64) -> Result<Run> {
        writeln!(self.input, "run {number}").context("a benchmark program has ended")?;
        let answer = self.answer("done ")?;
        parse_run(&answer).with_context(|| format!("a benchmark program said: {answer}"))
    }

    /// What follows on the next line of the protocol; other lines are not ours.
    fn answer(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        while self
            .output
            .read_line(&mut line)
            .context("cannot read a program's answer")?
            > 0
        {
            if let Some(rest) = line.strip_prefix("bench ").and_then(|rest| rest.strip_prefix(word)) {
                return Ok(rest.trim().to_owned());
            }
            line.clear();
        }
        bail!("a benchmark program ended without saying that it is {word}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse_run(answer: &str) -> Option<Run> {
    let mut numbers = answer.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Run {
        operations: next()?,
        cpu_ns: next()?,
        wall_ns: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let run = Run {
            operations: 20,
            cpu_ns: 600,
            wall_ns: 900,
        };
        assert_eq!(parse_run("20 600 900"), Some(run));
        assert!((run.cpu_per_operation() - 30.0).abs() < 1e-9);
    }

    #[test]
    fn half_an_answer_is_none() {
        assert_eq!(parse_run("20 600"), None);
        assert_eq!(parse_run("20 600 many"), None);
    }
}
