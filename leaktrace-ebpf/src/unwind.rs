//! Walking a stack: fills a record with return addresses, innermost first, and says how the walk ended.

use aya_ebpf::{bindings::pt_regs, helpers::bpf_probe_read_user};
use leaktrace_common::events::{MAX_FRAMES, StackEnd, StackRecord};

use crate::regs;

/// Walks the stack of a thread that has just returned from a probed call, whose caller is thus the first frame.
/// Returns a hash of the frames.
#[inline(always)]
pub fn walk(ctx: *const pt_regs, record: &mut StackRecord, seed: u64) -> u64 {
    let mut frame_pointer = regs::frame_pointer(ctx);
    let mut lowest = regs::stack_pointer(ctx);
    let mut hash = mix(seed, regs::instruction_pointer(ctx));
    record.frames[0] = regs::instruction_pointer(ctx);
    record.end = StackEnd::TooDeep as u32;
    let mut count = 1;
    while count < MAX_FRAMES {
        match step(frame_pointer, lowest) {
            Ok((next, address)) => {
                lowest = frame_pointer;
                frame_pointer = next;
                // SAFETY: `count` is below the array's length.
                unsafe { *record.frames.as_mut_ptr().add(count & MAX_FRAMES) = address };
                hash = mix(hash, address);
                count += 1;
            }
            Err(end) => {
                record.end = end as u32;
                break;
            }
        }
    }
    record.frame_count = count as u32;
    hash
}

/// The caller's frame pointer and return address.
#[inline(always)]
fn step(frame_pointer: u64, lowest: u64) -> Result<(u64, u64), StackEnd> {
    if frame_pointer == 0 {
        return Err(StackEnd::Whole);
    }
    if frame_pointer < lowest || frame_pointer & 7 != 0 {
        return Err(StackEnd::Guessed);
    }
    // SAFETY: the helper checks the address.
    let [next, address] =
        unsafe { bpf_probe_read_user(frame_pointer as *const [u64; 2]) }.map_err(|_| StackEnd::Guessed)?;
    if address == 0 {
        Err(StackEnd::Guessed)
    } else {
        Ok((next, address))
    }
}

#[inline(always)]
fn mix(hash: u64, address: u64) -> u64 {
    let hash = (hash ^ address).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash ^ (hash >> 29)
}
