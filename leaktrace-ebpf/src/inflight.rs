//! Calls that have been entered and not returned: one per thread, the outermost.

use aya_ebpf::bindings::pt_regs;
use leaktrace_common::{
    blocks::{CALL_SLOTS as CALL_SLOT_COUNT, Call, CallSlot, TAKEN_BLOCK},
    counters::Counter,
};

use crate::{
    atomic,
    counters::bump,
    free,
    maps::{CALL_SLOTS, CALLS},
    regs,
};

/// Room for a call that thread `thread` enters at `probe`, unless it is part of one already in flight.
#[inline(always)]
pub fn begin(ctx: *const pt_regs, thread: u32, probe: u32) -> Option<&'static mut Call> {
    // SAFETY: only the thread itself uses its entry, and the kernel runs one probe of a thread at a time.
    let call = unsafe { &mut *entry(thread)? };
    let stack_pointer = regs::stack_pointer(ctx);
    if call.stack_pointer != 0 {
        if is_nested(call, stack_pointer, probe) {
            bump(Counter::NestedCalls);
            return None;
        }
        bump(Counter::AbandonedCalls);
    }
    call.stack_pointer = stack_pointer;
    call.probe = probe;
    call.taken = 0;
    Some(call)
}

/// The call that has just returned, no longer in flight. Returns of nested calls, where they are seen, give nothing.
#[inline(always)]
pub fn end(ctx: *const pt_regs, thread: u32) -> Option<&'static Call> {
    // SAFETY: as in `begin`.
    let call = unsafe { &mut *own_slot(thread).or_else(|| CALLS.get_ptr_mut(thread))? };
    if call.stack_pointer == 0 || call.stack_pointer != regs::entry_stack_pointer(ctx) {
        return None;
    }
    call.stack_pointer = 0;
    Some(call)
}

/// Forgets the calling thread. What it had in flight has not happened: a block taken out comes back.
#[inline(always)]
pub fn forget(thread: u32) {
    let Some(slot) = slot(thread) else { return };
    // SAFETY: a valid pointer, and the slot is the thread's own until the last store.
    unsafe {
        if (*slot).thread == thread {
            give_back(&(*slot).call);
            (*slot).call.stack_pointer = 0;
            atomic::exchange(&raw mut (*slot).thread, 0);
            return;
        }
    }
    if let Some(call) = CALLS.get_ptr_mut(thread) {
        // SAFETY: only the thread itself uses its entry.
        give_back(unsafe { &*call });
        let _ = CALLS.remove(thread);
    }
}

#[inline(never)]
fn give_back(call: &Call) {
    if call.stack_pointer != 0 && call.taken == TAKEN_BLOCK {
        free::put_back(&call.old_key, &call.old);
    }
}

/// Deeper on the stack means inside the call. At the same depth it is a tail call (`reallocarray` jumps to `realloc`),
/// unless it is the same function again: then the call in flight was left by a long jump.
#[inline(always)]
fn is_nested(call: &Call, stack_pointer: u64, probe: u32) -> bool {
    stack_pointer < call.stack_pointer || (stack_pointer == call.stack_pointer && probe != call.probe)
}

#[inline(always)]
fn entry(thread: u32) -> Option<*mut Call> {
    own_slot(thread).or_else(|| other_entry(thread))
}

/// The call in the thread's slot, if the slot is the thread's.
#[inline(always)]
fn own_slot(thread: u32) -> Option<*mut Call> {
    let slot = slot(thread)?;
    // SAFETY: a valid pointer. Only the thread itself makes the slot its own and gives it up.
    unsafe { ((*slot).thread == thread).then_some(&raw mut (*slot).call) }
}

/// The thread's entry where its slot is not its own, or not yet.
#[inline(never)]
fn other_entry(thread: u32) -> Option<*mut Call> {
    if let Some(call) = CALLS.get_ptr_mut(thread) {
        return Some(call);
    }
    let slot = slot(thread)?;
    // SAFETY: a valid pointer into the table.
    if unsafe { atomic::replace(&raw mut (*slot).thread, 0, thread) } {
        return own_slot(thread);
    }
    if CALLS.insert(thread, Call::default(), 0).is_err() {
        bump(Counter::LostThreadsFull);
    }
    CALLS.get_ptr_mut(thread)
}

#[inline(always)]
fn slot(thread: u32) -> Option<*mut CallSlot> {
    CALL_SLOTS.get_ptr_mut(thread & (CALL_SLOT_COUNT - 1))
}
