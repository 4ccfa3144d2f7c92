//! Go's own heap profile, where a program has it on: its sites since the program began, as of the last collection, as
//! sampled.
//!
//! Sites are never taken away, and what stands at their front does not change; the counts change when a collection has
//! ended. So they are read until they are the same twice.

use std::collections::HashMap;

use super::bytes::u64_at;
use super::layout::{Bucket, Record};
use super::locate::OwnProfile as Places;
use super::memory::Memory;
use super::runtime::{GoError, Runtime, word};

/// Most sites that are read.
const MAX_BUCKETS: usize = 1 << 20;
/// Most frames of all stacks together.
const MAX_WORDS: usize = 1 << 24;
/// Most frames of one (`runtime.maxProfStackDepth`).
const MAX_DEPTH: u64 = 1024;
/// Largest rate that is believed.
const MAX_RATE: u64 = 1 << 40;
/// How often they are read until they are the same twice.
const ATTEMPTS: usize = 8;
/// The runtime puts sites one behind the other: read in pieces of this size.
const PIECE: u64 = 64 << 10;
/// Most pieces held.
const MAX_PIECES: usize = 1 << 12;
/// The kind of a site that is one of the heap.
const HEAP: u64 = 1;
/// Records of a site: what has been published, and three that are on their way there.
const RECORDS: usize = 4;

/// A site of the profile, as it is sampled: nothing is scaled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampledSite {
    /// Bytes of an object.
    pub object_size: u64,
    /// Objects sampled since the program began.
    pub allocations: u64,
    /// Those of them that were found dead.
    pub frees: u64,
    /// One return address for each call, also for those that are inlined; innermost first.
    pub stack: Vec<u64>,
}

/// The profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Mean bytes between two samples.
    pub rate: u64,
    /// Its sites, the newest first.
    pub sites: Vec<SampledSite>,
}

impl Sampled {
    /// Reads the profile of a process; nothing where it is off, or was not found.
    ///
    /// # Errors
    /// The process has ended, or what stands there makes no sense, or changes too fast.
    pub fn read(runtime: &Runtime) -> Result<Option<Self>, GoError> {
        let Some(places) = runtime.globals.own_profile else {
            return Ok(None);
        };
        let Some(rate) = rate(runtime, places)? else {
            return Ok(None);
        };
        let refused = |what| runtime.refused("own heap profile", what);
        let mut before = None;
        for _ in 0..ATTEMPTS {
            let walk = walk(runtime, places)?.map_err(refused)?;
            let (sites, is_published) = published(&walk, &runtime.layout.record);
            // Before the first collection nothing has been published, and what is on its way changes all the time.
            if !is_published || before.as_ref() == Some(&sites) {
                return Ok(Some(Self { rate, sites }));
            }
            before = Some(sites);
        }
        Err(refused("collections follow each other too fast"))
    }
}

/// The rate; none where the linker or the program has switched the profile off.
fn rate(runtime: &Runtime, places: Places) -> Result<Option<u64>, GoError> {
    let unreadable = |error| runtime.unreadable(error);
    let rate = runtime.memory.word(places.rate).map_err(unreadable)?;
    let disabled = match places.disabled {
        Some(address) => runtime.memory.bytes(address, 1).map_err(unreadable)?,
        None => vec![0],
    };
    match (rate, disabled.as_slice()) {
        (0, [0 | 1]) | (1..=MAX_RATE, [1]) => Ok(None),
        (1..=MAX_RATE, [0]) => Ok(Some(rate)),
        _ => Err(runtime.refused("own heap profile", "it is not laid out as expected")),
    }
}

/// A site as it was read: size of an object, stack, records.
type Raw = (u64, Vec<u64>, Vec<u8>);

/// Follows the list of sites.
fn walk(runtime: &Runtime, places: Places) -> Result<Result<Vec<Raw>, &'static str>, GoError> {
    let unreadable = |error| runtime.unreadable(error);
    let mut next = runtime.memory.word(places.buckets).map_err(unreadable)?;
    let mut pieces = Pieces::of(runtime.memory);
    let (mut sites, mut words) = (Vec::new(), 0);
    while next != 0 {
        let bucket = match pieces.bucket(next, &runtime.layout.bucket, &runtime.layout.record) {
            Ok(Some(bucket)) => bucket,
            Ok(None) => return Ok(Err("its sites are not laid out as expected")),
            Err(error) => return Err(unreadable(error)),
        };
        words += bucket.1.1.len();
        if sites.len() >= MAX_BUCKETS || words > MAX_WORDS {
            return Ok(Err("it has more sites than are read"));
        }
        next = bucket.0;
        sites.push(bucket.1);
    }
    Ok(Ok(sites))
}

/// Parts of the process's memory, each read once.
struct Pieces {
    memory: Memory,
    known: HashMap<u64, Option<Vec<u8>>>,
}

impl Pieces {
    fn of(memory: Memory) -> Self {
        Self {
            memory,
            known: HashMap::new(),
        }
    }

    /// The address of the next site, and what stands in this one; none if it is no site.
    fn bucket(&mut self, address: u64, layout: &Bucket, record: &Record) -> std::io::Result<Option<(u64, Raw)>> {
        let front = layout.nstk + 8;
        let bytes = self.bytes(address, front)?;
        let (kind, depth, size) = (
            word(&bytes, layout.typ),
            word(&bytes, layout.nstk),
            word(&bytes, layout.size),
        );
        if kind != HEAP || depth > MAX_DEPTH {
            return Ok(None);
        }
        let next = word(&bytes, layout.allnext);
        let behind = address.saturating_add(front as u64);
        let stack = self.bytes(behind, 8 * depth as usize)?;
        let records = self.bytes(behind.saturating_add(8 * depth), RECORDS * record.size)?;
        let stack = stack.chunks_exact(8).filter_map(|chunk| u64_at(chunk, 0));
        Ok(Some((next, (size, stack.collect(), records))))
    }

    fn bytes(&mut self, address: u64, size: usize) -> std::io::Result<Vec<u8>> {
        let (start, inside) = (address / PIECE * PIECE, (address % PIECE) as usize);
        if !self.known.contains_key(&start) && self.known.len() < MAX_PIECES {
            // Its end may not be mapped, or it lies across two pieces: then what is wanted is read alone.
            let piece = self.memory.bytes(start, PIECE as usize).ok();
            self.known.insert(start, piece);
        }
        let piece = self.known.get(&start).and_then(Option::as_ref);
        match piece.and_then(|piece| piece.get(inside..inside.checked_add(size)?)) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => self.memory.bytes(address, size),
        }
    }
}

/// What has been published, and whether anything has: before the first collection, what is on its way is, as in Go's own
/// profile.
fn published(sites: &[Raw], layout: &Record) -> (Vec<SampledSite>, bool) {
    let count = |records: &[u8], record: usize, at: usize| word(records, record * layout.size + at);
    let counts = |records: &[u8], record| {
        (
            count(records, record, layout.allocs),
            count(records, record, layout.frees),
        )
    };
    let is_published = sites.iter().any(|(_, _, records)| counts(records, 0) != (0, 0));
    let last = if is_published { 1 } else { RECORDS };
    let sampled = sites.iter().map(|(size, stack, records)| {
        let (allocations, frees) = (0..last)
            .map(|record| counts(records, record))
            .fold((0_u64, 0_u64), |sum, each| {
                (sum.0.wrapping_add(each.0), sum.1.wrapping_add(each.1))
            });
        SampledSite {
            object_size: *size,
            allocations,
            frees,
            stack: stack.clone(),
        }
    });
    (sampled.collect(), is_published)
}

#[cfg(test)]
#[path = "own_profile_tests.rs"]
mod tests;
