//! The live table: what is outstanding, and calls that have not returned yet.

use crate::plain;

/// Key of the live table: the same address in two processes is two blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct BlockKey {
    /// What the allocator returned.
    pub address: u64,
    /// Process id (thread group) in the initial namespace.
    pub process: u32,
    /// Always zero: keys are compared as bytes.
    pub zero: u32,
}
plain!(BlockKey, 16);

/// A live block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Block {
    /// Requested bytes.
    pub size: u64,
    /// Index into the site table.
    pub site: u32,
    /// Label of the cohort it was born in; index into the cohort-slot table.
    pub cohort: u32,
}
plain!(Block, 16);

/// Blocks in one [`Bucket`].
pub const WAYS: usize = 8;

/// An address in a [`Bucket`] that stands for no block: the place is free.
pub const FREE_WAY: u64 = 0;
/// An address in a [`Bucket`] that stands for no block: the place is being filled or emptied.
pub const BUSY_WAY: u64 = 1;

/// Live blocks whose keys hash alike, in the near part of the live table. Addresses come first, a cache line of them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Bucket {
    /// Addresses of blocks, or [`FREE_WAY`], or [`BUSY_WAY`].
    pub addresses: [u64; WAYS],
    /// Their processes.
    pub processes: [u32; WAYS],
    /// How many blocks that belong here are in the far part, there having been no room.
    pub elsewhere: u32,
    /// Always zero: a bucket is as long as four cache lines.
    pub zero: [u32; 7],
    /// The blocks.
    pub blocks: [Block; WAYS],
}
plain!(Bucket, 256);

/// A call that has been entered and not returned, one per thread: the outermost one owns what comes of it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Call {
    /// Stack pointer at entry; 0 when no call is in flight.
    pub stack_pointer: u64,
    /// Requested bytes; of a break call, the argument.
    pub size: u64,
    /// Start of the range of a mapping call, or the old program break; the largest size welcome to a call that resizes
    /// in place; the return address of a call that may throw, or 0 once something has been thrown.
    pub address: u64,
    /// Where the result is stored in the caller's memory; 0 when it is returned.
    pub out: u64,
    /// Index into the probe table.
    pub probe: u32,
    /// What was taken away at entry, to come back if the call fails: [`TAKEN_BLOCK`], [`TAKEN_RANGE`], or, what does
    /// not come back, [`FREED_BLOCK`]; or 0.
    pub taken: u32,
    /// Key of the block taken out at entry, to be put back if the call fails.
    pub old_key: BlockKey,
    /// That block.
    pub old: Block,
}
plain!(Call, 72);

/// [`Call::old`] was taken out of the live table.
pub const TAKEN_BLOCK: u32 = 1;
/// [`Call::old`] was taken out of the live table, and has since been freed by the call.
pub const FREED_BLOCK: u32 = 3;
/// A range was announced as being removed.
pub const TAKEN_RANGE: u32 = 2;

/// The calls that a thread has in flight: at most one for blocks and one for mappings. A signal handler may allocate
/// while the code that it interrupts is in a mapping call.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Calls {
    /// Of the functions that hand out blocks.
    pub block: Call,
    /// Of the functions that change mappings.
    pub mapping: Call,
    /// Address of the block last given back by a function that may call another one to do it.
    pub given_back: u64,
}
plain!(Calls, 152);

/// A thread's place for its calls.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CallSlot {
    /// Whose it is; 0 while it is free.
    pub thread: u32,
    /// Always zero.
    pub zero: u32,
    /// Its calls in flight.
    pub calls: Calls,
}
plain!(CallSlot, 160);

/// Number of call slots, a power of two.
pub const CALL_SLOTS: u32 = 4096;
