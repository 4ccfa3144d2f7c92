//! Where reports go, and what is said on standard error.

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::Result;

use crate::{
    cli::FormatArg,
    profile::Profile,
    report::{self, output, terminal},
    settings::TraceSettings,
};

/// Refuses early what could not be written in the end.
pub fn check(settings: &TraceSettings) -> Result<()> {
    settings
        .reports
        .output
        .iter()
        .try_for_each(|path| report::check_writable(path))
}

/// The full report: the files asked for, and standard output.
pub fn write_all(settings: &TraceSettings, profile: &Profile) -> Result<()> {
    let reports = &settings.reports;
    if !reports.output.is_empty() {
        report::write_reports(profile, reports)?;
        for path in reports.output.iter().filter(|path| *path != Path::new("-")) {
            say(&format!("wrote {}", path.display()));
        }
    }
    if !takes_stdout(settings) {
        output::write_stdout(profile, reports.format.into(), &output::plain_view(reports)?)?;
    }
    Ok(())
}

/// The full report of a program that another has replaced, where standard output is for people: the files are for the
/// last one. Says where it is.
pub fn write_interim(settings: &TraceSettings, profile: &Profile) -> Result<&'static str> {
    if settings.reports.format != FormatArg::Text || takes_stdout(settings) {
        return Ok("is not kept in this format");
    }
    let view = output::plain_view(&settings.reports)?;
    output::write_stdout(profile, settings.reports.format.into(), &view)?;
    Ok("is the one above")
}

/// A short report, where standard output is for people.
pub fn write_interval(settings: &TraceSettings, previous: Option<&Profile>, now: &Profile) -> Result<()> {
    if settings.reports.format != FormatArg::Text || takes_stdout(settings) {
        return Ok(());
    }
    let view = terminal::fitted(output::plain_view(&settings.reports)?);
    let mut out = io::stdout().lock();
    report::write_interval(previous, now, &view, &mut out)?;
    Ok(out.flush()?)
}

/// A line on standard error.
pub fn say(line: &str) {
    // Nobody may be reading; that is no reason to fail.
    let _ = writeln!(io::stderr(), "leaktrace: {line}");
}

/// A line on standard output, for other programs.
pub fn say_on_stdout(line: &str) {
    let mut out = io::stdout().lock();
    // Nobody may be reading that either.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Whether `-o -` has taken standard output.
fn takes_stdout(settings: &TraceSettings) -> bool {
    settings.reports.output.iter().any(|path| path == Path::new("-"))
}
