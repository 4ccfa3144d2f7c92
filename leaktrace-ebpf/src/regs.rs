//! The registers of the probed thread: the only code that knows the architecture.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{
        bpf_probe_read_kernel, bpf_probe_read_user,
        generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    },
};
use leaktrace_common::unwind::Registers;

/// The system call by which a thread ends alone; a process ends by another.
const EXIT: u64 = 60;

/// The registers that the probes read, copied so that an argument can be chosen by number.
#[derive(Clone, Copy)]
pub struct Regs {
    arguments: [u64; 8],
}

impl Regs {
    /// Reads the argument registers. Only meaningful at a function's entry.
    #[inline(always)]
    pub fn read(ctx: *const pt_regs) -> Self {
        // SAFETY: the kernel passes a valid context.
        let r = unsafe { &*ctx };
        Self {
            arguments: [0, r.rdi, r.rsi, r.rdx, r.rcx, r.r8, r.r9, 0],
        }
    }

    /// Argument `number`, from 1; 0 reads as 0.
    #[inline(always)]
    pub fn argument(&self, number: u8) -> u64 {
        // SAFETY: the index is masked to the array's length.
        unsafe { core::ptr::read_volatile(self.arguments.as_ptr().add((number & 7) as usize)) }
    }
}

/// Whether the calling thread, which is ending, called for that itself, and for itself alone.
#[inline(always)]
pub fn thread_ends_itself() -> bool {
    // SAFETY: the kernel gives the registers that its current thread entered it with. They are read as foreign memory.
    unsafe {
        let entered = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs;
        bpf_probe_read_kernel(&raw const (*entered).orig_rax) == Ok(EXIT)
    }
}

/// What the call returned.
#[inline(always)]
pub fn returned(ctx: *const pt_regs) -> u64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*ctx).rax }
}

/// The second argument of a Go function, at its entry.
#[inline(always)]
pub fn second_of_go(ctx: *const pt_regs) -> u64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*ctx).rbx }
}

/// The frame that a call has just returned to.
#[inline(always)]
pub fn frame(ctx: *const pt_regs) -> Registers {
    Registers {
        instruction_pointer: instruction_pointer(ctx),
        stack_pointer: stack_pointer(ctx),
        frame_pointer: frame_pointer(ctx),
    }
}

/// The frame that the `ret` that is about to be executed returns to; at a function's entry, that of its caller.
#[inline(always)]
pub fn frame_after_ret(ctx: *const pt_regs) -> Registers {
    let top = stack_pointer(ctx);
    Registers {
        // SAFETY: the helper checks the address.
        instruction_pointer: unsafe { bpf_probe_read_user(top as *const u64) }.unwrap_or(0),
        stack_pointer: top.wrapping_add(8),
        frame_pointer: frame_pointer(ctx),
    }
}

/// Instruction pointer.
#[inline(always)]
pub fn instruction_pointer(ctx: *const pt_regs) -> u64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*ctx).rip }
}

/// Stack pointer.
#[inline(always)]
pub fn stack_pointer(ctx: *const pt_regs) -> u64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*ctx).rsp }
}

/// Frame pointer.
#[inline(always)]
pub fn frame_pointer(ctx: *const pt_regs) -> u64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*ctx).rbp }
}

/// The stack pointer at entry of the call that has just returned: the return took its address off the stack.
#[inline(always)]
pub fn entry_stack_pointer(ctx: *const pt_regs) -> u64 {
    stack_pointer(ctx).wrapping_sub(8)
}
