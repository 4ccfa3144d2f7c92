//! Totals per site, kept by the kernel side and read by userspace through shared memory.

use crate::plain;

/// Slots for age cohorts in each site.
pub const COHORT_SLOTS: usize = 32;

/// How many cohort labels there are in one trace.
pub const MAX_COHORTS: u32 = 1 << 16;

/// The site of blocks whose stack could not be kept.
pub const OVERFLOW_SITE: u32 = 0;

/// Bytes and blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Amount {
    /// Bytes as requested. Signed, because a block can leave a cohort while that is being merged into another.
    pub bytes: i64,
    /// Blocks.
    pub count: i64,
}
plain!(Amount, 16);

/// One entry of the site table. Every field is only ever changed by atomic additions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SiteTotals {
    /// All that was allocated since the trace began, freed or not.
    pub allocated: Amount,
    /// What is live, by the slot of the cohort it was born in.
    pub live: [Amount; COHORT_SLOTS],
}
plain!(SiteTotals, 16 + 16 * COHORT_SLOTS);

/// Value of the stack index: the site of a stack hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SiteEntry {
    /// Index into the site table.
    pub site: u32,
    /// 1 once userspace has been sent the frames.
    pub sent: u32,
}
plain!(SiteEntry, 8);

/// What both sides share about the session: one entry, in shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SessionState {
    /// Label for blocks born now. Set by userspace.
    pub cohort: u32,
    /// 0 makes every probe return at once. Set by userspace.
    pub recording: u32,
    /// First index of the site table that is not in use. Only added to by the kernel side.
    pub next_site: u32,
    /// Size of the site table. Set by userspace.
    pub site_limit: u32,
    /// Mappings that stacks are unwound by: first entry in the low half, number of entries in the high half; 0 when
    /// there are none. Set by userspace.
    pub unwind_mappings: u64,
    /// Where the first thread's stack began when the program was started; 0 when not known. A frame that lies there
    /// has no caller, whatever its code says. Set by userspace.
    pub stack_start: u64,
    /// The traced process, by its id in the initial namespace: its programs being replaced is told. Set by userspace.
    pub process: u32,
    /// Number of buckets in the near part of the live table, a power of two; 0 when there is no such part. Set by
    /// userspace.
    pub buckets: u32,
    /// Where the process's return probes come back to: what stands in place of a return address while a call is in
    /// flight; 0 when not known yet. Set by the kernel side, when it is first needed.
    pub trampoline: u64,
    /// Where the kernel keeps the return addresses that its probes have replaced. Set by userspace.
    pub kernel: KernelLayout,
    /// How often the process's loader has unmapped code, or is about to. Only added to by the kernel side.
    pub code_removed: u64,
    /// The value of `code_removed` up to which the mappings in force are right. Set by userspace.
    pub code_followed: u64,
    /// 1 while the loader is mapping code. Set by the kernel side, and by userspace before anything is attached.
    pub code_arriving: u32,
    /// Always zero.
    pub zero: u32,
}
plain!(SessionState, 112);

/// Offsets in bytes of fields in the running kernel's own structures, as its BTF gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KernelLayout {
    /// 1 when all others are known.
    pub known: u32,
    /// `task_struct.utask`
    pub task_uprobes: u32,
    /// `uprobe_task.return_instances`
    pub first_return: u32,
    /// `return_instance.next`
    pub next_return: u32,
    /// `return_instance.stack`: where the return address stood.
    pub return_stack: u32,
    /// `return_instance.orig_ret_vaddr`: the return address that was replaced.
    pub return_address: u32,
    /// `task_struct.mm`, and in it `uprobes_state.xol_area`, and in that `vaddr`: the trampoline.
    pub task_memory: u32,
    /// See `task_memory`.
    pub memory_area: u32,
    /// See `task_memory`.
    pub area_address: u32,
    /// Always zero.
    pub zero: u32,
}
plain!(KernelLayout, 40);
