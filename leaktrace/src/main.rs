//! The command `leaktrace`: parse, run, exit code.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use leaktrace::{
    cli::{Cli, Command},
    generate, inspect, report, session,
    settings::{self, GoroutinesSettings, ServeSettings, TraceSettings, UsageError},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Render(args)) => report::render(&args),
        Some(Command::Inspect(args)) => settings::process_id(args.pid)
            .map_err(|e| UsageError(e).into())
            .and_then(|pid| inspect::run(pid, args.format)),
        Some(Command::Goroutines(args)) => GoroutinesSettings::new(&args)
            .map_err(|e| UsageError(e).into())
            .and_then(|settings| session::run_goroutines(&settings)),
        Some(Command::Serve(args)) => ServeSettings::new(args)
            .map_err(|e| UsageError(e).into())
            .and_then(|settings| session::run_serve(&settings)),
        Some(Command::Generate { what }) => generate::generate(what),
        None => TraceSettings::new(cli.trace)
            .map_err(|e| UsageError(e).into())
            .and_then(|settings| session::run(&settings)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One line on standard error. A reader that has gone away is no failure.
fn fail(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    // Where standard error cannot be written, the exit code says enough.
    let _ = writeln!(io::stderr(), "leaktrace: {}", one_line(error));
    ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
}

/// An error with its causes, on one line.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}")
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}
