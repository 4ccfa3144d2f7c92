//! Walking a stack: fills a record with return addresses, innermost first, and says how the walk ended.
//!
//! Frame by frame by the tables (`tables`), reading the stack through a window (`window`). Code without tables is
//! walked by frame pointers, and the stack is marked as guessed.

mod tables;
mod window;

use core::ffi::c_void;

use aya_ebpf::{bindings::pt_regs, helpers::generated::bpf_loop};
use leaktrace_common::{
    events::{MAX_FRAMES, StackEnd},
    unwind::{CfaKind, Registers, UnwindKind, frame_pointer_walk, step},
};

use crate::{
    maps::{SCRATCH, Scratch},
    regs,
};

pub use window::Window;

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
    /// Frames so far.
    pub count: u32,
    /// The stack.
    pub window: Window,
}

/// Walks the stack of a thread that has just returned from a probed call, whose caller is thus the first frame.
/// Fills the record of scratch buffer `slot`, and returns a hash of the frames.
#[inline(always)]
pub fn walk(ctx: *const pt_regs, scratch: *mut Scratch, slot: u32, seed: u64) -> u64 {
    begin(ctx, scratch, seed);
    let mut slot = slot;
    // SAFETY: the callback has the signature that the helper asks for, and gets a pointer to our stack.
    unsafe { bpf_loop(MAX_FRAMES as u32, next_frame as *mut c_void, (&raw mut slot).cast(), 0) };
    // SAFETY: the busy flag makes the buffer ours. Each round has taken a reference of its own to it, so that none may
    // be held here across the loop: the compiler would take what it wrote before for what is there now.
    unsafe {
        (*scratch).record.frame_count = core::ptr::read_volatile(&raw const (*scratch).walk.count);
        core::ptr::read_volatile(&raw const (*scratch).walk.hash)
    }
}

#[inline(always)]
fn begin(ctx: *const pt_regs, scratch: *mut Scratch, seed: u64) {
    // SAFETY: the busy flag makes the buffer ours.
    let scratch = unsafe { &mut *scratch };
    let walk = &mut scratch.walk;
    walk.registers = Registers {
        instruction_pointer: regs::instruction_pointer(ctx),
        stack_pointer: regs::stack_pointer(ctx),
        frame_pointer: regs::frame_pointer(ctx),
    };
    walk.hash = seed;
    walk.mapping = 0;
    walk.exact = 0;
    walk.guessed = 0;
    walk.count = 0;
    walk.window.clear();
    scratch.record.end = StackEnd::TooDeep as u32;
}

/// One round of the loop: 1 ends it.
unsafe extern "C" fn next_frame(_round: u64, slot: *mut c_void) -> i64 {
    // SAFETY: the pointer that `walk` passed.
    let Some(scratch) = SCRATCH.get_ptr_mut(unsafe { *slot.cast::<u32>() }) else {
        return 1;
    };
    // SAFETY: the busy flag makes the buffer ours.
    let scratch = unsafe { &mut *scratch };
    keep_frame(scratch);
    match to_caller(&mut scratch.walk) {
        Ok(()) => 0,
        Err(end) => {
            scratch.record.end = end_of(&scratch.walk, end) as u32;
            1
        }
    }
}

#[inline(always)]
fn keep_frame(scratch: &mut Scratch) {
    let address = scratch.walk.registers.instruction_pointer;
    let index = scratch.walk.count as usize & MAX_FRAMES;
    if index < MAX_FRAMES {
        // SAFETY: within the array, as checked.
        unsafe { *scratch.record.frames.as_mut_ptr().add(index) = address };
    }
    scratch.walk.hash = mix(scratch.walk.hash, address);
    scratch.walk.count += 1;
}

#[inline(always)]
fn to_caller(walk: &mut Walk) -> Result<(), StackEnd> {
    let exact = core::mem::replace(&mut walk.exact, 0);
    let address = walk.registers.instruction_pointer.wrapping_sub(u64::from(exact == 0));
    let Some(mapping) = tables::mapping(walk, address) else {
        return guess(walk);
    };
    if mapping.kind != UnwindKind::Tables as u32 {
        return guess(walk);
    }
    let virtual_address = address.wrapping_sub(mapping.bias);
    let Some(rule) = tables::rule(walk, mapping, virtual_address) else {
        return guess(walk);
    };
    if rule.cfa == CfaKind::Gap as u8 {
        return guess(walk);
    }
    walk.exact = u32::from(rule.cfa == CfaKind::Signal as u8);
    let mut registers = walk.registers;
    step(&mut registers, rule, virtual_address, &mut walk.window)?;
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
    let mut registers = walk.registers;
    frame_pointer_walk(&mut registers, &mut walk.window)?;
    walk.registers = registers;
    if tables::any() && tables::mapping(walk, registers.instruction_pointer).is_none() {
        return Err(StackEnd::Gap);
    }
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
