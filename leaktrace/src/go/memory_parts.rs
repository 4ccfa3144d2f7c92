//! Where the resident memory of a Go process is: pages with objects, stacks, free pages, the runtime's own structures,
//! C's heap, files. What the kernel counts for each mapping is divided, so that the parts add up to it.
//!
//! Whether a page of the heap is in memory, and what it is for, is looked at one after the other while the process runs:
//! what changes in between is off by that. Stacks of threads that run just then count as other memory.

use std::collections::HashSet;
use std::ops::Range;

use object::LittleEndian;
use object::elf;

use super::heap::{IN_USE, PAGE};
use super::runtime::{GoError, Runtime, word};
use crate::profile::MemoryPart;
use crate::target::mappings::Mapping;
use crate::target::resident::{PageMap, Resident};
use crate::target::{AddressSpace, holds_generated};

/// Most spans that are looked at: half a terabyte of heap has so many, with one page each sixteen times that.
const MAX_SPANS: u64 = 1 << 22;
/// Most bytes of the heap's addresses that are looked at page by page.
const MAX_HEAP: u64 = 128 << 30;
/// How much of them at a time.
const STEP: u64 = 64 << 20;
/// Bits of an address within a part of the heap (`runtime.heapArena`).
const ARENA_BITS: u32 = 26;
/// State of a span for what the runtime gives back itself.
const MANUAL: u8 = 2;
/// How the runtime names its mappings, from Go 1.25 on, where the kernel keeps such names.
const NAMED: &[u8] = b"[anon: Go: ";

/// What memory is for, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Objects,
    Stacks,
    Free,
    Heap,
    Runtime,
    CHeap,
    Threads,
    Anonymous,
    Code,
    Files,
    Kernel,
}

const PARTS: [(Part, &str); 11] = [
    (Part::Objects, "Go heap: pages with objects"),
    (Part::Stacks, "Go heap: goroutine stacks and the collector's buffers"),
    (Part::Free, "Go heap: free pages"),
    (Part::Heap, "Go heap: pages that were not told apart"),
    (Part::Runtime, "Go runtime's structures"),
    (Part::CHeap, "C heap"),
    (Part::Threads, "thread stacks"),
    (Part::Anonymous, "other anonymous memory"),
    (Part::Code, "program and libraries"),
    (Part::Files, "other files and shared memory"),
    (Part::Kernel, "the kernel's pages"),
];
/// Where the runtime's mappings have no names.
const UNNAMED: &str = "Go runtime's structures and other anonymous memory";

/// The parts of the resident memory that are not empty; together they are what the kernel counts as resident.
///
/// # Errors
/// The process has ended, or may not be read.
pub fn memory_parts(space: &AddressSpace, runtime: &Runtime) -> Result<Vec<MemoryPart>, GoError> {
    let unreadable = |error| runtime.unreadable(error);
    let spans = spans(runtime)?;
    let resident = space.resident().map_err(unreadable)?;
    let map = Map::new(space, &resident, &spans);
    let pages = space.page_map().ok();
    let mut sums = Sums::default();
    let mut left = MAX_HEAP;
    for one in resident.iter().filter(|one| one.bytes > 0) {
        match map.part(&one.mapping) {
            Part::Heap => {
                let size = one.mapping.end - one.mapping.start;
                let looked = pages.as_ref().filter(|_| size <= left);
                left = left.saturating_sub(size);
                let used = looked.and_then(|pages| used(pages, &one.mapping, &spans));
                sums.add_heap(one.bytes, used);
            }
            part => sums.add(part, one.bytes),
        }
    }
    Ok(sums.told(map.named))
}

/// Pages of the heap that are handed out, by address.
#[derive(Clone, Debug)]
struct Pages {
    range: Range<u64>,
    part: Part,
}

/// All spans that hold something, by address.
fn spans(runtime: &Runtime) -> Result<Vec<Pages>, GoError> {
    let unreadable = |error| runtime.unreadable(error);
    let (memory, layout) = (runtime.memory, &runtime.layout.mspan);
    let heap = runtime.globals.heap.ok_or_else(|| runtime.missing("heap"))?;
    let list = heap.wrapping_add(runtime.layout.mheap.allspans as u64);
    let list = memory.bytes(list, 16).map_err(unreadable)?;
    let (pointer, count) = (word(&list, 0), word(&list, 8));
    if count > MAX_SPANS {
        return Err(runtime.refused("heap", "it has more spans than are looked at"));
    }
    let addresses = memory.bytes(pointer, 8 * count as usize).map_err(unreadable)?;
    let ranges: Vec<(u64, usize)> = addresses
        .chunks_exact(8)
        .map(|chunk| (word(chunk, 0), layout.size))
        .collect();
    let mut spans = Vec::new();
    let take = |_, bytes: Option<&[u8]>| {
        let state = bytes.and_then(|bytes| Some((bytes, *bytes.get(layout.state)?)));
        let (bytes, part) = match state {
            Some((bytes, IN_USE)) => (bytes, Part::Objects),
            Some((bytes, MANUAL)) => (bytes, Part::Stacks),
            _ => return,
        };
        let (start, pages) = (word(bytes, layout.start_addr), word(bytes, layout.npages));
        let end = pages.checked_mul(PAGE).and_then(|size| start.checked_add(size));
        spans.extend(end.map(|end| Pages {
            range: start..end,
            part,
        }));
    };
    memory.each(&ranges, take).map_err(unreadable)?;
    spans.sort_unstable_by_key(|span| span.range.start);
    Ok(spans)
}

/// Bytes in memory of pages with objects, and of stacks; none if that cannot be told.
fn used(pages: &PageMap, mapping: &Mapping, spans: &[Pages]) -> Option<(u64, u64)> {
    let (mut objects, mut stacks) = (0, 0);
    let first = spans.partition_point(|span| span.range.end <= mapping.start);
    let mut spans = spans.get(first..)?.iter().peekable();
    let mut start = mapping.start;
    while start < mapping.end {
        let end = mapping.end.min(start.saturating_add(STEP));
        let present = pages.present(start, end).ok()?;
        for (address, _) in (start..)
            .step_by(pages.page as usize)
            .zip(present)
            .filter(|(_, is)| *is)
        {
            while spans.next_if(|span| span.range.end <= address).is_some() {}
            match spans.peek().filter(|span| span.range.contains(&address)) {
                Some(span) if span.part == Part::Objects => objects += pages.page,
                Some(_) => stacks += pages.page,
                None => {}
            }
        }
        start = end;
    }
    Some((objects, stacks))
}

/// What is known of the mappings of a process.
struct Map {
    /// Parts of the heap, by number.
    arenas: HashSet<u64>,
    /// Device and inode of files with code.
    code: HashSet<((u32, u32), u64)>,
    /// Where the variables of such files are that are zero at the start: not the file's, as the kernel sees it.
    variables: Vec<Range<u64>>,
    stacks: Vec<u64>,
    named: bool,
}

impl Map {
    fn new(space: &AddressSpace, resident: &[Resident], spans: &[Pages]) -> Self {
        let mappings = || resident.iter().map(|one| &one.mapping);
        let code = mappings().filter(|mapping| mapping.executable && mapping.is_file());
        Self {
            arenas: spans.iter().map(|span| span.range.start >> ARENA_BITS).collect(),
            code: code.map(|mapping| (mapping.device, mapping.inode)).collect(),
            variables: segments(space),
            stacks: space.stack_pointers(),
            named: mappings().any(|mapping| name(mapping).starts_with(NAMED)),
        }
    }

    fn part(&self, mapping: &Mapping) -> Part {
        let name = name(mapping);
        match name {
            b"[heap]" => return Part::CHeap,
            b"[stack]" => return Part::Threads,
            _ => {}
        }
        if mapping.is_file() {
            let is_code = self.code.contains(&(mapping.device, mapping.inode)) && !holds_generated(name);
            return if is_code { Part::Code } else { Part::Files };
        }
        let is_anonymous = name.is_empty() || name.starts_with(b"[anon");
        if !is_anonymous {
            return Part::Kernel;
        }
        let mut arenas = mapping.start >> ARENA_BITS..=(mapping.end - 1) >> ARENA_BITS;
        // A mapping that is far larger than a heap is not looked through.
        let is_heap = arenas.by_ref().take(1 << 20).any(|arena| self.arenas.contains(&arena));
        let is_stack = || self.stacks.iter().any(|&stack| mapping.contains(stack));
        let is_variables = || self.variables.iter().any(|range| range.contains(&mapping.start));
        if is_heap {
            Part::Heap
        } else if name.starts_with(NAMED) {
            Part::Runtime
        } else if is_variables() {
            Part::Code
        } else if is_stack() {
            Part::Threads
        } else {
            Part::Anonymous
        }
    }
}

fn name(mapping: &Mapping) -> &[u8] {
    mapping.path.as_os_str().as_encoded_bytes()
}

/// Where files with code have their segments in the process.
fn segments(space: &AddressSpace) -> Vec<Range<u64>> {
    let modules = space
        .executable_mappings()
        .filter_map(|(mapping, module)| Some((mapping, module?)));
    let ranges = modules.flat_map(|(mapping, module)| {
        let bias = module
            .virtual_address(mapping, mapping.start)
            .map(|address| mapping.start.wrapping_sub(address));
        let segments = module.headers().segments.iter();
        let loaded = segments.filter(|segment| segment.p_type.get(LittleEndian) == elf::PT_LOAD);
        let range = |start: u64, size: u64| start..start.saturating_add(size);
        let found = loaded.filter_map(|segment| {
            let start = segment.p_vaddr.get(LittleEndian).wrapping_add(bias?);
            Some(range(start, segment.p_memsz.get(LittleEndian)))
        });
        found.collect::<Vec<_>>()
    });
    ranges.collect()
}

/// Bytes of each part.
#[derive(Debug, Default)]
struct Sums([u64; PARTS.len()]);

impl Sums {
    fn add(&mut self, part: Part, bytes: u64) {
        if let Some(sum) = self.0.get_mut(part as usize) {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// Divides what is resident of a part of the heap. Pages that came or went while they were looked at are taken for
    /// free ones, or free ones for them.
    fn add_heap(&mut self, resident: u64, used: Option<(u64, u64)>) {
        let Some((objects, stacks)) = used else {
            return self.add(Part::Heap, resident);
        };
        let stacks = stacks.min(resident);
        let objects = objects.min(resident - stacks);
        self.add(Part::Objects, objects);
        self.add(Part::Stacks, stacks);
        self.add(Part::Free, resident - stacks - objects);
    }

    fn told(&self, named: bool) -> Vec<MemoryPart> {
        let parts = PARTS.iter().zip(self.0).filter(|(_, bytes)| *bytes > 0);
        let told = parts.map(|(&(part, what), bytes)| MemoryPart {
            what: if part == Part::Anonymous && !named {
                UNNAMED
            } else {
                what
            }
            .to_owned(),
            bytes,
        });
        told.collect()
    }
}

#[cfg(test)]
#[path = "memory_parts_tests.rs"]
mod tests;
