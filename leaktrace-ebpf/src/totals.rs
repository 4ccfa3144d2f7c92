//! Per-site totals: every change is an atomic addition, so that userspace can read and add at any time.

use leaktrace_common::{
    blocks::Block,
    sites::{Amount, COHORT_SLOTS},
};

use crate::{
    atomic,
    maps::{COHORTS, SITES, STATE},
};

/// Counts a block that was born.
#[inline(always)]
pub fn born(block: &Block) {
    let Some(site) = SITES.get_ptr_mut(block.site) else {
        return;
    };
    // SAFETY: the kernel gave a valid pointer to the site's totals.
    unsafe { add(&raw mut (*site).allocated, block.size as i64, 1) };
    enter(block);
}

/// Counts a block as live in its cohort.
#[inline(always)]
pub fn enter(block: &Block) {
    change(block, block.size as i64, 1);
}

/// Counts a block as no longer live.
#[inline(always)]
pub fn leave(block: &Block) {
    change(block, -(block.size as i64), -1);
}

/// Label for blocks born now.
#[inline(always)]
pub fn cohort() -> u32 {
    match STATE.get_ptr(0) {
        // SAFETY: a valid pointer; userspace changes the label at any time, hence volatile.
        Some(state) => unsafe { core::ptr::read_volatile(&raw const (*state).cohort) },
        None => 0,
    }
}

#[inline(always)]
fn change(block: &Block, bytes: i64, count: i64) {
    let (Some(site), Some(slot)) = (SITES.get_ptr_mut(block.site), COHORTS.get(block.cohort)) else {
        return;
    };
    let slot = (*slot as usize) & (COHORT_SLOTS - 1);
    // SAFETY: a valid pointer, and the slot is masked to the array's length.
    unsafe { add((&raw mut (*site).live).cast::<Amount>().add(slot), bytes, count) };
}

/// # Safety
/// `amount` must point into a map value.
#[inline(always)]
unsafe fn add(amount: *mut Amount, bytes: i64, count: i64) {
    // SAFETY: as promised by the caller; both fields are aligned to eight bytes.
    unsafe {
        atomic::add(&raw mut (*amount).bytes, bytes);
        atomic::add(&raw mut (*amount).count, count);
    }
}
