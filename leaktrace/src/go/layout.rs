//! Where the fields of the runtime's structures are, by version of Go. Pure.
//!
//! The numbers in `layouts.json` are those of the debug information of programs built by these versions; a test compares
//! them with it again.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

static LAYOUTS: LazyLock<BTreeMap<u32, Layout>> = LazyLock::new(|| {
    let versions: BTreeMap<String, Layout> = serde_json::from_str(include_str!("layouts.json")).unwrap_or_default();
    let numbered = versions
        .into_iter()
        .filter_map(|(version, layout)| Some((version.strip_prefix("1.")?.parse().ok()?, layout)));
    numbered.collect()
});

/// Offsets of fields, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Layout {
    /// A goroutine (`runtime.g`).
    pub g: G,
    /// What is saved of one that does not run (`runtime.gobuf`).
    pub gobuf: Gobuf,
    /// One that waits for something (`runtime.sudog`).
    pub sudog: Sudog,
    /// A run of pages of the heap (`runtime.mspan`).
    pub mspan: Span,
    /// The heap (`runtime.mheap`).
    pub mheap: Heap,
    /// Something that the runtime knows of an object besides (`runtime.special`): a finalizer, for example.
    pub special: Special,
    /// Numbers that stand for something.
    pub kinds: Kinds,
    /// Counts of the garbage collector (`runtime.mstats`).
    pub mstats: Stats,
    /// 64 MiB of the heap's addresses (`runtime.heapArena`).
    #[serde(rename = "heapArena")]
    pub heap_arena: Arena,
    /// What paces the garbage collector (`runtime.gcControllerState`).
    #[serde(rename = "gcControllerState")]
    pub controller: Controller,
    /// A site of Go's own heap profile (`runtime.bucket`), followed by its stack and four records.
    pub bucket: Bucket,
    /// What one such record says (`runtime.memRecordCycle`).
    #[serde(rename = "memRecordCycle")]
    pub record: Record,
}

/// Offsets in `runtime.g`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct G {
    pub stack: usize,
    pub sched: usize,
    pub syscallsp: usize,
    pub syscallpc: usize,
    /// Since Go 1.23.
    #[serde(default)]
    pub syscallbp: Option<usize>,
    pub atomicstatus: usize,
    pub goid: usize,
    pub waitsince: usize,
    pub waitreason: usize,
    /// Since Go 1.21.
    #[serde(default, rename = "parentGoid")]
    pub parent_goid: Option<usize>,
    pub gopc: usize,
    pub startpc: usize,
    pub waiting: usize,
    pub size: usize,
}

/// Offsets in `runtime.gobuf`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Gobuf {
    pub sp: usize,
    pub pc: usize,
    pub bp: usize,
    pub size: usize,
}

/// Offsets in `runtime.sudog`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Sudog {
    pub g: usize,
    pub next: usize,
    pub prev: usize,
    pub elem: usize,
    pub waitlink: usize,
    pub c: usize,
    pub size: usize,
}

/// Offsets in `runtime.mspan`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Span {
    #[serde(rename = "startAddr")]
    pub start_addr: usize,
    pub npages: usize,
    pub nelems: usize,
    pub elemsize: usize,
    pub spanclass: usize,
    pub state: usize,
    pub specials: usize,
    pub freeindex: usize,
    #[serde(rename = "allocBits")]
    pub alloc_bits: usize,
    #[serde(rename = "gcmarkBits")]
    pub mark_bits: usize,
    pub sweepgen: usize,
    #[serde(rename = "allocCount")]
    pub alloc_count: usize,
    pub size: usize,
    /// Whether `nelems` and `freeindex` have eight bytes each, as before Go 1.22, and not two.
    pub wide_counts: bool,
}

impl Span {
    /// Bytes up to the last field that says what is in a span. Those behind it may not have been touched yet, and lie in
    /// memory that is not there before it is.
    pub fn needed(&self) -> usize {
        let words = [
            self.start_addr,
            self.npages,
            self.nelems,
            self.freeindex,
            self.elemsize,
            self.alloc_bits,
        ];
        let last = words
            .into_iter()
            .chain([self.mark_bits, self.alloc_count, self.sweepgen, self.state])
            .max();
        last.unwrap_or(0) + 8
    }
}

/// Offsets in `runtime.mheap`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Heap {
    pub allspans: usize,
    pub sweepgen: usize,
    pub arenas: usize,
    pub size: usize,
}

/// Offsets in `runtime.special`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Special {
    pub next: usize,
    pub offset: usize,
    pub kind: usize,
    pub size: usize,
}

/// Numbers of the runtime's source (`_KindSpecialProfile`, `memoryLimitHeapGoalHeadroomPercent`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Kinds {
    /// A special that only says that the object is in the heap profile's sample.
    pub profile: u8,
    /// How much of what a memory limit allows the collector leaves free, in hundredths; 0 before it did so.
    pub headroom_percent: u64,
}

/// Offsets in `runtime.mstats`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Stats {
    pub numgc: usize,
    pub last_gc_unix: usize,
    pub pause_total_ns: usize,
    pub pause_ns: usize,
    pub pause_end: usize,
    pub size: usize,
}

/// Offsets in `runtime.heapArena`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Arena {
    pub spans: usize,
    pub size: usize,
}

/// Offsets in `runtime.gcControllerState`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Controller {
    pub memory_limit: usize,
    pub gc_percent_heap_goal: usize,
    pub sweep_dist_min_trigger: usize,
    pub triggered: usize,
    pub last_heap_goal: usize,
    pub heap_live: usize,
    pub heap_marked: usize,
    pub heap_in_use: usize,
    pub heap_released: usize,
    pub heap_free: usize,
    pub total_alloc: usize,
    pub total_free: usize,
    pub mapped_ready: usize,
    pub size: usize,
}

/// Offsets in `runtime.bucket`: its stack begins right behind the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Bucket {
    pub allnext: usize,
    pub typ: usize,
    pub size: usize,
    pub nstk: usize,
}

/// Offsets in `runtime.memRecordCycle`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the runtime's own fields")]
pub struct Record {
    pub allocs: usize,
    pub frees: usize,
    /// Up to Go 1.26; since then the counts times the size of the site.
    #[serde(default)]
    pub alloc_bytes: Option<usize>,
    /// As `alloc_bytes`.
    #[serde(default)]
    pub free_bytes: Option<usize>,
    pub size: usize,
}

/// Where a layout comes from: how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is that of the program's own debug information.
    Debug,
    /// It is the one of the program's version.
    Known,
    /// It is the one of the nearest version that is known: `go1.N`.
    Nearest(u32),
}

impl Source {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug_info",
            Self::Known => "version",
            Self::Nearest(_) => "nearest_version",
        }
    }
}

impl Layout {
    /// The layout of Go 1.`minor`; the nearest that is known if that is not, or the version is not known at all.
    pub fn of(minor: Option<u32>) -> Option<(&'static Self, Source)> {
        let newest = *LAYOUTS.last_key_value()?.0;
        let wanted = minor.unwrap_or(newest);
        let (&nearest, layout) = LAYOUTS.iter().min_by_key(|(known, _)| known.abs_diff(wanted))?;
        let source = if minor == Some(nearest) {
            Source::Known
        } else {
            Source::Nearest(nearest)
        };
        Some((layout, source))
    }

    /// The same as written down, which debug information can be set over.
    pub(super) fn written(minor: Option<u32>) -> Option<serde_json::Value> {
        let versions: serde_json::Value = serde_json::from_str(include_str!("layouts.json")).ok()?;
        let version = match Self::of(minor)?.1 {
            Source::Nearest(nearest) => nearest,
            Source::Known | Source::Debug => minor?,
        };
        versions.get(format!("1.{version}")).cloned()
    }

    /// The versions whose layouts are known, oldest first: `N` of Go 1.N.
    pub fn known() -> impl Iterator<Item = u32> {
        LAYOUTS.keys().copied()
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
