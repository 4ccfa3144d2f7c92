//! A verdict for one site, cautiously: what is outstanding is not what leaks. Pure.
//!
//! `leak` is never said here: growth alone, however steady, is no proof.

use super::history::History;
use super::trend::{FEWEST_POINTS, Trend, trend};
use crate::profile::Verdict;
use crate::units;

/// A share of freed bytes from which on a site churns.
const CHURN: f64 = 0.99;

/// A share of the live bytes from the older half of the site's time from which on survival is believed.
const SURVIVAL: f64 = 0.25;

/// What is live of one cohort of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cohort {
    /// How long ago the cohort began, in nanoseconds.
    pub age_ns: u64,
    /// Bytes of it that are still live.
    pub live_bytes: u64,
}

/// What is known of one site.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Its live bytes over time.
    pub history: &'a History,
    /// Bytes outstanding.
    pub live_bytes: u64,
    /// Blocks outstanding.
    pub live_count: u64,
    /// Bytes allocated in the window.
    pub allocated_bytes: u64,
    /// Blocks allocated in the window.
    pub allocated_count: u64,
    /// Length of the window in nanoseconds.
    pub window_ns: u64,
    /// Age of the oldest live block in nanoseconds.
    pub oldest_age_ns: u64,
    /// What is live by cohort, in any order; empty when not known.
    pub cohorts: &'a [Cohort],
}

/// The verdict, and why in one sentence without a full stop.
pub fn judge(evidence: &Evidence<'_>) -> (Verdict, String) {
    if evidence.live_count == 0 {
        return nothing_live(evidence);
    }
    match trend(&evidence.history.points()) {
        Trend::TooFew(points) => too_few(evidence, points),
        Trend::Growing(slope) => growing(evidence, slope.per_s),
        Trend::Levelling(slope) => {
            let grew = units::rate(slope.per_s);
            (
                Verdict::Stable,
                format!("grew {grew} over {}, but hardly in the newer half", span(evidence)),
            )
        }
        Trend::Unsteady(_) => churned(evidence, "no steady growth").unwrap_or_else(|| {
            (
                Verdict::Unknown,
                format!(
                    "live bytes vary too much over {} to say whether they grow",
                    span(evidence)
                ),
            )
        }),
        Trend::Flat(_) | Trend::Shrinking(_) => churned(evidence, "no growth").unwrap_or_else(|| level(evidence)),
    }
}

fn nothing_live(evidence: &Evidence<'_>) -> (Verdict, String) {
    match evidence.allocated_count {
        0 => (Verdict::Unknown, "nothing was allocated".to_owned()),
        1 => (Verdict::Churn, "the 1 block allocated was freed again".to_owned()),
        blocks => (
            Verdict::Churn,
            format!("all {} blocks allocated were freed again", units::number(blocks)),
        ),
    }
}

fn too_few(evidence: &Evidence<'_>, points: usize) -> (Verdict, String) {
    let seen = units::duration(evidence.window_ns);
    (
        Verdict::Unknown,
        format!("too little to say: {points} of at least {FEWEST_POINTS} measurements in {seen}"),
    )
}

fn growing(evidence: &Evidence<'_>, per_s: f64) -> (Verdict, String) {
    let grows = format!("{} over {}", units::rate(per_s), span(evidence));
    match survival(evidence) {
        Survival::Young => (
            Verdict::Unknown,
            format!("grows {grows}, but every live block is young"),
        ),
        Survival::Oldest => {
            let oldest = units::duration(evidence.oldest_age_ns);
            (
                Verdict::Growing,
                format!("{grows}, and the oldest live block is {oldest} old"),
            )
        }
        Survival::Share(older) => {
            let percent = units::percent(older, 1.0);
            let (verdict, but) = if older < SURVIVAL {
                (Verdict::Unknown, "but only")
            } else {
                (Verdict::Growing, "and")
            };
            (
                verdict,
                format!("{grows}, {but} {percent} of the live bytes are from the older half of that time"),
            )
        }
    }
}

/// What is known of how long blocks live.
enum Survival {
    /// Nothing live is older than half of the site's time.
    Young,
    /// Something live is; how much is not known.
    Oldest,
    /// The share of the live bytes that is: about a half if everything survives, next to nothing if blocks are freed
    /// after a while.
    Share(f64),
}

fn survival(evidence: &Evidence<'_>) -> Survival {
    let half = span_ns(evidence) / 2;
    if evidence.oldest_age_ns < half {
        return Survival::Young;
    }
    let bytes = |least_age: u64| -> u128 {
        let old = evidence.cohorts.iter().filter(|cohort| cohort.age_ns >= least_age);
        old.map(|cohort| u128::from(cohort.live_bytes)).sum()
    };
    match bytes(0) {
        0 => Survival::Oldest,
        total => Survival::Share(bytes(half) as f64 / total as f64),
    }
}

fn churned(evidence: &Evidence<'_>, growth: &str) -> Option<(Verdict, String)> {
    let allocated = evidence.allocated_bytes;
    let freed = allocated.saturating_sub(evidence.live_bytes) as f64;
    (freed >= CHURN * allocated as f64).then(|| {
        let percent = units::percent(freed, allocated as f64);
        let why = format!(
            "{percent} of {} allocated was freed again; {growth} over {}",
            units::size(allocated),
            span(evidence)
        );
        (Verdict::Churn, why)
    })
}

fn level(evidence: &Evidence<'_>) -> (Verdict, String) {
    (
        Verdict::Stable,
        format!(
            "no growth over {}, at {}",
            span(evidence),
            units::size(evidence.live_bytes)
        ),
    )
}

fn span_ns(evidence: &Evidence<'_>) -> u64 {
    let points = evidence.history.points();
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return 0;
    };
    last.at_ns.saturating_sub(first.at_ns)
}

fn span(evidence: &Evidence<'_>) -> String {
    units::duration(span_ns(evidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn history(bytes: &[u64]) -> History {
        let mut history = History::default();
        bytes
            .iter()
            .zip(0..)
            .for_each(|(bytes, second)| history.push(second * SECOND, *bytes));
        history
    }

    fn evidence(history: &History, allocated_bytes: u64) -> Evidence<'_> {
        let live_bytes = history.points().last().map_or(0, |point| point.bytes);
        Evidence {
            history,
            live_bytes,
            live_count: live_bytes / 10,
            allocated_bytes,
            allocated_count: allocated_bytes / 10,
            window_ns: 10 * SECOND,
            oldest_age_ns: 9 * SECOND,
            cohorts: &[],
        }
    }

    #[test]
    fn steady_growth_that_survives_is_growing() {
        let history = history(&[100, 200, 300, 400, 500, 600, 700, 800, 900]);
        let cohorts: Vec<_> = (0..9)
            .map(|second| Cohort {
                age_ns: second * SECOND,
                live_bytes: 100,
            })
            .collect();
        let (verdict, why) = judge(&Evidence {
            cohorts: &cohorts,
            ..evidence(&history, 900)
        });
        assert_eq!(verdict, Verdict::Growing);
        assert_eq!(
            why,
            "100 B/s over 8.0 s, and 56 % of the live bytes are from the older half of that time"
        );
        assert_eq!(
            judge(&evidence(&history, 900)).0,
            Verdict::Growing,
            "the oldest block stands for all"
        );
    }

    #[test]
    fn growth_of_young_blocks_only_is_not_believed() {
        let history = history(&[100, 200, 300, 400, 500, 600, 700, 800, 900]);
        let young = Evidence {
            oldest_age_ns: 2 * SECOND,
            ..evidence(&history, 90_000)
        };
        assert_eq!(judge(&young).0, Verdict::Unknown);
        let cohorts = [
            Cohort {
                age_ns: 8 * SECOND,
                live_bytes: 50,
            },
            Cohort {
                age_ns: 0,
                live_bytes: 850,
            },
        ];
        assert_eq!(
            judge(&Evidence {
                cohorts: &cohorts,
                ..evidence(&history, 90_000)
            })
            .0,
            Verdict::Unknown
        );
    }

    #[test]
    fn a_filled_cache_is_stable() {
        let history = history(&[100, 500, 800, 950, 990, 1000, 1000, 1000, 1000, 1000]);
        assert_eq!(judge(&evidence(&history, 1000)).0, Verdict::Stable);
    }

    #[test]
    fn a_buffer_allocated_once_is_stable() {
        let history = history(&[4096; 10]);
        assert_eq!(
            judge(&evidence(&history, 4096)),
            (Verdict::Stable, "no growth over 9.0 s, at 4,096 B".to_owned())
        );
    }

    #[test]
    fn what_is_freed_again_churns() {
        let history = history(&[40, 50, 45, 40, 50, 45, 40, 45]);
        let (verdict, why) = judge(&evidence(&history, 100_000));
        assert_eq!(
            (verdict, why.starts_with("over 99 % of 97.7 KiB")),
            (Verdict::Churn, true),
            "{why}"
        );
        let empty = History::default();
        assert_eq!(judge(&evidence(&empty, 1000)).0, Verdict::Churn, "nothing is live");
    }

    #[test]
    fn short_traces_say_nothing() {
        let history = history(&[100, 200, 300]);
        let (verdict, why) = judge(&evidence(&history, 300));
        assert_eq!(verdict, Verdict::Unknown);
        assert_eq!(why, "too little to say: 3 of at least 5 measurements in 10.0 s");
    }

    #[test]
    fn never_a_leak() {
        let mut seed = 7_u64;
        for _ in 0..2000 {
            let bytes: Vec<u64> = (0..12)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    seed >> 50
                })
                .collect();
            let history = history(&bytes);
            let (verdict, why) = judge(&evidence(&history, 1 << 20));
            assert!(verdict != Verdict::Leak && !why.is_empty() && !why.contains('\n'));
        }
    }
}
