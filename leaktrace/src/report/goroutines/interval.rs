//! The short report between two looks: how many goroutines, and which `go` statements' have become more or fewer.

use std::collections::HashMap;
use std::io::{self, Write};

use super::creator;
use crate::profile::goroutines::{CreationSite, Goroutines};
use crate::report::text::paint::Paint;
use crate::report::{View, label};
use crate::units;

/// Writes how many goroutines there are `now`, and what changed since `previous`: at most `view.top` statements.
///
/// # Errors
/// What `out` refused.
pub fn write_interval(
    previous: Option<&Goroutines>,
    now: &Goroutines,
    view: &View,
    out: &mut dyn Write,
) -> io::Result<()> {
    let change = previous.map(|before| format!(" ({})", units::number_change(before.count, now.count)));
    let line = format!(
        "{}: {}{}",
        units::duration(now.window.duration_ns),
        units::count(now.count, "goroutine"),
        change.unwrap_or_default()
    );
    writeln!(out, "{}", Paint(view.colour).bold(&line))?;
    for (before, site) in changes(previous, now).into_iter().take(view.top) {
        let creator = creator(site);
        writeln!(
            out,
            "    {}  to {}  {} → {}",
            units::number_change(before, site.count),
            units::number(site.count),
            label::one_line(&creator),
            label::one_line(&site.start)
        )?;
    }
    Ok(())
}

/// Statements whose goroutines are more or fewer than before, the largest change first; of a first look, the largest.
fn changes<'a>(previous: Option<&Goroutines>, now: &'a Goroutines) -> Vec<(u64, &'a CreationSite)> {
    let sites = previous.iter().flat_map(|previous| &previous.sites);
    let before: HashMap<&str, u64> = sites.map(|site| (site.id.as_str(), site.count)).collect();
    let mut changes: Vec<(u64, &CreationSite)> = now
        .sites
        .iter()
        .map(|site| (before.get(site.id.as_str()).copied().unwrap_or(0), site))
        .filter(|(before, site)| *before != site.count)
        .collect();
    changes.sort_by_key(|(before, site)| std::cmp::Reverse(before.abs_diff(site.count)));
    changes
}
