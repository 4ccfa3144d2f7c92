//! Blocks leaving the live table.

use leaktrace_common::{
    blocks::{Block, BlockKey},
    counters::Counter,
};

use crate::{counters::bump, live, totals};

/// Forgets the block at `address`, which the program is giving back.
#[inline(always)]
pub fn release(process: u32, address: u64) {
    if address != 0
        && take(&BlockKey {
            address,
            process,
            zero: 0,
        })
        .is_none()
    {
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
