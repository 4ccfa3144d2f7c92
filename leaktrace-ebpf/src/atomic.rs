//! Atomic changes to map values. `core`'s atomics have none for this target, so the compiler's own are used.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

/// A number that can be added to and exchanged atomically.
pub trait Number: Copy {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for i64 {}

/// Adds, and returns what was there before.
///
/// # Safety
/// `target` must point into a map value and be aligned.
#[inline(always)]
pub unsafe fn add<T: Number>(target: *mut T, amount: T) -> T {
    // SAFETY: as promised by the caller.
    unsafe { atomic_xadd::<T, T, { AtomicOrdering::SeqCst }>(target, amount) }
}

/// Stores, and returns what was there before.
///
/// # Safety
/// `target` must point into a map value and be aligned.
#[inline(always)]
pub unsafe fn exchange<T: Number>(target: *mut T, value: T) -> T {
    // SAFETY: as promised by the caller.
    unsafe { atomic_xchg::<T, { AtomicOrdering::SeqCst }>(target, value) }
}

/// Stores `new` if what is there is `old`, and says whether it was.
///
/// # Safety
/// `target` must point into a map value and be aligned.
#[inline(always)]
pub unsafe fn replace<T: Number>(target: *mut T, old: T, new: T) -> bool {
    // SAFETY: as promised by the caller.
    unsafe { atomic_cxchg::<T, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(target, old, new).1 }
}
