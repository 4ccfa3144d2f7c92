//! The program's own mappings and program break. What happened is told to userspace in order, which keeps the ranges:
//! a mapping can go in parts, and the kernel side has no ordered table.

use aya_ebpf::{bindings::pt_regs, helpers::bpf_probe_read_user};
use leaktrace_common::{
    blocks::{Call, TAKEN_RANGE},
    counters::Counter,
    events::{MappingRecord, MappingStep, TAG_MAPPING},
    probes::{CallKind, ProbeSpec},
};

use crate::{
    counters::bump,
    maps::{EVENTS, OWN_CODE},
    regs::{self, Regs},
    stack, totals,
};

const MREMAP_DONTUNMAP: u64 = 4;

/// Whose call it is.
#[derive(Clone, Copy)]
pub struct Caller {
    /// Process id.
    pub process: u32,
    /// Thread id.
    pub thread: u32,
}

/// Whether an allocator of the process made this call for itself: it returns into its code.
#[inline(always)]
pub fn is_own(ctx: *const pt_regs, process: u32) -> bool {
    // SAFETY: the helper checks the address.
    let Ok(return_address) = (unsafe { bpf_probe_read_user(regs::stack_pointer(ctx) as *const u64) }) else {
        return false;
    };
    let own = is_own_code(process, return_address);
    if own {
        bump(Counter::OwnMappings);
    }
    own
}

#[inline(never)]
fn is_own_code(process: u32, address: u64) -> bool {
    // SAFETY: read at once; userspace changes entries only as a whole.
    unsafe { OWN_CODE.get(process) }.is_some_and(|own| own.contains(address))
}

/// A mapping call is entered: notes its arguments, and announces a range that is about to go.
#[inline(always)]
pub fn entered(
    ctx: *const pt_regs,
    caller: Caller,
    kind: CallKind,
    spec: &ProbeSpec,
    arguments: &Regs,
    call: &mut Call,
) {
    call.size = arguments.argument(spec.size_arg);
    call.address = arguments.argument(spec.pointer_arg);
    match kind {
        CallKind::Unmap => announce(caller, call, call.address, call.size),
        // mremap(old, old_size, new_size, flags, new)
        CallKind::Remap if arguments.argument(4) & MREMAP_DONTUNMAP == 0 => {
            announce(caller, call, call.address, arguments.argument(2));
        }
        // brk(new): the new break is what is kept as the size.
        CallKind::SetBreak => {
            call.size = call.address;
            let variable = regs::instruction_pointer(ctx).wrapping_add(spec.break_variable as u64);
            // SAFETY: the helper checks the address.
            call.address = unsafe { bpf_probe_read_user(variable as *const u64) }.unwrap_or(0);
        }
        _ => {}
    }
}

/// A mapping call has returned.
#[inline(always)]
pub fn returned(ctx: *const pt_regs, caller: Caller, kind: CallKind, call: &Call) {
    let result = regs::returned(ctx);
    let failed = result as i64 == -1 || (kind == CallKind::SetBreak && result as u32 != 0);
    if failed {
        bump(Counter::FailedCalls);
    }
    if call.taken != 0 {
        tell(
            caller,
            if failed {
                MappingStep::Restored
            } else {
                MappingStep::Removed
            },
            (0, 0),
            (0, 0),
        );
    }
    if failed {
        return;
    }
    match kind {
        CallKind::Map | CallKind::Remap => added(ctx, caller, call.probe, result, call.size),
        CallKind::SetBreak if call.address == 0 => bump(Counter::UnknownBreak),
        CallKind::SetBreak => {
            moved_break(
                ctx,
                caller,
                call.probe,
                call.address,
                call.size.wrapping_sub(call.address) as i64,
            );
        }
        CallKind::MoveBreak => moved_break(ctx, caller, call.probe, result, call.size as i64),
        _ => {}
    }
}

#[inline(always)]
fn moved_break(ctx: *const pt_regs, caller: Caller, probe: u32, old: u64, by: i64) {
    if by > 0 {
        added(ctx, caller, probe, old, by as u64);
    } else if by < 0 {
        tell(
            caller,
            MappingStep::Removing,
            (old.wrapping_add(by as u64), by.unsigned_abs()),
            (0, 0),
        );
        tell(caller, MappingStep::Removed, (0, 0), (0, 0));
    }
}

#[inline(always)]
fn announce(caller: Caller, call: &mut Call, address: u64, length: u64) {
    call.taken = TAKEN_RANGE;
    tell(caller, MappingStep::Removing, (address, length), (0, 0));
}

#[inline(always)]
fn added(ctx: *const pt_regs, caller: Caller, probe: u32, address: u64, length: u64) {
    let site = stack::site(&regs::frame(ctx), caller.process, probe);
    tell(caller, MappingStep::Added, (address, length), (site, totals::cohort()));
}

#[inline(always)]
fn tell(caller: Caller, step: MappingStep, range: (u64, u64), owner: (u32, u32)) {
    send(&MappingRecord {
        tag: TAG_MAPPING,
        process: caller.process,
        thread: caller.thread,
        step: step as u32,
        address: range.0,
        length: range.1,
        site: owner.0,
        cohort: owner.1,
    });
}

#[inline(never)]
fn send(record: &MappingRecord) {
    if EVENTS.output::<MappingRecord>(record, 0).is_err() {
        bump(Counter::LostMappingEvent);
    }
}
