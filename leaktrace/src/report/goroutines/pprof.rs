//! Goroutines as pprof, with the names that Go's own profiles have. Pure.

use std::collections::HashMap;
use std::io::Write;

use super::Which;
use super::stacks::{Counted, counted};
use crate::profile::goroutines::Goroutines;
use crate::report::pprof::{Row, Sheet, between, signed};

/// How goroutines are written.
#[derive(Clone, Copy, Debug)]
pub struct Profiled<'a> {
    /// Which of them.
    pub which: Which,
    /// An earlier look, which is taken off: what is left can be less than nothing.
    pub since: Option<&'a Goroutines>,
    /// What else is to be said.
    pub note: Option<&'a str>,
}

/// Writes goroutines in this format: a sample for each stack and state.
///
/// # Errors
/// What `out` refused, or a number that the format cannot hold.
pub fn write_pprof(now: &Goroutines, how: &Profiled, out: &mut dyn Write) -> anyhow::Result<()> {
    let after = counted(now, how.which);
    let before = how.since.map(|since| counted(since, how.which)).unwrap_or_default();
    let (window, rows) = match how.since {
        Some(since) => (between(since.window, now.window), changes(&after, &before)?),
        None => (now.window, changes(&after, &[])?),
    };
    let kind = match how.which {
        Which::All => ("goroutine", "count"),
        Which::Leaked => ("goroutineleak", "count"),
    };
    let lost = now.lost.iter().map(|(reason, count)| format!("lost: {reason} {count}"));
    let sheet = Sheet {
        kinds: &[kind],
        default: None,
        period: (kind, 1),
        tool: &now.tool,
        target: &now.target,
        window,
        notes: lost.chain(how.note.map(str::to_owned)).collect(),
        rows,
    };
    sheet.write(out)
}

/// What tells samples apart: the addresses of a stack, what stands for it where it is not known, and the state.
type Key<'a> = (Vec<u64>, &'a str);

fn key<'a>(one: &'a Counted<'_>) -> Key<'a> {
    let addresses = one.stack.frames.iter().map(|frame| frame.address);
    (addresses.collect(), one.state)
}

/// A row for each stack and state whose number is not the same.
fn changes<'a>(after: &'a [Counted<'a>], before: &'a [Counted<'a>]) -> anyhow::Result<Vec<Row<'a>>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut places: HashMap<Key, usize> = HashMap::new();
    let signs = after
        .iter()
        .map(|one| (one, 1))
        .chain(before.iter().map(|one| (one, -1)));
    for (one, sign) in signs {
        let count = signed(one.count)? * sign;
        let place = *places.entry(key(one)).or_insert(rows.len());
        match rows.get_mut(place).and_then(|row| row.values.first_mut()) {
            Some(value) => *value = value.saturating_add(count),
            None => rows.push(row(one, count)),
        }
    }
    rows.retain(|row| row.values.first() != Some(&0));
    Ok(rows)
}

fn row<'a>(one: &'a Counted<'_>, count: i64) -> Row<'a> {
    Row {
        stack: &one.stack,
        values: vec![count],
        labels: vec![("state", one.state)],
    }
}

/// State and number of each sample.
#[cfg(test)]
pub(super) fn changes_of(now: &Goroutines, how: &Profiled) -> Vec<(String, i64)> {
    let after = counted(now, how.which);
    let before = how.since.map(|since| counted(since, how.which)).unwrap_or_default();
    let rows = changes(&after, &before).expect("fits");
    let sample = |row: &Row| (row.labels[0].1.to_owned(), row.values[0]);
    rows.iter().map(sample).collect()
}
