//! What there is to say of numbers that are estimates of Go's heap. Pure.

use crate::profile::{GoHeap, Profile};
use crate::units;

/// What makes the numbers less than exact, one line each.
pub(super) fn cautions(go: &GoHeap) -> Vec<String> {
    if go.samples == 0 {
        return vec!["Nothing of Go's heap was sampled: the program allocated next to nothing".to_owned()];
    }
    let interval = units::size(go.allocated_bytes / go.samples);
    let mut cautions = vec![format!(
        "Go's heap is estimated from {} sampled, one per {interval}; nine of ten true values lie within ±",
        units::count(go.samples, "object"),
    )];
    let young = units::percent(go.young_bytes as f64, go.allocated_bytes as f64);
    if go.young_bytes.saturating_mul(TENTH) > go.allocated_bytes {
        cautions.push(format!(
            "{young} of what was allocated is too young to be judged: two garbage collections have to begin after that"
        ));
    }
    cautions
}

/// Whether so much of Go's heap is too young to be judged that its growth cannot be either.
pub(super) fn is_mostly_young(profile: &Profile) -> bool {
    let go = profile.go.as_ref();
    go.is_some_and(|go| go.young_bytes.saturating_mul(TENTH) > go.allocated_bytes)
}

/// A tenth of what was allocated is worth a word.
const TENTH: u64 = 10;

/// The headline where nothing is known to be live.
pub(super) fn nothing_yet(go: &GoHeap, after: &str) -> String {
    format!(
        "Nothing known to be outstanding after {after}: {} of {} allocated since the attach are too young to be judged",
        units::size(go.young_bytes),
        units::size(go.allocated_bytes)
    )
}

/// `about 4,106,824 objects (687 MiB) allocated on Go's heap, 636 MiB of them garbage`.
pub(super) fn totals(go: &GoHeap) -> String {
    format!(
        "about {} ({}) allocated on Go's heap, {} of it garbage by now",
        units::count(go.allocated_count, "object"),
        units::size(go.allocated_bytes),
        units::size(go.garbage_bytes),
    )
}
