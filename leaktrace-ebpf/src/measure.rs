//! Programs that take the places of the others to measure what a trace is made of: the traps alone, and the stacks alone,
//! walked by the tables or by the kernel's own helper. Nothing is recorded.

use core::ffi::c_void;

use aya_ebpf::{bindings::BPF_F_USER_STACK, helpers::generated::bpf_get_stackid};

use crate::{maps::KERNEL_STACKS, regs, stack};

/// Sees entry and return of a call like `call_session`, and does nothing.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/empty_session")]
pub extern "C" fn empty_session(_: *mut c_void) -> u32 {
    0
}

/// Does nothing, at an entry or a return.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/empty_entry")]
pub extern "C" fn empty_entry(_: *mut c_void) -> u32 {
    0
}

/// Walks the stack by the tables, at an entry.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/walk_entry")]
pub extern "C" fn walk_entry(ctx: *mut c_void) -> u32 {
    stack::walk_only(&regs::frame_after_ret(ctx.cast()));
    0
}

/// Has the kernel walk the stack by frame pointers, at an entry.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/kernel_walk_entry")]
pub extern "C" fn kernel_walk_entry(ctx: *mut c_void) -> u32 {
    let table = (&raw const KERNEL_STACKS).cast_mut().cast::<c_void>();
    // SAFETY: the context is the kernel's, and the table one for stacks.
    unsafe { bpf_get_stackid(ctx, table, u64::from(BPF_F_USER_STACK)) };
    0
}
