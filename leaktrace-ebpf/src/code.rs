//! The dynamic loader mapping and unmapping code. It calls a function of its own for debuggers, before and after, which is
//! probed: from the moment that code may go, stacks are marked, until userspace has looked at what is mapped.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{bindings::pt_regs, helpers::bpf_probe_read_user};
use leaktrace_common::{events::ProcessStep, probes::ProbeSpec, sites::SessionState};

use crate::{atomic, maps::STATE, process, regs};

/// What `r_debug.r_state` of the loader says (link.h). The third, that code is about to go, needs no name: it is what is
/// assumed of all that is not known to be an arrival.
const CONSISTENT: u32 = 0;
const ADDING: u32 = 1;

/// The loader has called its function. Loads of all threads are one after the other, under the loader's lock.
#[inline(always)]
pub fn changed(ctx: *const pt_regs, spec: &ProbeSpec, process: u32, thread: u32) {
    let Some(state) = STATE.get_ptr_mut(0) else { return };
    let variable = regs::instruction_pointer(ctx).wrapping_add(spec.break_variable as u64);
    // SAFETY: the helper checks the address; a valid pointer to shared memory.
    unsafe {
        let doing = bpf_probe_read_user(variable as *const u32);
        let arriving = read_volatile(&raw const (*state).code_arriving) != 0;
        match doing {
            Ok(ADDING) => write_volatile(&raw mut (*state).code_arriving, 1),
            Ok(CONSISTENT) if arriving => write_volatile(&raw mut (*state).code_arriving, 0),
            _ => {
                write_volatile(&raw mut (*state).code_arriving, 0);
                atomic::add(&raw mut (*state).code_removed, 1);
            }
        }
    }
    process::tell(ProcessStep::CodeChanged, process, thread);
}

/// How often code was removed so far, and whether the tables take that into account.
#[inline(always)]
pub fn removals() -> (u64, bool) {
    match STATE.get_ptr(0) {
        // SAFETY: a valid pointer to shared memory.
        Some(state) => unsafe { read(state) },
        None => (0, true),
    }
}

#[inline(always)]
unsafe fn read(state: *const SessionState) -> (u64, bool) {
    // SAFETY: as promised by the caller.
    unsafe {
        let removed = read_volatile(&raw const (*state).code_removed);
        (removed, removed == read_volatile(&raw const (*state).code_followed))
    }
}
