//! Calls that have been entered and not returned: of each thread the outermost for blocks, and the outermost for
//! mappings.

use aya_ebpf::{bindings::pt_regs, helpers::bpf_probe_read_user};
use leaktrace_common::{
    blocks::{CALL_SLOTS as CALL_SLOT_COUNT, Call, CallSlot, Calls, FREED_BLOCK, TAKEN_BLOCK},
    counters::Counter,
    probes::CallKind,
};

use crate::{
    atomic,
    counters::bump,
    free,
    maps::{CALL_SLOTS, CALLS, PROBES},
    regs, returns,
};

/// Room for a call that thread `thread` enters at `probe`, unless its return is not to be seen: it is part of a call in
/// flight, or a return probe could do harm.
#[inline(always)]
pub fn begin(ctx: *const pt_regs, thread: u32, probe: u32, kind: CallKind) -> Option<&'static mut Call> {
    // SAFETY: only the thread itself uses its entry, and the kernel runs one probe of a thread at a time.
    let calls = unsafe { &mut *entry(thread)? };
    let stack_pointer = regs::stack_pointer(ctx);
    if calls.block.stack_pointer != 0 && !may_pass(&mut calls.block, stack_pointer, probe, false) {
        return None;
    }
    // A mapping call has no block's call inside it; a signal handler that interrupts it may have.
    let is_apart = !kind.is_mapping();
    if calls.mapping.stack_pointer != 0 && !may_pass(&mut calls.mapping, stack_pointer, probe, is_apart) {
        return None;
    }
    let call = if kind.is_mapping() {
        &mut calls.mapping
    } else {
        &mut calls.block
    };
    call.stack_pointer = stack_pointer;
    call.probe = probe;
    call.taken = 0;
    Some(call)
}

/// A call that may throw is in flight: notes how to tell that it still is.
#[inline(always)]
pub fn note_return(call: &mut Call) {
    call.address = return_address(call.stack_pointer);
}

/// The call that may throw and whose `ret` thread `thread` is at, no longer in flight.
#[inline(always)]
pub fn end_at_ret(ctx: *const pt_regs, thread: u32) -> Option<&'static Call> {
    // SAFETY: as in `begin`.
    let call = unsafe { &mut (*own_slot(thread).or_else(|| CALLS.get_ptr_mut(thread))?).block };
    if call.stack_pointer == 0 || call.stack_pointer != regs::stack_pointer(ctx) || !may_throw(call) {
        return None;
    }
    call.stack_pointer = 0;
    Some(call)
}

/// Something is thrown in thread `thread`: a call in flight that may throw has ended by it, unless it catches what is
/// thrown, and then its `ret` will be seen.
#[inline(always)]
pub fn thrown(thread: u32) {
    if let Some(calls) = own_slot(thread).or_else(|| CALLS.get_ptr_mut(thread)) {
        // SAFETY: as in `begin`.
        let call = unsafe { &mut (*calls).block };
        if call.stack_pointer != 0 && may_throw(call) {
            call.address = 0;
        }
    }
}

#[inline(always)]
fn may_throw(call: &Call) -> bool {
    PROBES.get(call.probe).is_some_and(|spec| spec.may_throw != 0)
}

/// What stands at a stack pointer.
#[inline(always)]
fn return_address(stack_pointer: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(stack_pointer as *const u64) }.unwrap_or(0)
}

/// The call that has just returned, no longer in flight. Returns of nested calls, where they are seen, give nothing.
#[inline(always)]
pub fn end(ctx: *const pt_regs, thread: u32, kind: CallKind) -> Option<&'static Call> {
    // SAFETY: as in `begin`.
    let calls = unsafe { &mut *own_slot(thread).or_else(|| CALLS.get_ptr_mut(thread))? };
    let call = if kind.is_mapping() {
        &mut calls.mapping
    } else {
        &mut calls.block
    };
    if call.stack_pointer == 0 || call.stack_pointer != regs::entry_stack_pointer(ctx) {
        return None;
    }
    call.stack_pointer = 0;
    Some(call)
}

/// Whether a call entered at `stack_pointer` stands on its own beside `pending`, which is in flight. Deeper on the stack
/// means inside it. At the same depth it is a tail call (`reallocarray` jumps to `realloc`). A call that was left by a
/// long jump is recognised by what stands where its return address was, and forgotten.
#[inline(always)]
fn may_pass(pending: &mut Call, stack_pointer: u64, probe: u32, is_apart: bool) -> bool {
    let above = stack_pointer > pending.stack_pointer;
    let again = stack_pointer == pending.stack_pointer && probe == pending.probe;
    if is_apart && !above && !again {
        return true;
    }
    if again || !is_alive(pending) {
        let has_thrown = pending.address == 0 && may_throw(pending);
        bump(if has_thrown {
            Counter::FailedCalls
        } else {
            Counter::AbandonedCalls
        });
        pending.stack_pointer = 0;
        return true;
    }
    // Above a call that is alive: another stack. The kernel would take the call below for gone.
    bump(if above {
        Counter::LostOtherStack
    } else {
        Counter::NestedCalls
    });
    false
}

/// Whether the call is still to return: its return address is the trampoline's. Taken as so where that cannot be known.
/// That of a call that may throw is its own, until it is overwritten.
#[inline(always)]
fn is_alive(call: &Call) -> bool {
    stands(call.stack_pointer, call.address, call.probe) != 0
}

/// Exported, so that the verifier looks at it once and by itself, and not again from everywhere that calls it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn stands(stack_pointer: u64, address: u64, probe: u32) -> u32 {
    let found = return_address(stack_pointer);
    if PROBES.get(probe).is_some_and(|spec| spec.may_throw != 0) {
        return u32::from(address != 0 && found == address);
    }
    let trampoline = returns::trampoline();
    u32::from(trampoline == 0 || found == trampoline)
}

/// Forgets the calling thread. What it had in flight has not happened: a block taken out comes back.
#[inline(always)]
pub fn forget(thread: u32) {
    let Some(slot) = slot(thread) else { return };
    // SAFETY: a valid pointer, and the slot is the thread's own until the last store.
    unsafe {
        if (*slot).thread == thread {
            give_back(&(*slot).calls.block);
            (*slot).calls.block.stack_pointer = 0;
            (*slot).calls.mapping.stack_pointer = 0;
            atomic::exchange(&raw mut (*slot).thread, 0);
            return;
        }
    }
    if let Some(calls) = CALLS.get_ptr_mut(thread) {
        // SAFETY: only the thread itself uses its entry.
        give_back(unsafe { &(*calls).block });
        let _ = CALLS.remove(thread);
    }
}

/// Notes the block that `thread` gives back by a function that may call another one for it.
#[inline(never)]
pub fn set_given_back(thread: u32, address: u64) {
    if let Some(calls) = entry(thread) {
        // SAFETY: only the thread itself uses its entry.
        unsafe { (*calls).given_back = address };
    }
}

/// Whether a call of `thread` is giving the block at `address` back already.
#[inline(never)]
pub fn gives_back(thread: u32, address: u64) -> bool {
    let Some(calls) = own_slot(thread).or_else(|| CALLS.get_ptr_mut(thread)) else {
        return false;
    };
    // SAFETY: only the thread itself uses its entry.
    let calls = unsafe { &mut *calls };
    let call = &mut calls.block;
    let resizes = PROBES
        .get(call.probe)
        .is_some_and(|spec| spec.kind == CallKind::Resize as u32);
    if call.stack_pointer != 0 && resizes && call.old_key.address == address {
        // Freed by the call itself: it does not come back if the call fails (`reallocf`).
        if call.taken == TAKEN_BLOCK {
            call.taken = FREED_BLOCK;
        }
        return true;
    }
    core::mem::take(&mut calls.given_back) == address
}

#[inline(never)]
fn give_back(call: &Call) {
    if call.stack_pointer != 0 && call.taken == TAKEN_BLOCK {
        free::put_back(&call.old_key, &call.old);
    }
}

#[inline(always)]
fn entry(thread: u32) -> Option<*mut Calls> {
    own_slot(thread).or_else(|| other_entry(thread))
}

/// The call in the thread's slot, if the slot is the thread's.
#[inline(always)]
fn own_slot(thread: u32) -> Option<*mut Calls> {
    let slot = slot(thread)?;
    // SAFETY: a valid pointer. Only the thread itself makes the slot its own and gives it up.
    unsafe { ((*slot).thread == thread).then_some(&raw mut (*slot).calls) }
}

/// The thread's entry where its slot is not its own, or not yet.
#[inline(never)]
fn other_entry(thread: u32) -> Option<*mut Calls> {
    if let Some(calls) = CALLS.get_ptr_mut(thread) {
        return Some(calls);
    }
    let slot = slot(thread)?;
    // SAFETY: a valid pointer into the table.
    if unsafe { atomic::replace(&raw mut (*slot).thread, 0, thread) } {
        return own_slot(thread);
    }
    if CALLS.insert(thread, Calls::default(), 0).is_err() {
        bump(Counter::LostThreadsFull);
    }
    CALLS.get_ptr_mut(thread)
}

#[inline(always)]
fn slot(thread: u32) -> Option<*mut CallSlot> {
    CALL_SLOTS.get_ptr_mut(thread & (CALL_SLOT_COUNT - 1))
}
