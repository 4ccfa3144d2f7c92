//! Goroutines in the text that Go's `?debug=1` gives. Pure.

use std::collections::HashMap;
use std::io::{self, Write};

use super::Which;
use super::stacks::{Counted, counted, is_wrapper};
use crate::profile::Frame;
use crate::profile::goroutines::Goroutines;
use crate::report::records::{write_addresses, write_record};

/// Writes how many goroutines are on each stack, the most first.
///
/// # Errors
/// What `out` refused.
pub fn write_counts(goroutines: &Goroutines, which: Which, note: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    let all = counted(goroutines, which);
    let total: u64 = all.iter().map(|one| one.count).sum();
    writeln!(out, "{} profile: total {total}", which.name())?;
    for (count, frames) in by_stack(&all) {
        write!(out, "{count} @")?;
        write_addresses(frames, out)?;
        writeln!(out)?;
        let shown: Vec<Frame> = frames.iter().filter(|frame| !is_wrapper(frame)).cloned().collect();
        write_record(&shown, |address| goroutines.offsets.get(&address).copied(), out)?;
    }
    for (reason, count) in &goroutines.lost {
        writeln!(out, "# {reason}: {count}")?;
    }
    note.map_or(Ok(()), |note| writeln!(out, "# {note}"))
}

/// Go counts by stack alone, whatever the state.
fn by_stack<'a>(all: &'a [Counted<'_>]) -> Vec<(u64, &'a [Frame])> {
    let mut sums: Vec<(u64, &[Frame])> = Vec::new();
    let mut places: HashMap<Vec<u64>, usize> = HashMap::new();
    for one in all {
        let frames = one.stack.frames.as_slice();
        let addresses = frames.iter().map(|frame| frame.address).collect();
        let place = *places.entry(addresses).or_insert(sums.len());
        match sums.get_mut(place) {
            Some((count, _)) => *count += one.count,
            None => sums.push((one.count, frames)),
        }
    }
    sums.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    sums
}
