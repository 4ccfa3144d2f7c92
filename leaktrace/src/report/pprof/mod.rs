//! pprof: gzipped `profile.proto`, for `go tool pprof` and the many tools that read the same.

use std::collections::HashMap;
use std::io::Write;

use super::{Report, View};
use crate::profile::{GoHeap, Heap, Profile, Site, Window};

mod encode;
mod locations;
mod mappings;
mod proto;
mod table;
mod text;

pub(crate) use self::encode::{Row, Sheet, signed};
pub use self::text::write_text;

pub(super) struct PprofReport;

impl Report for PprofReport {
    fn write(&self, profile: &Profile, _view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
        write(profile, &Written::default(), out)
    }
}

/// What a reader is shown first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum First {
    /// What is outstanding.
    #[default]
    InUse,
    /// What was allocated.
    Allocated,
}

/// How a profile is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written<'a> {
    /// What is shown first.
    pub first: First,
    /// An earlier profile of the same trace, which is taken off: what is left can be less than nothing.
    pub since: Option<&'a Profile>,
    /// What else is to be said.
    pub note: Option<&'a str>,
}

/// Writes a profile in this format.
///
/// # Errors
/// What `out` refused, or a number that the format cannot hold.
pub fn write(profile: &Profile, how: &Written, out: &mut dyn Write) -> anyhow::Result<()> {
    sheet(profile, how)?.write(out)
}

fn sheet<'a>(profile: &'a Profile, how: &Written<'a>) -> anyhow::Result<Sheet<'a>> {
    let default = match how.first {
        First::InUse => "inuse_space",
        First::Allocated => "alloc_space",
    };
    Ok(Sheet {
        kinds: &[
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ],
        default: Some(default),
        period: (("space", "bytes"), profile.accounting.sample_bytes),
        tool: &profile.tool,
        target: &profile.target,
        window: how
            .since
            .map_or(profile.window, |since| between(since.window, profile.window)),
        notes: notes(profile, how),
        rows: rows(profile, how.since)?,
    })
}

/// From the end of one window to the end of the other.
pub(crate) fn between(before: Window, after: Window) -> Window {
    Window {
        start_unix_ns: before.end_unix_ns,
        end_unix_ns: after.end_unix_ns,
        duration_ns: after.duration_ns.saturating_sub(before.duration_ns),
    }
}

/// A row for each site; of a difference, for each that has changed.
fn rows<'a>(profile: &'a Profile, since: Option<&'a Profile>) -> anyhow::Result<Vec<Row<'a>>> {
    let Some(since) = since else {
        return profile.sites.iter().map(|site| Ok(row(site, values(site)?))).collect();
    };
    let earlier = since.sites.iter().map(|site| (site.id.as_str(), site));
    let mut earlier: HashMap<&str, &Site> = earlier.collect();
    let mut rows = Vec::new();
    for site in &profile.sites {
        let before = earlier.remove(site.id.as_str());
        let before = before.map(values).transpose()?.unwrap_or_default();
        rows.push(row(site, less(values(site)?, before)));
    }
    // No longer told of: whatever they had is gone.
    let mut gone: Vec<&Site> = earlier.into_values().collect();
    gone.sort_by(|a, b| a.id.cmp(&b.id));
    for site in gone {
        rows.push(row(site, less([0; 4], values(site)?)));
    }
    rows.retain(|row| row.values.iter().any(|value| *value != 0));
    Ok(rows)
}

/// In the order of the kinds.
fn values(site: &Site) -> anyhow::Result<[i64; 4]> {
    Ok([
        signed(site.allocated_count)?,
        signed(site.allocated_bytes)?,
        signed(site.live_count)?,
        signed(site.live_bytes)?,
    ])
}

/// Both are at least 0, so that it fits.
fn less(after: [i64; 4], before: [i64; 4]) -> [i64; 4] {
    std::array::from_fn(|at| {
        let value = |values: &[i64; 4]| values.get(at).copied().unwrap_or_default();
        value(&after) - value(&before)
    })
}

fn row(site: &Site, values: [i64; 4]) -> Row<'_> {
    // How a stack that is not whole ended, as in a saved profile; and what is on Go's heap, of a program with two.
    let ending = (!site.stack.whole).then(|| ("stack_end", site.stack.ending().word()));
    let heap = (site.heap == Heap::Go).then_some(("heap", "go"));
    Row {
        stack: &site.stack,
        values: values.to_vec(),
        labels: ending.into_iter().chain(heap).collect(),
    }
}

fn notes(profile: &Profile, how: &Written) -> Vec<String> {
    let lost = profile.accounting.lost.iter();
    let lost = lost.map(|(reason, count)| format!("lost: {reason} {count}"));
    let estimate = profile.go.as_ref().map(estimate);
    lost.chain(estimate).chain(how.note.map(str::to_owned)).collect()
}

/// What the numbers of Go's heap go by.
fn estimate(go: &GoHeap) -> String {
    let error = go
        .estimate_error
        .map(|error| format!(", the live bytes within {:.0} %", error * 100.0));
    format!(
        "Go's heap is sampled: estimates from {} objects, {} of them live{}",
        go.samples,
        go.live_samples,
        error.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests;
