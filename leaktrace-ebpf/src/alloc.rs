//! Blocks entering the live table.

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_log_ebpf::debug;
use leaktrace_common::{
    blocks::{Block, BlockKey, Call, TAKEN_BLOCK},
    counters::Counter,
    probes::{CallKind, ProbeSpec},
    unwind::Registers,
};

use crate::{
    counters::{add, bump},
    free, live,
    regs::Regs,
    stack, totals,
};

/// How a call has ended.
pub struct Ended {
    /// What it returns.
    pub value: u64,
    /// The frame it returns to.
    pub caller: Registers,
}

/// An allocating or resizing call is entered: notes its arguments, and takes the block out that is being resized.
#[inline(always)]
pub fn entered(process: u32, kind: CallKind, spec: &ProbeSpec, arguments: &Regs, call: &mut Call) {
    call.size = arguments.argument(spec.size_arg);
    if kind == CallKind::ResizeInPlace {
        call.address = call.size.saturating_add(arguments.argument(spec.count_arg));
    } else if spec.count_arg != 0 {
        call.size = product(call.size, arguments.argument(spec.count_arg));
    }
    call.out = arguments.argument(spec.out_arg);
    if matches!(kind, CallKind::Resize | CallKind::ResizeInPlace) {
        take_old(process, arguments.argument(spec.pointer_arg), call);
    }
}

/// A product that overflows makes the call fail; it must not read as 0, which makes `realloc` a free.
#[inline(always)]
fn product(a: u64, b: u64) -> u64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    // In halves: this machine has no multiplication to 128 bits.
    let low = (large & 0xffff_ffff).wrapping_mul(small);
    let high = (large >> 32).wrapping_mul(small).wrapping_add(low >> 32);
    if small >> 32 != 0 || high >> 32 != 0 {
        u64::MAX
    } else {
        a.wrapping_mul(b)
    }
}

#[inline(always)]
fn take_old(process: u32, address: u64, call: &mut Call) {
    call.old_key = BlockKey {
        address,
        process,
        zero: 0,
    };
    if address != 0
        && let Some(old) = free::take(&call.old_key)
    {
        call.old = old;
        call.taken = TAKEN_BLOCK;
    }
}

/// An allocating call has returned: its block, if it got one, becomes live.
#[inline(always)]
pub fn allocated(end: &Ended, process: u32, call: &Call) {
    match result(end, call) {
        Some(0) => bump(Counter::FailedCalls),
        Some(address) => admit(
            end,
            &BlockKey {
                address,
                process,
                zero: 0,
            },
            call,
            call.size,
        ),
        None => bump(Counter::LostUnreadable),
    }
}

/// A resizing call has returned: the old block is put back if it failed. `realloc(p, 0)` that returns nothing freed it.
#[inline(always)]
pub fn resized(end: &Ended, process: u32, call: &Call) {
    let address = end.value;
    if address == 0 && call.size != 0 {
        bump(Counter::FailedCalls);
        if call.taken == TAKEN_BLOCK {
            free::put_back(&call.old_key, &call.old);
        }
        return;
    }
    if call.taken == 0 && call.old_key.address != 0 {
        bump(Counter::UnmatchedFrees);
    }
    if address != 0 {
        admit(
            end,
            &BlockKey {
                address,
                process,
                zero: 0,
            },
            call,
            call.size,
        );
    }
}

/// A call has returned that resizes a block where it is. It gave at least the size asked for, or the block is as it
/// was: then the old one is put back.
#[inline(always)]
pub fn resized_in_place(end: &Ended, call: &Call) {
    let size = end.value;
    if size < call.size {
        bump(Counter::FailedCalls);
        if call.taken == TAKEN_BLOCK {
            free::put_back(&call.old_key, &call.old);
        }
        return;
    }
    if call.taken == 0 {
        bump(Counter::UnmatchedFrees);
    }
    admit(end, &call.old_key, call, size.min(call.address));
}

/// Address of the new block; 0 when the call failed, nothing when it cannot be read.
#[inline(always)]
fn result(end: &Ended, call: &Call) -> Option<u64> {
    if call.out == 0 {
        return Some(end.value);
    }
    if end.value as u32 != 0 {
        return Some(0);
    }
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(call.out as *const u64) }.ok()
}

#[inline(always)]
fn admit(end: &Ended, key: &BlockKey, call: &Call, size: u64) {
    let block = Block {
        size,
        site: stack::site(&end.caller, key.process, call.probe),
        cohort: totals::cohort(),
    };
    match live::insert(key, &block) {
        Ok(()) => totals::born(&block),
        Err(live::EXISTS) => replace(key, &block),
        Err(live::FULL) => {
            bump(Counter::LostTableFull);
            add(Counter::LostTableFullBytes, block.size);
        }
        Err(_) => bump(Counter::LostNoMemory),
    }
}

/// The address is live already: its free was not seen.
#[inline(never)]
fn replace(key: &BlockKey, block: &Block) {
    bump(Counter::MissedFrees);
    debug!(&(), "block {:x} is live already: its free was not seen", key.address);
    free::take(key);
    match live::insert(key, block) {
        Ok(()) => totals::born(block),
        Err(_) => bump(Counter::LostNoMemory),
    }
}
