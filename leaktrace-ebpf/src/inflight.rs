//! Calls that have been entered and not returned: one per thread, the outermost.

use aya_ebpf::bindings::pt_regs;
use leaktrace_common::{blocks::Call, counters::Counter};

use crate::{counters::bump, maps::CALLS, regs};

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
    let call = unsafe { &mut *CALLS.get_ptr_mut(thread)? };
    if call.stack_pointer == 0 || call.stack_pointer != regs::entry_stack_pointer(ctx) {
        return None;
    }
    call.stack_pointer = 0;
    Some(call)
}

/// Deeper on the stack means inside the call. At the same depth it is a tail call (`reallocarray` jumps to `realloc`),
/// unless it is the same function again: then the call in flight was left by a long jump.
#[inline(always)]
fn is_nested(call: &Call, stack_pointer: u64, probe: u32) -> bool {
    stack_pointer < call.stack_pointer || (stack_pointer == call.stack_pointer && probe != call.probe)
}

#[inline(always)]
fn entry(thread: u32) -> Option<*mut Call> {
    if let Some(call) = CALLS.get_ptr_mut(thread) {
        return Some(call);
    }
    new_entry(thread)
}

#[inline(never)]
fn new_entry(thread: u32) -> Option<*mut Call> {
    if CALLS.insert(thread, Call::default(), 0).is_err() {
        bump(Counter::LostThreadsFull);
    }
    CALLS.get_ptr_mut(thread)
}
