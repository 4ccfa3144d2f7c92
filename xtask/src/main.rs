//! `cargo xtask`: set up, build, test, measure, lint and show leaktrace. Each subcommand is a module of its name; this file
//! only names them. Builds without anything that `setup` installs.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build;
mod command;
mod demo;
mod lint;
mod privilege;
mod setup;
mod tally;
mod test;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set up, build, test, measure, lint and show leaktrace"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to build leaktrace, saying what and why.
    Setup {
        /// Also what the tests and lints need.
        #[arg(long)]
        tests: bool,
    },
    /// Set up and build.
    Build {
        /// Optimised.
        #[arg(long)]
        release: bool,
    },
    /// Set up, build, and trace a small leaking program for ten seconds.
    Demo,
    /// Set up, build, and run every test; those that trace run as root.
    Test(test::TestArgs),
    /// Set up, build, and measure what a trace costs; as root.
    Bench(bench::BenchArgs),
    /// Check the formatting and run clippy, over userspace and the kernel side.
    Lint,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup { tests } => setup::run(tests),
        Task::Build { release } => build::run(release),
        Task::Demo => demo::run(),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Lint => lint::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
