//! Whether estimates are as good as they say they are: what a Go program counts of itself, and what leaktrace says of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::child::Child;
use crate::profile::{Profile, Site};
use crate::truth::Amounts;

/// What the fixture `heap` says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct HeapTruth {
    /// `runtime.NumGoroutine`.
    pub goroutines: u64,
    /// Requests served.
    pub requests: u64,
    /// Collections since it began.
    pub collections: u64,
    /// Nanoseconds for which these stopped it.
    pub pause_ns: u64,
    /// Bytes allocated since it began.
    pub total_bytes: u64,
    /// Its sites, by function, since the mark.
    pub sites: BTreeMap<String, SiteTruth>,
}

/// What it says of one of its sites.
#[derive(Clone, Debug, Deserialize)]
pub struct SiteTruth {
    /// `leak`, `bounded` or `churn`.
    pub kind: String,
    /// Bytes and objects.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// A number that is estimated, and what it really was.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Of what.
    pub what: String,
    /// The least and the most that it can have been at the moment of the report.
    pub truth: (f64, f64),
    /// What leaktrace says.
    pub estimate: f64,
    /// How far, at most, it says that the truth is from it in nine cases of ten.
    pub error: f64,
    /// Whether it is of a hundredth of all bytes or more. Of less there can be too few samples for their spread to tell how
    /// sure they are.
    pub matters: bool,
}

/// The sum of the sites of one function.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Bytes and objects.
    pub amounts: Amounts,
    /// Bytes too young to be judged.
    pub young_bytes: u64,
    /// Objects of those.
    pub young_count: u64,
    /// The error of the live objects, and of the allocated ones: independent errors add up by their squares.
    pub live_error: f64,
    /// As above.
    pub allocated_error: f64,
}

impl HeapTruth {
    /// Asks the fixture for it.
    pub fn ask(child: &mut Child) -> Result<Self> {
        child.write("truth\n")?;
        let line = child.out.expect("TRUTH ")?;
        serde_json::from_str(line.trim_start_matches("TRUTH ")).context("the fixture's truth cannot be read")
    }

    /// The sites of a kind, by live bytes, largest first.
    pub fn of_kind(&self, kind: &str) -> Vec<(&str, Amounts)> {
        let sites = self.sites.iter().filter(|(_, site)| site.kind == kind);
        let mut sites: Vec<_> = sites.map(|(name, site)| (name.as_str(), site.amounts)).collect();
        sites.sort_by_key(|(_, amounts)| std::cmp::Reverse(amounts.live_bytes));
        sites
    }
}

/// The function of the program itself that a site's stack comes to first.
pub fn own_function(site: &Site) -> &str {
    let names = site.stack.frames.iter().filter_map(|frame| frame.function.as_deref());
    names.into_iter().find(|name| name.starts_with("main.")).unwrap_or("")
}

/// Bytes of an object, where all are of one size; 0 of nothing.
pub fn object_size(amounts: Amounts) -> u64 {
    let size = amounts.allocated_bytes.checked_div(amounts.allocated_count);
    size.unwrap_or(0)
}

/// Whether these can be objects of this size: objects and bytes are rounded, each for itself.
pub fn are_of_size(amounts: Amounts, size: u64) -> bool {
    let bytes = amounts.allocated_count.saturating_mul(size);
    amounts.allocated_bytes.abs_diff(bytes) <= size / 2 + 1
}

/// All sites of a function of the program that allocate objects of this size. Others there are the runtime's own: who has
/// to wait while he allocates, for the collector, makes it allocate too.
pub fn sum(profile: &Profile, function: &str, size: u64) -> Sum {
    let mut sum = Sum::default();
    let (mut live, mut allocated) = (0.0, 0.0);
    let is_of = |site: &&Site| own_function(site) == function && are_of_size(site.amounts, size);
    for site in profile.sites.iter().filter(is_of) {
        let number = |field| site.go[field].as_u64().unwrap_or(0);
        sum.amounts += site.amounts;
        sum.young_bytes += number("young_bytes");
        sum.young_count += number("young_count");
        let error = site.estimate_error.unwrap_or(0.0);
        live += (error * site.amounts.live_count as f64).powi(2);
        allocated += (error * site.amounts.allocated_count as f64).powi(2);
    }
    sum.live_error = live.sqrt();
    sum.allocated_error = allocated.sqrt();
    sum
}

impl Claim {
    /// How far the estimate is from what is true.
    pub fn off(&self) -> f64 {
        (self.truth.0 - self.estimate)
            .max(self.estimate - self.truth.1)
            .max(0.0)
    }

    /// Whether the truth is no further away than so many times what was said.
    pub fn holds(&self, times: f64) -> bool {
        // Numbers are whole.
        self.off() <= times * self.error + 1.0
    }

    /// `main.newBuffer live: 1492 ± 103, true are 1480 to 1490`.
    pub fn tell(&self) -> String {
        let Self {
            what,
            truth,
            estimate,
            error,
            ..
        } = self;
        format!(
            "{what}: {estimate:.0} ± {error:.0}, true are {:.0} to {:.0}",
            truth.0, truth.1
        )
    }
}

/// All that a profile claims of the program's sites, with what the program said just before the report and just after.
pub fn claims(profile: &Profile, before: &HeapTruth, after: &HeapTruth) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut all = Amounts::default();
    after.sites.values().for_each(|site| all += site.amounts);
    for (name, early) in &before.sites {
        let late = after.sites.get(name).map_or(early.amounts, |site| site.amounts);
        let (early, kind) = (early.amounts, early.kind.as_str());
        let found = sum(profile, name, object_size(late));
        claims.push(Claim {
            what: format!("{name} allocated"),
            truth: (early.allocated_count as f64, late.allocated_count as f64),
            estimate: found.amounts.allocated_count as f64,
            error: found.allocated_error,
            matters: late.allocated_bytes * 100 >= all.allocated_bytes,
        });
        if kind != "churn" {
            // What is taken out and put in again is not known to be dead, or to be old, until it is collected.
            let moving = (late.allocated_count - late.live_count) as f64 * 3.0 / after.collections.max(1) as f64;
            claims.push(Claim {
                what: format!("{name} live"),
                truth: (early.live_count as f64 - moving, late.live_count as f64 + moving),
                estimate: found.amounts.live_count as f64,
                error: found.live_error,
                matters: late.live_bytes * 100 >= all.live_bytes,
            });
        }
    }
    claims
}

/// The least number of claims that hold, of so many of which each holds with this chance, but once in a thousand cases.
pub fn least_that_hold(claims: usize, chance: f64) -> usize {
    let (mut sum, mut term) = (0.0, (1.0 - chance).powi(i32::try_from(claims).unwrap_or(i32::MAX)));
    for held in 0..claims {
        sum += term;
        if sum > 1e-3 {
            return held;
        }
        term *= (claims - held) as f64 / (held + 1) as f64 * chance / (1.0 - chance);
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(estimate: f64) -> Claim {
        Claim {
            what: "main.newBuffer live".to_owned(),
            truth: (100.0, 110.0),
            estimate,
            error: 10.0,
            matters: true,
        }
    }

    #[test]
    fn a_claim_holds_within_its_error() {
        assert!(claim(105.0).holds(0.0));
        assert!(claim(91.0).holds(1.0) && claim(120.0).holds(1.0));
        assert!(!claim(88.0).holds(1.0) && claim(88.0).holds(2.0));
        assert_eq!(claim(88.0).tell(), "main.newBuffer live: 88 ± 10, true are 100 to 110");
    }

    #[test]
    fn some_claims_may_fail() {
        // Of 30 that hold in nine cases of ten, 27 do in the mean, with a deviation of 1.6.
        assert_eq!(least_that_hold(30, 0.9), 21);
        assert_eq!(least_that_hold(1, 0.9), 0);
        assert_eq!(least_that_hold(100, 0.9), 80);
    }
}
