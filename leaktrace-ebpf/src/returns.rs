//! Return addresses that probes have replaced: where a return probe is pending, the stack holds the trampoline's address,
//! and the kernel the one that belongs there. The only code that reads structures of the kernel's own, by offsets that
//! userspace takes from the kernel's type information.

use core::{
    ffi::c_void,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_get_current_task, bpf_loop},
};
use leaktrace_common::sites::{KernelLayout, SessionState};

use crate::maps::STATE;

/// Most return probes that the kernel lets a thread have pending.
const MAX_PENDING: u32 = 64;

/// The trampoline's code is `push %rax; push %rcx; push %r11; mov $335, %rax; syscall; pop %r11; pop %rcx; ret`
/// (arch/x86/kernel/uprobes.c of Linux 6.11 and later; before, one instruction). A signal can interrupt it. From here
/// on the kernel has seen to the return, and its address is on the stack again.
pub const TRAMPOLINE_HANDLED: u64 = 13;
/// Its last instruction.
pub const TRAMPOLINE_LAST: u64 = 16;

/// Bytes that are on the stack at byte `within` of the trampoline: what it has pushed, with the address if it is there.
#[inline(always)]
pub fn pushed(within: u64) -> u64 {
    match within {
        0 => 0,
        1 | 16 => 8,
        2 | 15 => 16,
        _ => 24,
    }
}

/// Where return probes of the current process come back to; 0 when there are none yet, or that cannot be known.
#[inline(always)]
pub fn trampoline() -> u64 {
    let Some(state) = STATE.get_ptr_mut(0) else { return 0 };
    // SAFETY: a valid pointer to shared memory.
    let known = unsafe { read_volatile(&raw const (*state).trampoline) };
    if known != 0 { known } else { learn(state) }
}

/// Made once in the life of a program, so that it need not be looked for again.
#[inline(never)]
fn learn(state: *mut SessionState) -> u64 {
    let found = layout().and_then(|layout| {
        let memory = word(current(), layout.task_memory)?;
        let area = word(memory, layout.memory_area).filter(|area| *area != 0)?;
        word(area, layout.area_address)
    });
    let found = found.unwrap_or(0);
    // SAFETY: a valid pointer to shared memory.
    unsafe { write_volatile(&raw mut (*state).trampoline, found) };
    found
}

/// A search through what a thread has pending.
struct Search {
    /// Where the return address stood.
    slot: u64,
    /// The kernel's structure to look at next.
    pending: u64,
    /// The address found, or 0.
    found: u64,
}

/// The return address that belongs at `slot` of the current thread's stack; 0 where it cannot be found.
#[inline(never)]
pub fn original(slot: u64) -> u64 {
    let mut search = Search {
        slot,
        pending: first_pending().unwrap_or(0),
        found: 0,
    };
    // SAFETY: the callback has the signature that the helper asks for, and gets a pointer to our stack.
    unsafe { bpf_loop(MAX_PENDING, look_at_next as *mut c_void, (&raw mut search).cast(), 0) };
    // SAFETY: our own. Volatile, for the loop has filled it.
    unsafe { read_volatile(&raw const search.found) }
}

#[inline(always)]
fn first_pending() -> Option<u64> {
    let layout = layout()?;
    let uprobes = word(current(), layout.task_uprobes).filter(|uprobes| *uprobes != 0)?;
    word(uprobes, layout.first_return)
}

/// One round of the search: 1 ends it.
unsafe extern "C" fn look_at_next(_round: u64, search: *mut c_void) -> i64 {
    // SAFETY: the pointer that `original` passed.
    let search = unsafe { &mut *search.cast::<Search>() };
    match (search.pending, layout()) {
        (0, _) | (_, None) => 1,
        (_, Some(layout)) => look_at(search, layout).map_or(1, i64::from),
    }
}

#[inline(always)]
fn look_at(search: &mut Search, layout: &KernelLayout) -> Option<bool> {
    if word(search.pending, layout.return_stack)? == search.slot {
        let address = word(search.pending, layout.return_address)?;
        // Of several probes on one slot (a tail call), all but the outermost have replaced the trampoline by itself.
        if address != trampoline() {
            search.found = address;
            return Some(true);
        }
    }
    search.pending = word(search.pending, layout.next_return)?;
    Some(false)
}

#[inline(always)]
fn layout() -> Option<&'static KernelLayout> {
    // SAFETY: a valid pointer; userspace writes it before anything is attached.
    let layout = unsafe { &(*STATE.get_ptr(0)?).kernel };
    (layout.known != 0).then_some(layout)
}

/// The kernel's structure of the current thread.
#[inline(always)]
fn current() -> u64 {
    // SAFETY: asks for nothing.
    unsafe { bpf_get_current_task() }
}

/// The word at `offset` of the kernel's structure at `base`.
#[inline(always)]
fn word(base: u64, offset: u32) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(u64::from(offset)) as *const u64) }.ok()
}
