//! The live table: which blocks are outstanding. Of all tables the one that is changed most.
//!
//! A block is in its bucket of the near part, or, where that had no room, in the far part, a hash table of the kernel's
//! that grows with what is live. The near part costs a fraction: no helper call, no lock, no memory to be had. Every
//! change of hands is one atomic exchange on a block's address, so that of two that try, one succeeds.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::BPF_NOEXIST;
use leaktrace_common::blocks::{BUSY_WAY, Block, BlockKey, Bucket, FREE_WAY, WAYS};

use crate::{
    atomic,
    maps::{LIVE, NEAR, STATE},
};

/// The key is in the table.
pub const EXISTS: i32 = -17;
/// The table is full.
pub const FULL: i32 = -7;

/// Adds a block; otherwise says why not, by the kernel's numbers.
#[inline(always)]
pub fn insert(key: &BlockKey, block: &Block) -> Result<(), i32> {
    let Some(bucket) = bucket(key) else {
        return LIVE.insert(key, block, u64::from(BPF_NOEXIST));
    };
    if is_there(bucket, key) {
        return Err(EXISTS);
    }
    if fill(bucket, key, block) {
        return Ok(());
    }
    insert_far(bucket, key, block)
}

/// Takes a block out. Of two threads that try, one succeeds.
#[inline(always)]
pub fn take(key: &BlockKey) -> Option<Block> {
    let Some(bucket) = bucket(key) else {
        return take_from_hash(key);
    };
    for way in 0..WAYS {
        if holds(bucket, way, key) {
            return empty(bucket, way, key);
        }
    }
    // SAFETY: a valid pointer into the table.
    if unsafe { read_volatile(&raw const (*bucket).elsewhere) } == 0 {
        return None;
    }
    take_far(bucket, key)
}

/// The bucket of a key; nothing when there is no near part, or it has no room for such a key.
#[inline(always)]
fn bucket(key: &BlockKey) -> Option<*mut Bucket> {
    let state = STATE.get_ptr(0)?;
    // SAFETY: a valid pointer; set before the first probe.
    let buckets = unsafe { (*state).buckets };
    if buckets == 0 || key.address <= BUSY_WAY {
        return None;
    }
    let mixed = (key.address ^ u64::from(key.process) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    NEAR.get_ptr_mut((mixed >> 32) as u32 & (buckets - 1))
}

#[inline(always)]
fn is_there(bucket: *mut Bucket, key: &BlockKey) -> bool {
    for way in 0..WAYS {
        if holds(bucket, way, key) {
            return true;
        }
    }
    // SAFETY: a valid pointer into the table.
    unsafe { read_volatile(&raw const (*bucket).elsewhere) != 0 && LIVE.get(key).is_some() }
}

#[inline(always)]
fn holds(bucket: *mut Bucket, way: usize, key: &BlockKey) -> bool {
    // SAFETY: a valid pointer into the table, and a way that it has.
    unsafe { read_volatile(address(bucket, way)) == key.address && (*bucket).processes[way] == key.process }
}

/// Puts a block into the first free way, if there is one.
#[inline(always)]
fn fill(bucket: *mut Bucket, key: &BlockKey, block: &Block) -> bool {
    for way in 0..WAYS {
        let address = address(bucket, way);
        // SAFETY: a valid pointer into the table, and a way that it has, which is ours while it is busy.
        unsafe {
            if read_volatile(address) == FREE_WAY && atomic::replace(address, FREE_WAY, BUSY_WAY) {
                (*bucket).processes[way] = key.process;
                (*bucket).blocks[way] = *block;
                atomic::exchange(address, key.address);
                return true;
            }
        }
    }
    false
}

#[inline(always)]
fn empty(bucket: *mut Bucket, way: usize, key: &BlockKey) -> Option<Block> {
    let address = address(bucket, way);
    // SAFETY: as in `fill`.
    unsafe {
        if !atomic::replace(address, key.address, BUSY_WAY) {
            return None;
        }
        let block = (*bucket).blocks[way];
        write_volatile(address, FREE_WAY);
        Some(block)
    }
}

#[inline(always)]
fn address(bucket: *mut Bucket, way: usize) -> *mut u64 {
    // SAFETY: a way that the bucket has.
    unsafe { (&raw mut (*bucket).addresses).cast::<u64>().add(way) }
}

/// Counted first, so that whoever looks for the block looks there.
#[inline(never)]
fn insert_far(bucket: *mut Bucket, key: &BlockKey, block: &Block) -> Result<(), i32> {
    // SAFETY: a valid pointer into the table.
    unsafe { atomic::add(&raw mut (*bucket).elsewhere, 1) };
    let inserted = LIVE.insert(key, block, u64::from(BPF_NOEXIST));
    if inserted.is_err() {
        // SAFETY: as above.
        unsafe { atomic::add(&raw mut (*bucket).elsewhere, u32::MAX) };
    }
    inserted
}

#[inline(never)]
fn take_far(bucket: *mut Bucket, key: &BlockKey) -> Option<Block> {
    let block = take_from_hash(key)?;
    // SAFETY: a valid pointer into the table. One less, for there is no subtraction.
    unsafe { atomic::add(&raw mut (*bucket).elsewhere, u32::MAX) };
    Some(block)
}

#[inline(always)]
fn take_from_hash(key: &BlockKey) -> Option<Block> {
    // SAFETY: the value is copied at once; an entry freed meanwhile stays readable until the program ends.
    let block = *unsafe { LIVE.get(key) }?;
    LIVE.remove(key).ok()?;
    Some(block)
}
