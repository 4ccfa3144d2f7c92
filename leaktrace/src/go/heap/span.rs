//! A span: a run of pages with objects of one size (`runtime.mspan`), as it is described in the process's memory. Pure.

use super::{IN_USE, PAGE};
use crate::go::bytes::{u16_at, u32_at, u64_at};
use crate::go::layout;

/// Most objects of a span: 8 KiB of objects of eight bytes.
const MAX_OBJECTS: u64 = 1024;
/// Where a process's addresses end.
const MAX_ADDRESS: u64 = 1 << 48;

/// A span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub base: u64,
    /// Bytes of all pages.
    pub bytes: u64,
    /// Bytes of an object.
    pub object_size: u64,
    /// Number of the size, and whether the objects can hold pointers (`runtime.spanClass`).
    pub class: u8,
    /// How many objects there is room for.
    pub objects: u64,
    /// Places below this one are taken.
    pub free_index: u64,
    /// How many places are taken (`allocCount`).
    pub taken: u64,
    /// Tells how far the sweeper has come with it, against that of the heap.
    pub sweep_generation: u32,
    /// Address of the bits of the places that were live at the last sweep.
    pub alloc_bits: u64,
    /// Address of the bits of the objects marked since.
    pub mark_bits: u64,
}

impl Span {
    /// Reads a description; nothing if the span holds no objects, or makes no sense.
    pub fn parse(layout: &layout::Span, bytes: &[u8]) -> Option<Self> {
        let count = |at| {
            if layout.wide_counts {
                u64_at(bytes, at)
            } else {
                u16_at(bytes, at).map(u64::from)
            }
        };
        let span = Self {
            base: u64_at(bytes, layout.start_addr)?,
            bytes: u64_at(bytes, layout.npages)?.checked_mul(PAGE)?,
            object_size: u64_at(bytes, layout.elemsize)?,
            class: *bytes.get(layout.spanclass)?,
            objects: count(layout.nelems)?,
            free_index: count(layout.freeindex)?,
            taken: u64::from(u16_at(bytes, layout.alloc_count)?),
            sweep_generation: u32_at(bytes, layout.sweepgen)?,
            alloc_bits: u64_at(bytes, layout.alloc_bits)?,
            mark_bits: u64_at(bytes, layout.mark_bits)?,
        };
        let in_use = *bytes.get(layout.state)? == IN_USE;
        (in_use && span.makes_sense()).then_some(span)
    }

    fn makes_sense(&self) -> bool {
        let objects = self.objects.checked_mul(self.object_size);
        let fits = objects.is_some_and(|bytes| bytes <= self.bytes);
        self.base.is_multiple_of(PAGE)
            && self.object_size > 0
            && (1..=MAX_OBJECTS).contains(&self.objects)
            && self.bytes > 0
            && self.base.checked_add(self.bytes).is_some_and(|end| end <= MAX_ADDRESS)
            && fits
    }

    /// Its address range.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.base..self.base.saturating_add(self.bytes)
    }

    /// Whether it is the same, and in the same state of sweeping.
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |span: &Self| (span.base, span.bytes, span.object_size, span.sweep_generation);
        key(self) == key(other)
    }
}
