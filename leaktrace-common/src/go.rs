//! What the kernel side tells of Go's heap: spans as they are handed out to be filled with objects, and given back.

use crate::plain;

/// Tag of a [`SpanRecord`] of a span of small objects.
pub const TAG_REFILLED: u32 = 1;
/// Tag of a [`SpanRecord`] of a span that is one large object.
pub const TAG_LARGE: u32 = 2;
/// Tag of an [`UncachedRecord`].
pub const TAG_UNCACHED: u32 = 3;

/// Most bytes of a span's description (`runtime.mspan`): 168 in Go 1.21, fewer in all others known.
pub const MAX_SPAN_BYTES: usize = 192;
/// Words with a bit for each object of a span: there are at most 1,024.
pub const BIT_WORDS: usize = 16;

/// Where the probes find what they tell, in one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GoLayout {
    /// Address of `runtime.mheap_.sweepgen`.
    pub sweep_generation: u64,
    /// Bytes of a `runtime.mspan` that are looked at, at most [`MAX_SPAN_BYTES`].
    pub span_bytes: u32,
    /// Offset of its `allocBits`.
    pub alloc_bits: u32,
    /// Offset of its `nelems`.
    pub objects: u32,
    /// 1 if `nelems` has eight bytes, 0 if it has two.
    pub wide_counts: u32,
    /// Offset of its `allocCount`, of two bytes.
    pub alloc_count: u32,
    /// Always zero.
    pub zero: u32,
}
plain!(GoLayout, 32);

/// A span is handed out: an object at its first free place is allocated next, by the stack of `site`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SpanRecord {
    /// [`TAG_REFILLED`] or [`TAG_LARGE`].
    pub tag: u32,
    /// Process id in the initial namespace.
    pub process: u32,
    /// Index into the site table.
    pub site: u32,
    /// Label of the cohort.
    pub cohort: u32,
    /// The heap's sweep generation at that time.
    pub sweep_generation: u32,
    /// How many of `bits` are filled.
    pub bit_words: u32,
    /// Thread id in the initial namespace.
    pub thread: u32,
    /// Always zero.
    pub zero: u32,
    /// Address of the span's description.
    pub span: u64,
    /// The description.
    pub description: [u8; MAX_SPAN_BYTES],
    /// What `allocBits` points to: of objects from the free index on, a bit that is not set means that the place is
    /// free. Nothing for a large object.
    pub bits: [u64; BIT_WORDS],
}
plain!(SpanRecord, 40 + MAX_SPAN_BYTES + 8 * BIT_WORDS);

/// A span is given back, filled or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UncachedRecord {
    /// [`TAG_UNCACHED`].
    pub tag: u32,
    /// Process id in the initial namespace.
    pub process: u32,
    /// Address of the span's description.
    pub span: u64,
    /// How many of its places are taken.
    pub taken: u64,
    /// Thread id in the initial namespace.
    pub thread: u32,
    /// Always zero.
    pub zero: u32,
}
plain!(UncachedRecord, 32);
