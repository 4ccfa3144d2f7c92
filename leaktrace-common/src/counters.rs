//! Everything that is counted: the kernel side adds, userspace shows.

/// Indices into the counter table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Counter {
    /// Frees of addresses that are not in the live table: blocks from before the attach, mostly.
    UnmatchedFrees = 0,
    /// Calls that returned failure.
    FailedCalls,
    /// Calls made from inside another traced call: part of that one.
    NestedCalls,
    /// Mapping calls that the library made for itself (thread stacks, arenas): not the program's.
    OwnMappings,
    /// Lost: the live table was full.
    LostTableFull,
    /// Bytes of those.
    LostTableFullBytes,
    /// Lost: the kernel had no memory for an entry.
    LostNoMemory,
    /// Stacks not kept, as the site table was full: the blocks are counted under [`crate::sites::OVERFLOW_SITE`].
    LostSitesFull,
    /// Lost: a mapping event found no room in the ring buffer.
    LostMappingEvent,
    /// Put off: a stack found no room in the ring buffer and is sent again next time.
    DeferredStacks,
    /// Stacks not walked for want of scratch space: counted under the same site.
    LostScratch,
    /// Lost: the table of threads was full.
    LostThreadsFull,
    /// A live block's address was returned again: its free was not seen.
    MissedFrees,
    /// A call that never returned (`longjmp` from a signal handler): forgotten.
    AbandonedCalls,
    /// A break call whose old break is unknown.
    UnknownBreak,
    /// Lost: a process event found no room in the ring buffer.
    LostProcessEvent,
    /// Lost: calls made on another stack, above the one with a call in flight, as by a signal handler. A return probe
    /// there would make the kernel forget the one below, and kill the process.
    LostOtherStack,
    /// Lost: a result the caller asked to be stored could not be read.
    LostUnreadable,
    /// Lost: a span of Go's heap was handed out or given back, and could not be read or told.
    LostSpans,
}

/// Size of the counter table.
pub const COUNTERS: u32 = 32;
