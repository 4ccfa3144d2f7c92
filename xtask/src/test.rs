//! `cargo xtask test`: the tests that need nothing run as the user, then the suite, which traces real programs. Both
//! are built as the user; only the suite's program runs as root.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    build,
    command::{self, cargo, workspace},
    privilege::as_root,
    setup, tally,
};

/// Tests that need neither root nor a built leaktrace.
const PURE: &[&str] = &[
    "test",
    "--workspace",
    "--exclude",
    "leaktrace-ebpf",
    "--exclude",
    "leaktrace-tests",
    "--lib",
    "--bins",
];
/// The suite.
const SUITE: &[&str] = &["test", "--package", "leaktrace-tests", "--test", "suite", "--no-run"];

/// Options of `test`.
#[derive(Args)]
pub struct TestArgs {
    /// Also the long tests, and every ELF file of the machine.
    #[arg(long)]
    exhaustive: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// The subcommand.
pub fn run(args: &TestArgs) -> Result<()> {
    setup::for_tests(args.exhaustive)?;
    command::run(pure(args.exhaustive).arg("--no-run"))?;
    let suite = build::executable(cargo().args(SUITE), "suite")?;
    let leaktrace = build::leaktrace()?;

    let mut tally = tally::run(pure(args.exhaustive).args(["--no-fail-fast", "--"]).args(&args.filter))?;
    tally += tally::run(suite_command(&suite, &leaktrace, args.exhaustive).args(&args.filter))?;
    println!("{tally}");
    ensure!(tally.failed == 0, "tests failed");
    ensure!(
        tally.total() > 0,
        "no test has {:?} in its name",
        args.filter.as_deref().unwrap_or_default()
    );
    Ok(())
}

/// The tests that need nothing. The long ones read every ELF file of the machine, which takes optimised code.
fn pure(exhaustive: bool) -> Command {
    let mut command = cargo();
    command.args(PURE);
    if exhaustive {
        command.arg("--release").env("LEAKTRACE_EXHAUSTIVE", "1");
    }
    command
}

/// The suite as root; where root cannot be had, as the user, for it says itself what it skips then.
fn suite_command(suite: &Path, leaktrace: &Path, exhaustive: bool) -> Command {
    let mut variables = vec![("LEAKTRACE_BIN", leaktrace.as_os_str())];
    if exhaustive {
        variables.push(("LEAKTRACE_EXHAUSTIVE", OsStr::new("1")));
    }
    let mut command = as_root(suite, &variables, "the suite, which traces programs").unwrap_or_else(|| {
        eprintln!("xtask: neither root nor sudo: the suite skips what traces");
        let mut command = Command::new(suite);
        command.envs(variables.iter().copied());
        command
    });
    // Where cargo would run it.
    command.current_dir(workspace().join("tests")).stdin(Stdio::null());
    command
}
