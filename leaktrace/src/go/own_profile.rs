//! Go's own heap profile, where the program has it on: since the process began, sampled at the program's rate.

use super::bytes::u64_at;
use super::locate::OwnProfile as Places;
use super::runtime::{GoError, Runtime, word};

/// Kind of a site of the heap profile (`runtime.memProfile`).
const MEMORY: u64 = 1;
/// Most sites that are read.
const MAX_SITES: usize = 1 << 20;
/// Deepest stack of one (`GODEBUG=profstackdepth` can make it 1,024).
const MAX_DEPTH: u64 = 1024;
/// Largest rate that is believed.
const MAX_RATE: u64 = 1 << 40;

/// A site of the profile, as it is sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampledSite {
    /// Bytes of an object.
    pub object_size: u64,
    /// Objects sampled.
    pub allocations: u64,
    /// Those of them that were found dead.
    pub frees: u64,
    /// Return addresses, innermost first.
    pub stack: Vec<u64>,
}

/// The profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Mean bytes between two samples.
    pub rate: u64,
    /// Its sites.
    pub sites: Vec<SampledSite>,
}

impl Sampled {
    /// Reads the profile of a process; nothing where it is off, or was not found.
    ///
    /// # Errors
    /// The process has ended, or may not be read.
    pub fn read(runtime: &Runtime) -> Result<Option<Self>, GoError> {
        let Some(places) = runtime.globals.own_profile else {
            return Ok(None);
        };
        read(runtime, places).map_err(|error| runtime.unreadable(error))
    }
}

fn read(runtime: &Runtime, places: Places) -> std::io::Result<Option<Sampled>> {
    let memory = runtime.memory;
    let off = match places.disabled {
        Some(switch) => memory.bytes(switch, 1)?.first() != Some(&0),
        None => false,
    };
    let rate = memory.word(places.rate)?;
    if off || rate == 0 || rate > MAX_RATE {
        return Ok(None);
    }
    let mut sites = Vec::new();
    let mut next = memory.word(places.buckets)?;
    // New ones come first, and none ever goes: the list can be followed while it grows.
    while next != 0 && sites.len() < MAX_SITES {
        let (site, after) = one(runtime, next)?;
        sites.extend(site);
        next = after;
    }
    Ok(Some(Sampled { rate, sites }))
}

/// The site at an address, if it is of the heap profile, and the next one.
fn one(runtime: &Runtime, address: u64) -> std::io::Result<(Option<SampledSite>, u64)> {
    let (bucket, record) = (&runtime.layout.bucket, &runtime.layout.record);
    // The stack begins behind the last field.
    let header_size = bucket.nstk + 8;
    let header = runtime.memory.bytes(address, header_size)?;
    let (depth, next) = (word(&header, bucket.nstk), word(&header, bucket.allnext));
    if word(&header, bucket.typ) != MEMORY || depth > MAX_DEPTH {
        return Ok((None, next));
    }
    let stack_size = 8 * depth as usize;
    let rest = runtime
        .memory
        .bytes(address.wrapping_add(header_size as u64), stack_size + record.size)?;
    let stack = rest.get(..stack_size).unwrap_or_default();
    // The first record is what is known for certain; the others wait for a collection to end.
    let active = rest.get(stack_size..).unwrap_or_default();
    let site = SampledSite {
        object_size: word(&header, bucket.size),
        allocations: word(active, record.allocs),
        frees: word(active, record.frees),
        stack: stack.chunks_exact(8).filter_map(|chunk| u64_at(chunk, 0)).collect(),
    };
    Ok((Some(site).filter(|site| site.allocations > 0), next))
}
