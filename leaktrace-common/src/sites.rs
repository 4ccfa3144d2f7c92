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
    /// flight; 0 when not known yet. Set by userspace.
    pub trampoline: u64,
}
plain!(SessionState, 48);
