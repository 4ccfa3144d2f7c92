//! A copy of the heap: which objects there are, and what stands in those that can hold pointers.

use std::io;
use std::path::Path;

use crate::go::bytes::{u16_at, u64_at};
use crate::go::heap::{IN_USE, PAGE};
use crate::go::layout;
use crate::go::memory::{Memory, Pieces};
use crate::go::runtime::{GoError, Runtime, word};
use crate::target::files::read_start;

/// Most runs of pages.
const MAX_SPANS: u64 = 1 << 24;
/// Most bytes that are copied.
const MAX_COPIED: u64 = 8 << 30;
/// Most objects, for each of which two bits are kept.
const MAX_OBJECTS: u64 = 1 << 33;
/// Most pages between the lowest and the highest of the heap: half a terabyte.
const MAX_PAGES: u64 = 1 << 26;
/// Most specials that are followed, of all objects together.
const MAX_SPECIALS: usize = 1 << 22;
/// How much of a special is looked at for pointers: they are shorter.
const SPECIAL_BYTES: usize = 64;
/// Kind of a special that is a finalizer (`_KindSpecialFinalizer`, the same in all versions).
const FINALIZER: u8 = 1;
/// Stands for no run of pages.
const NONE: u32 = u32::MAX;

/// Why a heap is not copied.
#[derive(Debug)]
enum Refusal {
    TooLarge(&'static str),
    Unreadable(io::Error),
}

/// A run of pages with objects of one size.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its first byte.
    pub base: u64,
    /// Bytes of all pages.
    pub size: u64,
    /// Bytes of an object.
    pub object_size: u64,
    /// How many objects there is room for.
    pub objects: u64,
    /// Number of its first object, of all objects of the heap.
    pub first: u64,
    /// Which piece of the copy it is; none if its objects hold no pointers.
    pub piece: Option<usize>,
    specials: u64,
}

/// A finalizer, a cleanup, or the like.
#[derive(Clone, Debug)]
pub struct Special {
    /// Where it is.
    pub address: u64,
    /// The object it belongs to.
    pub object: u64,
    /// Whether it is a finalizer: it needs what the object refers to, though not the object.
    pub is_finalizer: bool,
    /// What stands in it, from its second word on.
    pub words: Vec<u64>,
}

/// A copy of the heap.
#[derive(Debug, Default)]
pub struct Heap {
    /// Runs of pages, by address.
    pub spans: Vec<Span>,
    /// How many objects there is room for.
    pub objects: u64,
    /// Bytes copied.
    pub copied: u64,
    /// Bytes that could not be.
    pub unreadable: u64,
    /// How many of them may hold pointers: these have the lowest numbers.
    pub holding: u64,
    /// What the runtime itself knows of objects besides, as far as it holds on to something.
    pub specials: Vec<Special>,
    pieces: Pieces,
    /// For each page from the lowest on, which run it belongs to.
    pages: Vec<u32>,
}

impl Heap {
    /// Copies the heap of a process that runs on.
    pub fn copy(runtime: &Runtime) -> Result<Self, GoError> {
        runtime.check_heap()?;
        let spans = read_spans(runtime)?;
        let specials = read_specials(runtime, &spans)?;
        let too_large = |what| runtime.no_proof(what);
        let mut heap = Self::of(spans, runtime.memory, available()).map_err(|refusal| match refusal {
            Refusal::TooLarge(what) => too_large(what),
            Refusal::Unreadable(error) => runtime.unreadable(error),
        })?;
        heap.specials = specials;
        Ok(heap)
    }

    /// Copies these runs of pages, if they take no more than `room` bytes.
    fn of(mut spans: Vec<Span>, memory: Memory, room: u64) -> Result<Self, Refusal> {
        spans.sort_unstable_by_key(|span| span.base);
        // Of runs that overlap, one was made of the other's pages while they were read.
        spans.dedup_by(|next, before| next.base < before.base + before.size);
        let mut heap = Self::default();
        let mut ranges = Vec::new();
        for span in spans.iter_mut().filter(|span| span.piece.is_some()) {
            heap.number(span);
            span.piece = Some(ranges.len());
            heap.copied += span.size;
            ranges.push((span.base, span.size as usize));
        }
        heap.holding = heap.objects;
        for span in spans.iter_mut().filter(|span| span.piece.is_none()) {
            heap.number(span);
        }
        let index = page_index(&spans).ok_or(Refusal::TooLarge("it is spread over more than 512 GiB of addresses"))?;
        if heap.objects > MAX_OBJECTS {
            return Err(Refusal::TooLarge("it holds more than eight thousand million objects"));
        }
        if heap.copied > room.min(MAX_COPIED) {
            return Err(Refusal::TooLarge(
                "there is not the memory for it, or it has over 8 GiB with pointers",
            ));
        }
        heap.pieces = memory.pieces(&ranges).map_err(Refusal::Unreadable)?;
        let unread = ranges
            .iter()
            .enumerate()
            .filter(|(index, _)| heap.pieces.get(*index).is_none());
        heap.unreadable = unread.map(|(_, (_, size))| *size as u64).sum();
        (heap.pages, heap.spans) = (index, spans);
        Ok(heap)
    }

    fn number(&mut self, span: &mut Span) {
        span.first = self.objects;
        self.objects = self.objects.saturating_add(span.objects);
    }

    /// The object that `address` points into: its run of pages, and its number in it.
    pub fn find(&self, address: u64) -> Option<(&Span, u64)> {
        let low = self.spans.first()?.base;
        let page = address.checked_sub(low)? / PAGE;
        let &index = self.pages.get(usize::try_from(page).ok()?)?;
        let span = self.spans.get(index as usize)?;
        let number = (address - span.base) / span.object_size;
        (number < span.objects).then_some((span, number))
    }

    /// What stands in an object; nothing if it cannot hold pointers.
    pub fn contents(&self, span: &Span, number: u64) -> &[u8] {
        let start = (number * span.object_size) as usize;
        let bytes = span.piece.and_then(|piece| self.pieces.get(piece));
        let contents = bytes.and_then(|bytes| bytes.get(start..start + span.object_size as usize));
        contents.unwrap_or_default()
    }
}

fn read_spans(runtime: &Runtime) -> Result<Vec<Span>, GoError> {
    let unreadable = |error| runtime.unreadable(error);
    let heap = runtime.globals.heap.ok_or_else(|| runtime.missing("heap"))?;
    let list = heap.wrapping_add(runtime.layout.mheap.allspans as u64);
    let list = runtime.memory.bytes(list, 16).map_err(unreadable)?;
    let (pointer, count) = (word(&list, 0), word(&list, 8));
    if count > MAX_SPANS {
        return Err(runtime.no_proof("it has more pages than there can be"));
    }
    let addresses = runtime.memory.bytes(pointer, 8 * count as usize).map_err(unreadable)?;
    let size = runtime.layout.mspan.size;
    let ranges: Vec<(u64, usize)> = addresses.chunks_exact(8).map(|chunk| (word(chunk, 0), size)).collect();
    let read = runtime.memory.pieces(&ranges).map_err(unreadable)?;
    let spans = (0..ranges.len()).filter_map(|index| parse(&runtime.layout.mspan, read.get(index)?));
    Ok(spans.collect())
}

/// A run of pages with objects, if it is one that makes sense.
fn parse(layout: &layout::Span, bytes: &[u8]) -> Option<Span> {
    let field = |at: usize| word(bytes, at);
    let objects = if layout.wide_counts {
        field(layout.nelems)
    } else {
        u64::from(u16_at(bytes, layout.nelems)?)
    };
    let (base, size) = (field(layout.start_addr), field(layout.npages).checked_mul(PAGE)?);
    let object_size = field(layout.elemsize);
    let fits = base.is_multiple_of(PAGE)
        && object_size >= 8
        && object_size.is_multiple_of(8)
        && objects.checked_mul(object_size)? <= size
        && base.checked_add(size)? < 1 << 47;
    let in_use = bytes.get(layout.state) == Some(&IN_USE) && objects > 0;
    let without_pointers = bytes.get(layout.spanclass)? & 1 == 1;
    (in_use && fits).then_some(Span {
        base,
        size,
        object_size,
        objects,
        first: 0,
        piece: (!without_pointers).then_some(0),
        specials: field(layout.specials),
    })
}

/// Which run each page belongs to, from the lowest page on. None if they are spread too wide.
fn page_index(spans: &[Span]) -> Option<Vec<u32>> {
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
        return Some(Vec::new());
    };
    let pages = (last.base + last.size - first.base) / PAGE;
    if pages > MAX_PAGES {
        return None;
    }
    let mut index = vec![NONE; pages as usize];
    for (number, span) in spans.iter().enumerate() {
        let start = ((span.base - first.base) / PAGE) as usize;
        let pages = index.get_mut(start..start + (span.size / PAGE) as usize);
        pages.unwrap_or_default().fill(number as u32);
    }
    Some(index)
}

/// Three quarters of the memory that this machine has left.
pub fn available() -> u64 {
    let text = read_start(Path::new("/proc/meminfo"), 4096).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.map_or(MAX_COPIED, |kibibytes| kibibytes.saturating_mul(1024) / 4 * 3)
}

/// Follows the lists of specials, all at once, one link at a time.
fn read_specials(runtime: &Runtime, spans: &[Span]) -> Result<Vec<Special>, GoError> {
    let layout = &runtime.layout.special;
    let mut found = Vec::new();
    let mut next: Vec<(u64, u64)> = spans.iter().map(|span| (span.specials, span.base)).collect();
    let mut seen = 0;
    loop {
        next.retain(|(special, _)| *special != 0);
        seen += next.len();
        if next.is_empty() || seen > MAX_SPECIALS {
            return Ok(found);
        }
        let ranges: Vec<(u64, usize)> = next.iter().map(|&(special, _)| (special, SPECIAL_BYTES)).collect();
        let read = runtime
            .memory
            .pieces(&ranges)
            .map_err(|error| runtime.unreadable(error))?;
        for (index, (special, base)) in next.iter_mut().enumerate() {
            let Some(bytes) = read.get(index) else {
                *special = 0;
                continue;
            };
            let address = std::mem::replace(special, word(bytes, layout.next));
            let kind = bytes.get(layout.kind).copied();
            if kind != Some(runtime.layout.kinds.profile) {
                // Two bytes in older versions, a word in newer ones.
                let offset = u64::from(u16_at(bytes, layout.offset).unwrap_or(0));
                let words = bytes.chunks_exact(8).filter_map(|chunk| u64_at(chunk, 0));
                found.push(Special {
                    address,
                    object: base.wrapping_add(offset),
                    is_finalizer: kind == Some(FINALIZER),
                    words: words.skip(1).collect(),
                });
            }
        }
    }
}

#[cfg(test)]
#[path = "heap_tests.rs"]
mod tests;
