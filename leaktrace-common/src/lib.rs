//! What the kernel side and userspace say to each other.
//!
//! Plain data only: `no_std`, `repr(C)`, no padding (asserted beside each type), so that one side can read what the
//! other wrote byte for byte.
#![no_std]

pub mod blocks;
pub mod counters;
pub mod events;
pub mod go;
pub mod probes;
pub mod sites;
pub mod unwind;

/// Asserts a type's size, and lets aya copy it to and from maps in userspace.
macro_rules! plain {
    ($type:ty, $size:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        // SAFETY: every type given here is `Copy + repr(C)`, made of integers, and its fields fill it: the sizes
        // asserted are the sums of the fields' sizes.
        #[cfg(feature = "userspace")]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use plain;
