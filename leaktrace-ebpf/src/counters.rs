//! Counting, per processor.

use leaktrace_common::counters::Counter;

use crate::{atomic, maps::COUNTERS};

/// Adds one.
#[inline(always)]
pub fn bump(counter: Counter) {
    add(counter, 1);
}

/// Adds `amount`.
#[inline(always)]
pub fn add(counter: Counter, amount: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the kernel gave a valid pointer. A plain addition could be preempted by another probe's.
        unsafe { atomic::add(value, amount) };
    }
}
