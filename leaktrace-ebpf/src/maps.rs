//! All tables of the kernel side, in one place. Sizes given as 1 are set by userspace before loading.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf, StackTrace},
};
use leaktrace_common::{
    blocks::{Block, BlockKey, Bucket, CALL_SLOTS as CALL_SLOT_COUNT, CallSlot, Calls},
    counters::COUNTERS as COUNTER_COUNT,
    events::StackRecord,
    go::GoLayout,
    probes::{MAX_PROBES, OWN_CODE_PROCESSES, OwnCode, ProbeSpec},
    sites::{MAX_COHORTS, SessionState, SiteEntry, SiteTotals},
    unwind::{MAX_MAPPINGS, ROWS_PER_ELEMENT, Rule, UnwindMapping},
};

use crate::unwind::Walk;

/// Probe specifications by attach cookie.
#[map]
pub static PROBES: Array<ProbeSpec> = Array::with_max_entries(MAX_PROBES, 0);

/// Code of the allocators, by process.
#[map]
pub static OWN_CODE: HashMap<u32, OwnCode> = HashMap::with_max_entries(OWN_CODE_PROCESSES, BPF_F_NO_PREALLOC);

/// Outstanding blocks, the near part: reached without a helper call. Mapped, so that it begins at a page and a bucket
/// at a cache line.
#[map]
pub static NEAR: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Outstanding blocks, the far part: those that found their bucket full. Not preallocated: memory follows what is live.
#[map]
pub static LIVE: HashMap<BlockKey, Block> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Calls in flight, of threads that found their slot free: the low bits of a thread's number say which. Reached
/// without a helper call, which is what a hash table costs most.
#[map]
pub static CALL_SLOTS: Array<CallSlot> = Array::with_max_entries(CALL_SLOT_COUNT, BPF_F_MMAPABLE);

/// Calls in flight of all other threads. Entries outlive the call: an update in place costs half of an insert and a
/// delete.
#[map]
pub static CALLS: HashMap<u32, Calls> = HashMap::with_max_entries(32_768, 0);

/// Site of a stack hash.
#[map]
pub static SITE_INDEX: HashMap<u64, SiteEntry> = HashMap::with_max_entries(1, 0);

/// Totals by site.
#[map]
pub static SITES: Array<SiteTotals> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Slot of a cohort label.
#[map]
pub static COHORTS: Array<u32> = Array::with_max_entries(MAX_COHORTS, BPF_F_MMAPABLE);

/// The session's state.
#[map]
pub static STATE: Array<SessionState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Counters by [`leaktrace_common::counters::Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);

/// Records for userspace.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// Where the probes in Go's runtime find what they tell, by process.
#[map]
pub static GO_LAYOUTS: HashMap<u32, GoLayout> = HashMap::with_max_entries(OWN_CODE_PROCESSES, BPF_F_NO_PREALLOC);

/// Records of Go's heap for userspace, which reads them when many have come or when it wants to know.
#[map]
pub static SPANS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// A buffer to walk a stack in, with the flag that says whether a walk is using it.
#[repr(C)]
pub struct Scratch {
    /// 1 while in use: a walk can be preempted, and another start on the same processor.
    pub busy: u64,
    /// The record being filled.
    pub record: StackRecord,
    /// The walk that fills it.
    pub walk: Walk,
}

/// Buffers per processor.
pub const SCRATCH_SLOTS: u32 = 8;

/// Buffers to walk stacks in.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SCRATCH_SLOTS, 0);

/// Rows of all files, each file's in order of address.
#[map]
pub static UNWIND_ROWS: Array<[u32; ROWS_PER_ELEMENT]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// First row of each page of each file.
#[map]
pub static UNWIND_PAGES: Array<u32> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Rules of the session.
#[map]
pub static UNWIND_RULES: Array<Rule> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Mappings, in two halves: one in force, one being filled.
#[map]
pub static UNWIND_MAPPINGS: Array<UnwindMapping> = Array::with_max_entries(2 * MAX_MAPPINGS, BPF_F_MMAPABLE);

/// For measuring: the stack that the kernel's own helper has walked.
#[map]
pub static KERNEL_STACKS: StackTrace = StackTrace::with_max_entries(1, 0);
