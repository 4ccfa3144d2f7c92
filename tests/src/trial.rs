//! Makes trials of functions, and leaves out, visibly, those whose needs are not met.

use std::collections::BTreeMap;

use anyhow::Result;
use libtest_mimic::{Failed, Trial};

use crate::needs::{Need, first_missing};

/// What every test that traces needs.
pub const TRACES: &[Need] = &[Need::Binary, Need::Tracing];

/// A trial of `test`; ignored, with the reason in front of its name, when one of `needs` is missing.
pub fn trial(name: impl Into<String>, needs: &[Need], test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let missing = first_missing(needs);
    let trial = Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))));
    match missing {
        None => trial,
        Some(why) => trial.with_kind(format!("skipped: {why}")).with_ignored_flag(true),
    }
}

/// A trial that traces.
pub fn traced(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    trial(name, TRACES, test)
}

/// A trial that traces a program which must be installed.
pub fn traced_program(name: &str, program: &'static str, test: fn() -> Result<()>) -> Trial {
    trial(name, &[Need::Binary, Need::Tracing, Need::Program(program)], test)
}

/// Why trials are left out, and how many for each reason.
pub fn skipped(trials: &[Trial]) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for trial in trials.iter().filter(|trial| trial.has_ignored_flag()) {
        *reasons.entry(trial.kind()).or_default() += 1;
    }
    reasons
}
