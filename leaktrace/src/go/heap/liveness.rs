//! Which sampled objects are live, by the marks of the process's own garbage collector, while it runs on.
//!
//! A span that was swept since the last collection has the marks of that collection where its allocation bits are; one
//! that was not has them where it collects marks. A mark says that an object was reached, or that it was allocated while
//! marks were made: so an object is called live only if a whole collection lies between.

use std::io;

use super::samples::{Sample, Samples, Verdict};
use super::{PAGE, Span};
use crate::go::bytes::{u32_at, u64_at};
use crate::go::runtime::{GoError, Runtime, word};

/// Bytes of an arena, the first address that an index counts from, and pages of one (`runtime.heapArenaBytes`,
/// `runtime.arenaBaseOffset` on linux/amd64).
const ARENA: u64 = 64 << 20;
const ARENA_BASE: u64 = 0xffff_8000_0000_0000;
const ARENA_PAGES: u64 = ARENA / PAGE;
/// Entries of the table of arenas.
const ARENAS: u64 = 1 << 22;
/// Spans looked at in one go. Few, so that seldom a collection begins meanwhile.
const CHUNK: usize = 4096;
/// How often one is looked at again when a collection has begun meanwhile.
const ATTEMPTS: usize = 4;
/// Objects of these sizes have their marks in the span itself, where the collector is the one called Green Tea
/// (`runtime.gcUsesSpanInlineMarkBits`): in the last bytes of its one page.
const INLINE_SIZES: std::ops::RangeInclusive<u64> = 16..=512;
const INLINE_BYTES: u64 = 128;
const INLINE_MARKS: u64 = 64;

/// Asks the garbage collector's marks.
pub struct Judge<'a> {
    runtime: &'a Runtime,
    heap: u64,
    has_inline_marks: bool,
}

/// What was found where a span is described.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// It could not be read.
    Unreadable,
    /// Nothing that holds objects.
    Unused,
    /// A span.
    Span(Span),
}

/// Samples of one span, by address.
struct Group<'a> {
    base: u64,
    samples: Vec<(u64, &'a Sample)>,
}

impl<'a> Judge<'a> {
    /// One for a runtime whose heap was found.
    pub fn new(runtime: &'a Runtime) -> Result<Self, GoError> {
        Ok(Self {
            runtime,
            heap: runtime.globals.heap.ok_or_else(|| runtime.missing("heap"))?,
            has_inline_marks: runtime.info.has_inline_marks(),
        })
    }

    /// A verdict for each sample that one can be given for now: its address, its number, and what it is. To be believed
    /// of those only that are still there when all has been taken in that the kernel side told until then.
    pub fn judge(&self, samples: &Samples) -> Result<Vec<(u64, u64, Verdict)>, GoError> {
        let groups = groups(samples);
        let mut verdicts = Vec::new();
        for chunk in groups.chunks(CHUNK) {
            for _ in 0..ATTEMPTS {
                let found = self.look(chunk).map_err(|error| self.runtime.unreadable(error))?;
                if let Some(found) = found {
                    verdicts.extend(found);
                    break;
                }
            }
        }
        Ok(verdicts)
    }

    /// How many places are taken of each of these spans, given by the addresses of their descriptions.
    pub fn taken(&self, descriptions: &[u64]) -> Result<Vec<Option<u64>>, GoError> {
        let spans = self.spans(descriptions);
        let spans = spans.map_err(|error| self.runtime.unreadable(error))?;
        Ok(spans.iter().map(|found| Some(found.span()?.taken)).collect())
    }

    /// Nothing if a collection has ended meanwhile.
    fn look(&self, groups: &[Group<'_>]) -> io::Result<Option<Vec<(u64, u64, Verdict)>>> {
        let generation = self.generation()?;
        let bases: Vec<u64> = groups.iter().map(|group| group.base).collect();
        let Some(descriptions) = self.descriptions(&bases)? else {
            return Ok(Some(Vec::new()));
        };
        let spans = self.spans(&descriptions)?;
        let marks = self.marks(&spans, generation)?;
        let again = self.spans(&descriptions)?;
        if self.generation()? != generation {
            return Ok(None);
        }
        let mut verdicts = Vec::new();
        for (((group, found), again), marks) in groups.iter().zip(&spans).zip(&again).zip(&marks) {
            match (found, again) {
                (Found::Span(span), Found::Span(again)) if span.is_same(again) => {
                    verdicts.extend(group.verdicts(span, marks.as_deref(), generation));
                }
                (Found::Unused, Found::Unused) => verdicts.extend(group.all(Verdict::Dead)),
                _ => {}
            }
        }
        Ok(Some(verdicts))
    }

    fn generation(&self) -> io::Result<u32> {
        let address = self.heap.wrapping_add(self.runtime.layout.mheap.sweepgen as u64);
        let bytes = self.runtime.memory.bytes(address, 4)?;
        u32_at(&bytes, 0).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Where the spans are described to which these pages belong; 0 for none. Nothing at all if there is no table.
    fn descriptions(&self, pages: &[u64]) -> io::Result<Option<Vec<u64>>> {
        let (memory, layout) = (self.runtime.memory, &self.runtime.layout);
        let table = memory.word(self.heap.wrapping_add(layout.mheap.arenas as u64))?;
        if table == 0 {
            return Ok(None);
        }
        let arena = |page: u64| page.wrapping_sub(ARENA_BASE) / ARENA;
        let mut arenas: Vec<u64> = pages
            .iter()
            .map(|&page| arena(page))
            .filter(|&at| at < ARENAS)
            .collect();
        arenas.dedup();
        arenas.sort_unstable();
        arenas.dedup();
        let entries: Vec<(u64, usize)> = arenas.iter().map(|at| (table.wrapping_add(8 * at), 8)).collect();
        let entries = memory.pieces(&entries)?;
        let place = |page: u64| {
            let found = arenas.binary_search(&arena(page)).ok()?;
            let start = u64_at(entries.get(found)?, 0).filter(|&start| start != 0)?;
            let index = page.wrapping_sub(ARENA_BASE) / PAGE % ARENA_PAGES;
            Some(start.wrapping_add(layout.heap_arena.spans as u64 + 8 * index))
        };
        // What is not there is asked for where nothing can be read.
        let places: Vec<(u64, usize)> = pages.iter().map(|&page| (place(page).unwrap_or(0), 8)).collect();
        let mut descriptions = vec![0; pages.len()];
        memory.each(&places, |index, bytes| {
            if let (Some(description), Some(bytes)) = (descriptions.get_mut(index), bytes) {
                *description = word(bytes, 0);
            }
        })?;
        Ok(Some(descriptions))
    }

    fn spans(&self, descriptions: &[u64]) -> io::Result<Vec<Found>> {
        let layout = &self.runtime.layout.mspan;
        let ranges: Vec<(u64, usize)> = descriptions.iter().map(|&address| (address, layout.size)).collect();
        let mut spans = vec![Found::Unreadable; ranges.len()];
        self.runtime.memory.each(&ranges, |index, bytes| {
            if let (Some(found), Some(bytes)) = (spans.get_mut(index), bytes) {
                *found = Span::parse(layout, bytes).map_or(Found::Unused, Found::Span);
            }
        })?;
        Ok(spans)
    }

    /// The marks of the last collection, a bit for each object of each span; nothing where they cannot be read.
    fn marks(&self, spans: &[Found], generation: u32) -> io::Result<Vec<Option<Vec<u64>>>> {
        let mut ranges = Vec::new();
        for span in spans.iter().filter_map(|found| found.span()) {
            ranges.push((mark_address(span, generation), 8 * span.objects.div_ceil(64) as usize));
            if self.is_inline(span, generation) {
                let end = span.base + span.bytes;
                ranges.push((end - INLINE_MARKS, INLINE_MARKS as usize));
            }
        }
        let pieces = self.runtime.memory.pieces(&ranges)?;
        let mut next = 0..ranges.len();
        let mut take = || next.next().and_then(|index| pieces.get(index)).map(words);
        let marks = spans.iter().map(|found| {
            let span = found.span()?;
            let marks = take();
            if !self.is_inline(span, generation) {
                return marks;
            }
            let inline = take();
            let both = marks?.into_iter().zip(inline?);
            Some(both.map(|(own, inline)| own | inline).collect())
        });
        Ok(marks.collect())
    }

    fn is_inline(&self, span: &Span, generation: u32) -> bool {
        let has_room = span.objects * span.object_size + INLINE_BYTES <= span.bytes;
        self.has_inline_marks
            && has_room
            && span.bytes == PAGE
            && INLINE_SIZES.contains(&span.object_size)
            && !is_swept(span, generation)
    }
}

impl Found {
    fn span(&self) -> Option<&Span> {
        match self {
            Self::Span(span) => Some(span),
            Self::Unreadable | Self::Unused => None,
        }
    }
}

impl Group<'_> {
    fn all(&self, verdict: Verdict) -> impl Iterator<Item = (u64, u64, Verdict)> {
        self.samples
            .iter()
            .map(move |(address, sample)| (*address, sample.number, verdict))
    }

    fn verdicts(&self, span: &Span, marks: Option<&[u64]>, generation: u32) -> Vec<(u64, u64, Verdict)> {
        let verdict = |address: u64, sample: &Sample| {
            if span.base != sample.base || span.object_size != sample.object_size {
                return Some(Verdict::Dead);
            }
            let index = (address - span.base) / span.object_size;
            let marked = marks?.get((index / 64) as usize)? >> (index % 64) & 1 == 1;
            // Each collection moves the generation by two.
            let collections = generation.wrapping_sub(sample.generation) / 2;
            Some(match (marked, collections) {
                (_, 0) | (true, 1) => Verdict::Young,
                (true, _) => Verdict::Live,
                (false, _) => Verdict::Dead,
            })
        };
        self.samples
            .iter()
            .filter_map(|(address, sample)| Some((*address, sample.number, verdict(*address, sample)?)))
            .collect()
    }
}

/// Samples by span. They come by address, so that those of a span are neighbours.
fn groups(samples: &Samples) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (address, sample) in samples.pending() {
        match groups.last_mut().filter(|group| group.base == sample.base) {
            Some(group) => group.samples.push((address, sample)),
            None => groups.push(Group {
                base: sample.base,
                samples: vec![(address, sample)],
            }),
        }
    }
    groups
}

/// Whether a span was swept since the last collection: then, or while it was handed out (`runtime.mspan.sweepgen`).
fn is_swept(span: &Span, generation: u32) -> bool {
    span.sweep_generation == generation || span.sweep_generation == generation.wrapping_add(3)
}

fn mark_address(span: &Span, generation: u32) -> u64 {
    if is_swept(span, generation) {
        span.alloc_bits
    } else {
        span.mark_bits
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).filter_map(|chunk| u64_at(chunk, 0)).collect()
}
