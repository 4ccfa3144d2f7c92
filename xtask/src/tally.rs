//! Counting tests: runs a test program, shows what it prints, and adds up the result lines that libtest, and what
//! imitates it, end with.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Write},
    ops::AddAssign,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::command::shown;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that did not run, and said why.
    pub skipped: u64,
}

impl Tally {
    /// How many tests there are.
    pub fn total(self) -> u64 {
        self.passed + self.failed + self.skipped
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`.
    fn from_line(line: &str) -> Option<Self> {
        let (_, counts) = line.split_once("test result: ")?.1.split_once(". ")?;
        let count = |what| {
            counts
                .split("; ")
                .find_map(|part| part.split_once(' ').filter(|(_, word)| *word == what)?.0.parse().ok())
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Runs tests and counts them. A program that ends badly or without a result, and names no failed test, is itself
/// counted as one.
pub fn run(tests: &mut Command) -> Result<Tally> {
    count(tests, &mut io::stdout())
}

fn count(tests: &mut Command, out: &mut dyn Write) -> Result<Tally> {
    let mut child = tests
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", shown(tests)))?;
    let mut tally = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read what the tests print")?;
            if let Some(result) = show(&line, out) {
                *tally.get_or_insert_default() += result;
            }
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {}", shown(tests)))?;
    let mut tally: Tally = tally.unwrap_or_else(|| no_result(tests));
    if !status.success() && tally.failed == 0 {
        eprintln!("xtask: {} ended with {status}", shown(tests));
        tally.failed = 1;
    }
    Ok(tally)
}

fn no_result(tests: &Command) -> Tally {
    eprintln!("xtask: {} ended without saying how its tests did", shown(tests));
    Tally {
        failed: 1,
        ..Tally::default()
    }
}

/// Passes a line on and counts it. Whoever reads may have left (`| head`): the tests still run to their end.
fn show(line: &[u8], out: &mut dyn Write) -> Option<Tally> {
    let line = String::from_utf8_lossy(line);
    let _ = writeln!(out, "{line}");
    Tally::from_line(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s";
        assert_eq!(
            Tally::from_line(line),
            Some(Tally {
                passed: 3,
                failed: 2,
                skipped: 1
            })
        );
        let coloured = "test result: \u{1b}[32mok\u{1b}[0m. 3 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(
            Tally::from_line(coloured),
            Some(Tally {
                passed: 3,
                failed: 0,
                skipped: 0
            })
        );
    }

    #[test]
    fn other_lines_are_not() {
        assert_eq!(Tally::from_line("test tally::tests::result ... ok"), None);
        assert_eq!(Tally::from_line("test result: ok. many passed"), None);
    }

    #[test]
    fn a_program_that_dies_counts_as_failed() -> Result<()> {
        let result = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured";
        let mut out = Vec::new();
        let died = count(
            Command::new("sh").args(["-c", &format!("echo '{result}'; exit 7")]),
            &mut out,
        )?;
        assert_eq!(
            died,
            Tally {
                passed: 1,
                failed: 1,
                skipped: 0
            }
        );
        assert_eq!(out, format!("{result}\n").as_bytes());
        Ok(())
    }

    #[test]
    fn a_program_that_says_nothing_counts_as_failed() -> Result<()> {
        let silent = count(&mut Command::new("true"), &mut Vec::new())?;
        assert_eq!(
            silent,
            Tally {
                passed: 0,
                failed: 1,
                skipped: 0
            }
        );
        Ok(())
    }

    #[test]
    fn the_closing_line_reads_as_promised() {
        assert_eq!(
            Tally {
                passed: 5,
                failed: 0,
                skipped: 2
            }
            .to_string(),
            "5 passed, 0 failed, 2 skipped"
        );
    }
}
