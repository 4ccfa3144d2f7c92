//! Where the code of a process's allocators lies now: what that code maps for itself is not the program's.

use std::collections::HashMap;

use leaktrace_common::probes::{OWN_CODE_RANGES, OwnCode};

use crate::target::AddressSpace;

/// Ranges of code by device and inode of the module, as virtual addresses.
#[derive(Default)]
pub struct AllocatorCode(HashMap<(u64, u64), Vec<(u64, u64)>>);

impl AllocatorCode {
    /// Takes in what a plan has found.
    pub fn extend(&mut self, found: impl IntoIterator<Item = ((u64, u64), (u64, u64))>) {
        for (module, range) in found {
            self.0.entry(module).or_default().push(range);
        }
    }

    /// Where it is mapped now, and how many ranges found no room.
    pub fn locate(&self, space: &AddressSpace) -> (OwnCode, usize) {
        let mut own = OwnCode {
            ranges: [[0; 2]; OWN_CODE_RANGES],
        };
        let mapped = space.executable_mappings().flat_map(|(mapping, module)| {
            let parts = module.and_then(|module| {
                let start = module.virtual_address(mapping, mapping.start)?;
                Some((self.0.get(&module.identity)?, start))
            });
            let clipped = parts.into_iter().flat_map(move |(ranges, start)| {
                let bias = mapping.start.wrapping_sub(start);
                let placed = move |&(from, to): &(u64, u64)| {
                    let (from, to) = (from.wrapping_add(bias), to.wrapping_add(bias));
                    [from.max(mapping.start), to.min(mapping.end)]
                };
                ranges.iter().map(placed).filter(|[from, to]| from < to)
            });
            clipped.collect::<Vec<_>>()
        });
        let mut left_out = 0;
        let mut free = own.ranges.iter_mut();
        for range in mapped {
            match free.next() {
                Some(place) => *place = range,
                None => left_out += 1,
            }
        }
        (own, left_out)
    }
}
