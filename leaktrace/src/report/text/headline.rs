//! The sentence that matters: how much is outstanding, how fast it grows, how sure that is. Pure.

use super::golang;
use crate::analysis::{Point, Trend, trend};
use crate::profile::{NOT_RECORDED, Profile, Site, Verdict};
use crate::units;

/// The sentence, without a full stop.
pub(super) fn headline(profile: &Profile) -> String {
    let accounting = &profile.accounting;
    let after = units::duration(profile.window.duration_ns);
    if accounting.lost.contains_key(NOT_RECORDED) {
        return format!("Nothing was recorded in {after}: the handlers did nothing (--attach-with empty)");
    }
    if accounting.live_count == 0 {
        return match &profile.go {
            Some(go) if go.young_count > 0 => golang::nothing_yet(go, &after),
            _ => nothing(accounting.allocations, &after),
        };
    }
    let sites = profile.sites.iter().filter(|site| site.live_count > 0).count() as u64;
    let proven = leaked(profile).map(|leaked| format!("; {leaked}")).unwrap_or_default();
    format!(
        "{} outstanding in {} from {} after {after}, {}{proven}",
        units::size(accounting.live_bytes),
        units::count(accounting.live_count, "block"),
        units::count(sites, "site"),
        growth(profile),
    )
}

/// What makes the numbers less than exact, one line each.
pub(super) fn cautions(profile: &Profile) -> Vec<String> {
    let accounting = &profile.accounting;
    let mut cautions = Vec::new();
    if !accounting.complete {
        cautions.push("Incomplete: events were lost (see the end), so that true numbers may differ".to_owned());
    }
    if let Some(go) = &profile.go {
        cautions.extend(golang::cautions(go));
    } else if accounting.sample_bytes > 1 {
        let interval = units::size(accounting.sample_bytes);
        cautions.push(format!(
            "Estimated: one block per {interval} allocated was looked at, on average"
        ));
    }
    cautions
}

fn nothing(allocations: u64, after: &str) -> String {
    match allocations {
        0 => format!("Nothing outstanding after {after}: nothing was allocated"),
        1 => format!("Nothing outstanding after {after}: the 1 block allocated was freed again"),
        _ => format!(
            "Nothing outstanding after {after}: all {} blocks allocated were freed again",
            units::number(allocations)
        ),
    }
}

fn leaked(profile: &Profile) -> Option<String> {
    let leaks = || {
        profile
            .sites
            .iter()
            .filter(|site| site.verdict == Verdict::Leak && site.live_count > 0)
    };
    let bytes = leaks().fold(0_u64, |sum, site| sum.saturating_add(site.live_bytes));
    let sites = leaks().count() as u64;
    (sites > 0).then(|| format!("{} of it leaked by {}", units::size(bytes), units::count(sites, "site")))
}

fn growth(profile: &Profile) -> String {
    let points = profile.timeline.iter().map(|point| Point {
        at_ns: point.at_ns,
        bytes: point.live_bytes,
    });
    match trend(&points.collect::<Vec<_>>()) {
        Trend::TooFew(_) => "too short to say whether it grows".to_owned(),
        Trend::Growing(slope) => format!(
            "growing {} (steady{})",
            units::rate(slope.per_s),
            growers(&profile.sites)
        ),
        Trend::Levelling(slope) => format!(
            "growth levelling off ({} over the whole time)",
            units::rate(slope.per_s)
        ),
        Trend::Flat(_) | Trend::Shrinking(_) | Trend::Unsteady(_) if golang::is_mostly_young(profile) => {
            "too young to say whether it grows".to_owned()
        }
        Trend::Flat(_) => "not growing".to_owned(),
        Trend::Shrinking(slope) => format!("shrinking {}", units::rate(slope.per_s)),
        Trend::Unsteady(_) => "varying too much to say whether it grows".to_owned(),
    }
}

/// The fewest sites that make nine tenths of the growth.
fn growers(sites: &[Site]) -> String {
    let mut rates: Vec<f64> = sites
        .iter()
        .filter(|site| matches!(site.verdict, Verdict::Growing | Verdict::Leak))
        .map(|site| site.growth_bytes_per_s)
        .filter(|rate| *rate > 0.0)
        .collect();
    rates.sort_unstable_by(|a, b| b.total_cmp(a));
    // Of all growth: what sites that do not grow steadily add is not theirs.
    let total: f64 = sites
        .iter()
        .map(|site| site.growth_bytes_per_s)
        .filter(|rate| *rate > 0.0)
        .sum();
    if rates.is_empty() || !total.is_finite() {
        return String::new();
    }
    let mut share = 0.0;
    let needed = rates.iter().take_while(|rate| {
        let more = share < 0.9 * total;
        share += if more { **rate } else { 0.0 };
        more
    });
    let needed = needed.count() as u64;
    let account = if needed == 1 { "accounts" } else { "account" };
    format!(
        ": {} {account} for {} of it",
        units::count(needed, "site"),
        units::percent(share, total)
    )
}
