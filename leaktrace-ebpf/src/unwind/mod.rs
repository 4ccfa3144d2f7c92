//! Walking a stack: fills a record with return addresses, innermost first, and says how the walk ended.
//!
//! Frame by frame by the tables (`tables`), reading the stack through a window (`window`). Code without tables is
//! walked by frame pointers, and the stack is marked as guessed.

mod tables;
mod window;

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use leaktrace_common::{
    events::{MAX_FRAMES, StackEnd, StackRecord},
    unwind::{
        CfaKind, Memory, Registers, UnwindKind, UnwindMapping, frame_pointer_walk, kept_frame_pointer_walk, step,
    },
};

use crate::{
    code,
    maps::{SCRATCH, Scratch},
    returns,
};

pub use window::Window;

/// Most rounds of a walk: one for each frame, and one for each return address put right, of which the kernel keeps 64.
const MAX_ROUNDS: u32 = MAX_FRAMES as u32 + 1 + 64;

/// Bits of an address of a program on x86-64.
const USER_ADDRESS_BITS: u32 = 47;

/// Where a walk stands. Lives in scratch memory, for the verifier does not follow what is in there: loops over it stay
/// cheap to verify.
#[repr(C)]
pub struct Walk {
    /// Registers of the frame being looked at.
    pub registers: Registers,
    /// Hash of the frames so far.
    pub hash: u64,
    /// Bounds of a search.
    pub low: u32,
    /// Bounds of a search.
    pub high: u32,
    /// Mapping that was hit last.
    pub mapping: u32,
    /// 1 when the instruction pointer is exact and no return address: after a signal frame.
    pub exact: u32,
    /// 1 once a frame was found by guessing.
    pub guessed: u32,
    /// 1 when the frame was found by guessing, and is still to be seen to be code.
    pub doubted: u32,
    /// Frames so far.
    pub count: u32,
    /// 1 when the tables were not known to be those of what was mapped as the walk began.
    pub unsettled: u32,
    /// The stack.
    pub window: Window,
}

/// Walks the stack of a thread from the frame to which a probed call returns.
/// Fills the record of scratch buffer `slot`, and returns a hash of the frames and the end.
#[inline(always)]
pub fn walk(first: &Registers, scratch: *mut Scratch, slot: u32, seed: u64) -> u64 {
    begin(first, scratch, seed);
    walk_stack(slot)
}

/// The walk that is begun in scratch buffer `slot`, to its end. Exported, so that the verifier looks at it once and by
/// itself, and not again from everywhere that calls it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk_stack(slot: u32) -> u64 {
    let mut slot = slot;
    // SAFETY: the callback has the signature that the helper asks for, and gets a pointer to our stack.
    unsafe { bpf_loop(MAX_ROUNDS, next_frame as *mut c_void, (&raw mut slot).cast(), 0) };
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: the busy flag makes the buffer ours. Each round has taken a reference of its own to it, so that none may
    // be held here across the loop: the compiler would take what it wrote before for what is there now.
    unsafe {
        (*scratch).record.frame_count = core::ptr::read_volatile(&raw const (*scratch).walk.count);
        let end = mark_unsettled(&raw mut (*scratch).record, &raw const (*scratch).walk.unsettled);
        mix(core::ptr::read_volatile(&raw const (*scratch).walk.hash), end)
    }
}

/// Marks a stack that was taken while the tables may have been those of other code. Answers what its end adds to the
/// hash: of one that ended in code not known, also when that was, for other code can be there at another time.
///
/// # Safety
/// The record must be ours, and what says whether the walk began unsettled.
#[inline(always)]
unsafe fn mark_unsettled(record: *mut StackRecord, unsettled: *const u32) -> u64 {
    let (removed, followed) = code::removals();
    // SAFETY: as promised by the caller. Volatile, for the loop has filled it.
    unsafe {
        let before = core::ptr::read_volatile(&raw const (*record).code_removed);
        if core::ptr::read_volatile(unsettled) != 0 || !followed || removed != before {
            core::ptr::write_volatile(&raw mut (*record).end, StackEnd::Unsettled as u32);
        }
        let end = core::ptr::read_volatile(&raw const (*record).end);
        let is_known = end != StackEnd::Unsettled as u32 && end != StackEnd::NewCode as u32;
        u64::from(end) | if is_known { 0 } else { before << 8 }
    }
}

#[inline(always)]
fn begin(first: &Registers, scratch: *mut Scratch, seed: u64) {
    // SAFETY: the busy flag makes the buffer ours.
    let scratch = unsafe { &mut *scratch };
    let walk = &mut scratch.walk;
    walk.registers = *first;
    walk.hash = seed;
    walk.mapping = 0;
    walk.exact = 0;
    walk.guessed = 0;
    walk.doubted = 0;
    walk.count = 0;
    walk.window.clear();
    scratch.record.end = StackEnd::TooDeep as u32;
    let (removed, followed) = code::removals();
    walk.unsettled = u32::from(!followed);
    scratch.record.code_removed = removed;
}

/// One round of the loop: 1 ends it.
unsafe extern "C" fn next_frame(_round: u64, slot: *mut c_void) -> i64 {
    // SAFETY: the pointer that `walk` passed.
    let Some(scratch) = SCRATCH.get_ptr_mut(unsafe { *slot.cast::<u32>() }) else {
        return 1;
    };
    // SAFETY: the busy flag makes the buffer ours.
    let scratch = unsafe { &mut *scratch };
    match to_next(scratch) {
        Ok(()) => 0,
        Err(end) => {
            scratch.record.end = end_of(&scratch.walk, end) as u32;
            1
        }
    }
}

/// Keeps a frame and goes to its caller; or puts its address right, for the next round to keep it. The code is looked up
/// in this one place: each search multiplies what the verifier follows.
#[inline(always)]
fn to_next(scratch: &mut Scratch) -> Result<(), StackEnd> {
    let walk = &mut scratch.walk;
    let mapping = tables::mapping(walk, call_address(walk));
    if put_right(walk, mapping) {
        return Ok(());
    }
    if walk.count >= MAX_FRAMES as u32 {
        return Err(StackEnd::TooDeep);
    }
    // What was guessed must at least be code.
    if core::mem::replace(&mut walk.doubted, 0) != 0 && mapping.is_none() && tables::any() {
        return Err(StackEnd::Gap);
    }
    keep_frame(scratch, mapping);
    to_caller(&mut scratch.walk, mapping)
}

/// Whether a return probe had taken the frame's address away, and it has been found again.
#[inline(always)]
fn put_right(walk: &mut Walk, mapping: Option<&UnwindMapping>) -> bool {
    if mapping.is_some_and(|mapping| mapping.kind != UnwindKind::Trampoline as u32) {
        return false;
    }
    let trampoline = returns::trampoline();
    let within = walk.registers.instruction_pointer.wrapping_sub(trampoline);
    if trampoline == 0 || within > returns::TRAMPOLINE_LAST {
        return false;
    }
    // The return address stood just below the caller's stack pointer, which the trampoline has moved.
    let slot = walk
        .registers
        .stack_pointer
        .wrapping_add(returns::pushed(within))
        .wrapping_sub(8);
    let original = if within < returns::TRAMPOLINE_HANDLED {
        returns::original(slot)
    } else {
        walk.window.word(slot).unwrap_or(0)
    };
    walk.registers.instruction_pointer = original;
    walk.registers.stack_pointer = slot.wrapping_add(8);
    walk.exact = 0;
    original != 0
}

/// The address by which a frame's code is looked up: within the call, where the frame's own is a return address.
#[inline(always)]
fn call_address(walk: &Walk) -> u64 {
    let is_return = u64::from(walk.exact == 0);
    walk.registers.instruction_pointer.wrapping_sub(is_return)
}

/// The same address can be that of other code later, so that the file's place in the tables is part of the hash.
#[inline(always)]
fn keep_frame(scratch: &mut Scratch, mapping: Option<&UnwindMapping>) {
    let address = scratch.walk.registers.instruction_pointer;
    let index = scratch.walk.count as usize & MAX_FRAMES;
    if index < MAX_FRAMES {
        // SAFETY: within the array, as checked.
        unsafe { *scratch.record.frames.as_mut_ptr().add(index) = address };
    }
    let file = mapping.map_or(0, |mapping| u64::from(mapping.first_page));
    scratch.walk.hash = mix(scratch.walk.hash, address ^ (file << USER_ADDRESS_BITS));
    scratch.walk.count += 1;
}

#[inline(always)]
fn to_caller(walk: &mut Walk, mapping: Option<&'static UnwindMapping>) -> Result<(), StackEnd> {
    let address = call_address(walk);
    walk.exact = 0;
    let Some(mapping) = mapping else {
        return guess(walk).map_err(|end| {
            if end as u32 == StackEnd::Gap as u32 {
                StackEnd::NewCode
            } else {
                end
            }
        });
    };
    let virtual_address = address.wrapping_sub(mapping.bias);
    let rule = match tables::rule(walk, mapping, virtual_address) {
        Some(rule) if rule.cfa != CfaKind::Gap as u8 => rule,
        _ if mapping.kind == UnwindKind::FramePointers as u32 => return by_frame_pointer(walk),
        _ => return guess(walk),
    };
    walk.exact = u32::from(rule.cfa == CfaKind::Signal as u8);
    let mut registers = walk.registers;
    step(&mut registers, rule, virtual_address, &mut walk.window)?;
    walk.registers = registers;
    no_caller(walk)
}

/// By frame pointer, in code that keeps it. The first frame of a stack finds none.
#[inline(always)]
fn by_frame_pointer(walk: &mut Walk) -> Result<(), StackEnd> {
    if walk.registers.frame_pointer == 0 {
        return Err(StackEnd::Whole);
    }
    walk.doubted = 1;
    let mut registers = walk.registers;
    kept_frame_pointer_walk(&mut registers, &mut walk.window)?;
    walk.registers = registers;
    no_caller(walk)
}

/// By frame pointer, which such code may or may not keep: what it points to must at least be code.
#[inline(always)]
fn guess(walk: &mut Walk) -> Result<(), StackEnd> {
    if tables::is_stack_start(walk.registers.stack_pointer) {
        return Err(StackEnd::Whole);
    }
    if walk.registers.frame_pointer == 0 {
        return Err(if walk.guessed != 0 || !tables::any() {
            StackEnd::Whole
        } else {
            StackEnd::Gap
        });
    }
    walk.guessed = 1;
    walk.doubted = 1;
    let mut registers = walk.registers;
    frame_pointer_walk(&mut registers, &mut walk.window)?;
    walk.registers = registers;
    no_caller(walk)
}

/// A return address of zero ends a stack, as a thread's start routine leaves it.
#[inline(always)]
fn no_caller(walk: &Walk) -> Result<(), StackEnd> {
    if walk.registers.instruction_pointer == 0 {
        Err(StackEnd::Whole)
    } else {
        Ok(())
    }
}

#[inline(always)]
fn end_of(walk: &Walk, end: StackEnd) -> StackEnd {
    if walk.guessed != 0 && end as u32 == StackEnd::Whole as u32 {
        StackEnd::Guessed
    } else {
        end
    }
}

#[inline(always)]
fn mix(hash: u64, address: u64) -> u64 {
    let hash = (hash ^ address).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash ^ (hash >> 29)
}
