//! Blocks leaving the live table.

use leaktrace_common::{
    blocks::{Block, BlockKey},
    counters::Counter,
    probes::CallKind,
};

use crate::{counters::bump, inflight, live, mapping::Caller, totals};

/// Forgets the block at `address`, which the program is giving back.
///
/// A function of kind [`CallKind::ReleaseThrough`] may hand the address on to another that is probed too, and a resizing
/// call may free the old block by one: they then find nothing, and that is no unmatched free.
#[inline(always)]
pub fn release(caller: &Caller, kind: Option<CallKind>, address: u64) {
    if address == 0 {
        return;
    }
    let key = BlockKey {
        address,
        process: caller.process,
        zero: 0,
    };
    let known = take(&key).is_some() || inflight::gives_back(caller.thread, address);
    if kind == Some(CallKind::ReleaseThrough) {
        inflight::set_given_back(caller.thread, address);
    }
    if !known {
        bump(Counter::UnmatchedFrees);
    }
}

/// Takes a block out of the live table and its totals. Of two threads that try, one succeeds.
#[inline(always)]
pub fn take(key: &BlockKey) -> Option<Block> {
    let block = live::take(key)?;
    totals::leave(&block);
    Some(block)
}

/// Puts a block back that was taken out by a call that then failed.
#[inline(always)]
pub fn put_back(key: &BlockKey, block: &Block) {
    match live::insert(key, block) {
        Ok(()) => totals::enter(block),
        Err(_) => bump(Counter::LostNoMemory),
    }
}
