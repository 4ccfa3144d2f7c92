//! From samples of Go's heap to what a profile says of them.

use std::collections::HashMap;

use crate::{
    go::{
        Moment,
        heap::{Estimate, SiteEstimate},
    },
    profile::{GoHeap, GoSite, Heap, Site, Verdict},
    units,
};

use super::GoTrace;

/// Fewer live samples than this say nothing about growth.
const FEWEST_SAMPLES: u64 = 4;

/// Says of each site of Go's heap what its numbers go by.
pub fn describe_sites(estimates: &HashMap<u32, SiteEstimate>, sites: &mut [(u32, Site)]) {
    for (index, site) in sites {
        if let Some(estimate) = estimates.get(index) {
            describe(estimate, site);
        }
    }
}

fn describe(estimate: &SiteEstimate, site: &mut Site) {
    site.heap = Heap::Go;
    site.estimate_error = estimate.live.error().or(estimate.allocated.error());
    site.go = Some(GoSite {
        samples: estimate.allocated.samples,
        live_samples: estimate.live.samples,
        young_bytes: estimate.young.bytes(),
        young_count: estimate.young.count(),
    });
    if let Some((verdict, why)) = caution(estimate, site.verdict) {
        (site.verdict, site.why) = (verdict, why);
    }
}

/// What is said instead of a verdict that was made as if every object were seen.
fn caution(estimate: &SiteEstimate, verdict: Verdict) -> Option<(Verdict, String)> {
    let (all, live, young) = (
        estimate.allocated.samples,
        estimate.live.samples,
        estimate.young.samples,
    );
    if all <= young || (live == 0 && 2 * young > all) {
        let why =
            "most of what it has allocated is too young to be judged: fewer than two collections have begun since";
        return Some((Verdict::Unknown, why.to_owned()));
    }
    if live == 0 && verdict == Verdict::Churn {
        return Some((
            Verdict::Churn,
            format!(
                "of {} objects sampled none is live, and {} are too young to be judged",
                units::number(all),
                units::number(young)
            ),
        ));
    }
    let says_something = matches!(verdict, Verdict::Growing | Verdict::Leak | Verdict::Stable);
    (says_something && live < FEWEST_SAMPLES).then(|| {
        (
            Verdict::Unknown,
            format!("too little to say: only {live} of the objects sampled are live"),
        )
    })
}

/// Mean bytes between two samples; 1 where nothing is sampled, and every block is seen.
pub fn sample_bytes(estimates: &HashMap<u32, SiteEstimate>) -> u64 {
    let all = total(estimates, |site| site.allocated);
    all.bytes().checked_div(all.samples).map_or(1, |mean| mean.max(1))
}

fn total(estimates: &HashMap<u32, SiteEstimate>, part: impl Fn(&SiteEstimate) -> Estimate) -> Estimate {
    estimates.values().map(part).fold(Estimate::default(), Estimate::plus)
}

impl GoTrace {
    /// By how much one of the runtime's counts has grown since the trace began.
    fn since(&self, count: impl Fn(&Moment) -> u64) -> Option<u64> {
        let (first, last) = (self.first.as_ref()?, self.last.as_ref()?);
        Some(count(last).saturating_sub(count(first)))
    }

    /// The Go part of a profile.
    pub fn section(&self, estimates: &HashMap<u32, SiteEstimate>) -> GoHeap {
        let allocated = total(estimates, |site| site.allocated);
        let live = total(estimates, |site| site.live);
        let young = total(estimates, |site| site.young);
        GoHeap {
            program: self.program(),
            samples: allocated.samples,
            live_samples: live.samples,
            allocated_bytes: allocated.bytes(),
            allocated_count: allocated.count(),
            live_bytes: live.bytes(),
            live_count: live.count(),
            young_bytes: young.bytes(),
            young_count: young.count(),
            garbage_bytes: estimates.values().map(|site| site.garbage_bytes).sum(),
            estimate_error: live.error().or(allocated.error()),
            collections: self.since(|moment| moment.collections).unwrap_or(0),
            counted_bytes: self.since(|moment| moment.allocated_bytes),
            moment: self.last.as_ref().map(|last| last.told(self.goroutines)),
            own_profile: self.own_profile.clone(),
            memory: self.memory.clone(),
        }
    }
}
