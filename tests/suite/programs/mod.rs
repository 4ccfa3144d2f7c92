//! Programs that people run, as their distribution ships them: they run on, give right answers, and are reported on.

mod jit;
mod jq;
mod nginx;
mod postgres;
mod python;
mod redis;
mod sqlite;
mod whole;

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
        whole::trials(),
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

/// Of at least so many allocations, 99 in 100 have a whole stack.
fn mostly_whole(profile: &Profile, least: u64) -> Result<()> {
    ensure!(
        profile.accounting.allocations >= least,
        "too little to judge by: {:?}",
        profile.accounting
    );
    let share = profile.whole_share();
    let mut cut: Vec<_> = profile.sites.iter().filter(|site| !site.stack.whole).collect();
    cut.sort_by_key(|site| std::cmp::Reverse(site.amounts.allocated_count));
    ensure!(
        share >= 0.99,
        "{share:.4} of the allocations have a whole stack; most that have not: {:#?}",
        cut.first()
    );
    Ok(())
}
