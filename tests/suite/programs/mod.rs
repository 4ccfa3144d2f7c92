//! Programs that people run, as their distribution ships them: they run on, give right answers, and are reported on.

mod jit;
mod jq;
mod nginx;
mod postgres;
mod python;
mod redis;
mod sqlite;

use anyhow::{Result, ensure};
use leaktrace_tests::compare::accounting_faults;
use leaktrace_tests::profile::Profile;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [
        jit::trials(),
        jq::trials(),
        nginx::trials(),
        postgres::trials(),
        python::trials(),
        redis::trials(),
        sqlite::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What every report of a real program must be: something seen, nothing lost, sums that add up.
fn sound(profile: &Profile) -> Result<()> {
    let accounting = &profile.accounting;
    ensure!(accounting.allocations > 0, "it saw nothing");
    ensure!(
        accounting.complete && accounting.lost.is_empty(),
        "lost {:?}",
        accounting.lost
    );
    let faults = accounting_faults(profile);
    ensure!(faults.is_empty(), "{faults:?}");
    Ok(())
}
