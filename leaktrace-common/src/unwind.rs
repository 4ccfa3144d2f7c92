//! Unwinding by compact tables: their form, and the one step that both sides use to go from a frame to its caller.
//!
//! A *row* says from which address on a *rule* holds. Rows are four bytes and live in pages of 64 KiB of code: the low
//! half is the address within the page, the high half the number of the rule, which is interned for the session. Every
//! page begins with a row of its own. A mapping says which pages hold the rows of a stretch of addresses.
//!
//! x86-64: CFA is the stack pointer of the caller at the call, and the return address lies just below it.

#![expect(
    clippy::inline_always,
    reason = "the verifier sees one function, and follows no references across calls"
)]

use crate::{events::StackEnd, plain};

/// Bits of an address within a page of rows.
pub const PAGE_BITS: u32 = 16;

/// Rows in one element of the row table.
pub const ROWS_PER_ELEMENT: usize = 16;

/// Most mappings of a process that can be unwound by tables.
pub const MAX_MAPPINGS: u32 = 8192;

/// How a rule finds the CFA. Stored in [`Rule::cfa`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CfaKind {
    /// No unwinding information: the code is unknown.
    Gap = 0,
    /// The outermost frame: its return address is undefined.
    End = 1,
    /// Stack pointer + offset.
    StackPointer = 2,
    /// Frame pointer + offset.
    FramePointer = 3,
    /// What is stored at stack pointer + offset, + addend.
    AtStackPointer = 4,
    /// What is stored at frame pointer + offset, + addend: frames that gcc has realigned.
    AtFramePointer = 5,
    /// Stack pointer + 8, and + 8 more from byte `offset` of each 16-byte entry on: the procedure linkage table.
    Plt = 6,
    /// The caller's registers are in the ucontext on the stack.
    Signal = 7,
    /// A rule that has no compact form.
    Unsupported = 8,
}

/// How a rule finds the caller's frame pointer. Stored in [`Rule::frame_pointer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FramePointerKind {
    /// It is unchanged.
    Same = 0,
    /// Stored at CFA + offset.
    AtCfa = 1,
    /// Stored at frame pointer + offset.
    AtFramePointer = 2,
    /// Not known; a caller that needs it cannot be unwound.
    Undefined = 3,
}

/// One way to go from a frame to its caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Rule {
    /// A [`CfaKind`].
    pub cfa: u8,
    /// A [`FramePointerKind`].
    pub frame_pointer: u8,
    /// Always zero.
    pub zero: u16,
    /// Offset in bytes; of [`CfaKind::Plt`], the byte from which the second word is on the stack.
    pub cfa_offset: i32,
    /// Added to what was read, for the kinds that read.
    pub cfa_addend: i32,
    /// Offset in bytes of the stored frame pointer.
    pub frame_pointer_offset: i32,
}
plain!(Rule, 16);

impl Rule {
    /// No unwinding information.
    pub const GAP: Self = Self::bare(CfaKind::Gap);
    /// The outermost frame.
    pub const END: Self = Self::bare(CfaKind::End);
    /// A rule that has no compact form.
    pub const UNSUPPORTED: Self = Self::bare(CfaKind::Unsupported);
    /// A signal frame.
    pub const SIGNAL: Self = Self::bare(CfaKind::Signal);

    /// A rule of a kind that needs no numbers.
    pub const fn bare(cfa: CfaKind) -> Self {
        Self {
            cfa: cfa as u8,
            frame_pointer: 0,
            zero: 0,
            cfa_offset: 0,
            cfa_addend: 0,
            frame_pointer_offset: 0,
        }
    }
}

/// Packs a row: address within its page, and number of its rule.
pub const fn row(low: u16, rule: u16) -> u32 {
    low as u32 | (rule as u32) << 16
}

/// Address of a row within its page.
pub const fn row_low(row: u32) -> u16 {
    row as u16
}

/// Rule of a row.
pub const fn row_rule(row: u32) -> u16 {
    (row >> 16) as u16
}

/// How code of a mapping is unwound. Stored in [`UnwindMapping::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum UnwindKind {
    /// By tables.
    Tables = 0,
    /// By frame pointers, as a guess: code made at run time, or a file without tables.
    Guess = 1,
    /// By tables, and where these have a gap by frame pointers, which the code there keeps: Go.
    FramePointers = 2,
    /// Not code of the program's: where its return probes come back to. What belongs there is the address replaced.
    Trampoline = 3,
}

/// Which rows unwind a stretch of addresses. Sorted by start; stretches do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UnwindMapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Subtracted from an address to get the virtual address within the file that the rows are for.
    pub bias: u64,
    /// First entry of the file's page directory. It has one entry more than pages: where the last page's rows end.
    pub first_page: u32,
    /// Number of pages.
    pub pages: u32,
    /// An [`UnwindKind`].
    pub kind: u32,
    /// Always zero.
    pub zero: u32,
}
plain!(UnwindMapping, 40);

/// The registers that unwinding needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub instruction_pointer: u64,
    /// Stack pointer.
    pub stack_pointer: u64,
    /// Frame pointer.
    pub frame_pointer: u64,
}

/// Memory of the thread being unwound.
pub trait Memory {
    /// The eight bytes at `address`, if they can be read.
    fn word(&mut self, address: u64) -> Option<u64>;
}

/// Offset of the saved registers in a signal frame's ucontext, as the kernel lays it out on x86-64.
const UCONTEXT_RBP: u64 = 40 + 10 * 8;
const UCONTEXT_RSP: u64 = 40 + 15 * 8;
const UCONTEXT_RIP: u64 = 40 + 16 * 8;

/// Goes from a frame to its caller by `rule`, which holds at the frame's address; `low` is the low part of that
/// address. The error says how the walk ends here.
#[inline(always)]
pub fn step(registers: &mut Registers, rule: &Rule, low: u64, memory: &mut impl Memory) -> Result<(), StackEnd> {
    let offset = i64::from(rule.cfa_offset) as u64;
    let stack_pointer = registers.stack_pointer;
    let cfa = match rule.cfa {
        2 => stack_pointer.wrapping_add(offset),
        3 => registers.frame_pointer.wrapping_add(offset),
        4 | 5 => {
            let base = if rule.cfa == 4 {
                stack_pointer
            } else {
                registers.frame_pointer
            };
            let stored = memory.word(base.wrapping_add(offset)).ok_or(StackEnd::Fault)?;
            stored.wrapping_add(i64::from(rule.cfa_addend) as u64)
        }
        6 => stack_pointer
            .wrapping_add(8)
            .wrapping_add(u64::from((low & 15) >= offset) << 3),
        7 => return signal_step(registers, memory),
        0 => return Err(StackEnd::Gap),
        1 => return Err(StackEnd::Whole),
        _ => return Err(StackEnd::Unsupported),
    };
    // The stack must be left towards higher addresses, or a damaged one could be walked in circles.
    if cfa <= stack_pointer {
        return Err(StackEnd::Fault);
    }
    frame_pointer_step(registers, rule, cfa, memory)?;
    registers.instruction_pointer = memory.word(cfa.wrapping_sub(8)).ok_or(StackEnd::Fault)?;
    registers.stack_pointer = cfa;
    Ok(())
}

#[inline(always)]
fn frame_pointer_step(
    registers: &mut Registers,
    rule: &Rule,
    cfa: u64,
    memory: &mut impl Memory,
) -> Result<(), StackEnd> {
    let base = match rule.frame_pointer {
        1 => cfa,
        2 => registers.frame_pointer,
        // Undefined: a caller that uses it ends in a fault rather than somewhere else.
        3 => {
            registers.frame_pointer = 0;
            return Ok(());
        }
        _ => return Ok(()),
    };
    let at = base.wrapping_add(i64::from(rule.frame_pointer_offset) as u64);
    registers.frame_pointer = memory.word(at).ok_or(StackEnd::Fault)?;
    Ok(())
}

/// The interrupted code may have been on another stack, so the stack pointer may go anywhere.
#[inline(always)]
fn signal_step(registers: &mut Registers, memory: &mut impl Memory) -> Result<(), StackEnd> {
    let context = registers.stack_pointer;
    let mut saved = |offset: u64| memory.word(context.wrapping_add(offset)).ok_or(StackEnd::Fault);
    registers.frame_pointer = saved(UCONTEXT_RBP)?;
    registers.stack_pointer = saved(UCONTEXT_RSP)?;
    registers.instruction_pointer = saved(UCONTEXT_RIP)?;
    Ok(())
}

/// Goes from a frame to its caller by frame pointer, which the code may or may not keep.
#[inline(always)]
pub fn frame_pointer_walk(registers: &mut Registers, memory: &mut impl Memory) -> Result<(), StackEnd> {
    if registers.frame_pointer < registers.stack_pointer {
        return Err(StackEnd::Gap);
    }
    kept_frame_pointer_walk(registers, memory)
}

/// Goes from a frame to its caller by frame pointer, which the code keeps. The caller may be on another stack: Go calls
/// C on a stack of the thread's, and leaves the frame pointer as it was.
#[inline(always)]
pub fn kept_frame_pointer_walk(registers: &mut Registers, memory: &mut impl Memory) -> Result<(), StackEnd> {
    let frame = registers.frame_pointer;
    if frame & 7 != 0 {
        return Err(StackEnd::Gap);
    }
    let next = memory.word(frame).ok_or(StackEnd::Fault)?;
    registers.instruction_pointer = memory.word(frame.wrapping_add(8)).ok_or(StackEnd::Fault)?;
    registers.stack_pointer = frame.wrapping_add(16);
    registers.frame_pointer = next;
    Ok(())
}
