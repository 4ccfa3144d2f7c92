//! Entry points of the probes. A probe's attach cookie is the index of its specification, which says what to do.
//!
//! `call_session` sees entry and return of a call, and declines the return where nothing can come of it. Where the
//! kernel has no sessions, `call_entry` and `call_return` do the same in two. `release_entry` serves `free`, the most
//! frequent call, which needs no return; `throwing_entry` calls that may throw, which must have none; `code_entry` the
//! dynamic loader.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_attach_cookie, bpf_get_func_ip},
    },
};
use leaktrace_common::{
    blocks::Call,
    probes::{CallKind, ProbeSpec},
};

use crate::{
    alloc::{self, Ended},
    code, free, inflight,
    mapping::{self, Caller},
    maps::{PROBES, STATE},
    regs::{self, Regs},
};

/// What a session's entry handler returns to have the return seen, and to have it skipped.
const SEE_RETURN: u32 = 0;
const SKIP_RETURN: u32 = 1;

/// Entry and return of a call. Written without aya's macro, which always returns 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/call_session")]
pub extern "C" fn call_session(ctx: *mut c_void) -> u32 {
    let regs = ctx.cast::<pt_regs>();
    // SAFETY: the context is the kernel's.
    if regs::instruction_pointer(regs) == unsafe { bpf_get_func_ip(ctx) } {
        enter::<false>(regs)
    } else {
        leave(regs);
        SEE_RETURN
    }
}

/// Entry of a call.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/call_entry")]
pub extern "C" fn call_entry(ctx: *mut c_void) -> u32 {
    enter::<false>(ctx.cast());
    0
}

/// Return of a call.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uretprobe/call_return")]
pub extern "C" fn call_return(ctx: *mut c_void) -> u32 {
    leave(ctx.cast());
    0
}

/// Entry of a call that gives a block back.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/release_entry")]
pub extern "C" fn release_entry(ctx: *mut c_void) -> u32 {
    let regs = ctx.cast::<pt_regs>();
    if let Some((_, spec)) = probe(regs) {
        let address = Regs::read(regs).argument(spec.pointer_arg);
        free::release(&caller(), CallKind::from_raw(spec.kind), address);
    }
    0
}

/// The dynamic loader maps or unmaps code. Told whether recording is on or not: what is recorded later needs it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/code_entry")]
pub extern "C" fn code_entry(ctx: *mut c_void) -> u32 {
    // SAFETY: the context is the kernel's.
    let cookie = unsafe { bpf_get_attach_cookie(ctx) } as u32;
    if let Some(spec) = PROBES.get(cookie) {
        let caller = caller();
        code::changed(ctx.cast(), spec, caller.process, caller.thread);
    }
    0
}

/// Entry of a call that may throw, a `ret` of one, and the throwing: none of these is followed by a return probe.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/throwing_entry")]
pub extern "C" fn throwing_entry(ctx: *mut c_void) -> u32 {
    let regs = ctx.cast::<pt_regs>();
    match probe(regs).and_then(|(_, spec)| CallKind::from_raw(spec.kind)) {
        Some(CallKind::Leave) => leave_at_ret(regs),
        Some(CallKind::Throw) => inflight::thrown(caller().thread),
        _ => drop(enter::<true>(regs)),
    }
    0
}

#[inline(always)]
fn enter<const MAY_THROW: bool>(ctx: *mut pt_regs) -> u32 {
    let Some((probe, spec)) = probe(ctx) else {
        return SKIP_RETURN;
    };
    let Some(kind) = CallKind::from_raw(spec.kind) else {
        return SKIP_RETURN;
    };
    // Once for both kinds of call: the verifier wants registers read at fixed places.
    let arguments = Regs::read(ctx);
    let caller = caller();
    if kind.is_mapping() && mapping::is_own(ctx, caller.process) {
        return SKIP_RETURN;
    }
    let Some(call) = inflight::begin(ctx, caller.thread, probe, kind) else {
        return SKIP_RETURN;
    };
    if kind.is_mapping() {
        mapping::entered(ctx, caller, kind, spec, &arguments, call);
    } else {
        alloc::entered(caller.process, kind, spec, &arguments, call);
        if MAY_THROW {
            inflight::note_return(call);
        }
    }
    SEE_RETURN
}

#[inline(always)]
fn leave(ctx: *mut pt_regs) {
    // Once recording is off the tables stay as they are: what is in flight has not happened.
    let Some(kind) = probe(ctx).and_then(|(_, spec)| CallKind::from_raw(spec.kind)) else {
        return;
    };
    let caller = caller();
    let Some(call) = inflight::end(ctx, caller.thread, kind) else {
        return;
    };
    // Of a tail call it is the outer function that says what came of it.
    let Some(kind) = PROBES.get(call.probe).and_then(|spec| CallKind::from_raw(spec.kind)) else {
        return;
    };
    if kind.is_mapping() {
        mapping::returned(ctx, caller, kind, call);
        return;
    }
    let end = Ended {
        value: regs::returned(ctx),
        caller: regs::frame(ctx),
    };
    ended(&end, caller.process, kind, call);
}

#[inline(always)]
fn leave_at_ret(ctx: *mut pt_regs) {
    let caller = caller();
    let Some(call) = inflight::end_at_ret(ctx, caller.thread) else {
        return;
    };
    let Some(kind) = PROBES.get(call.probe).and_then(|spec| CallKind::from_raw(spec.kind)) else {
        return;
    };
    let end = Ended {
        value: regs::returned(ctx),
        caller: regs::frame_after_ret(ctx),
    };
    ended(&end, caller.process, kind, call);
}

#[inline(always)]
fn ended(end: &Ended, process: u32, kind: CallKind, call: &Call) {
    match kind {
        CallKind::Resize => alloc::resized(end, process, call),
        CallKind::ResizeInPlace => alloc::resized_in_place(end, call),
        _ => alloc::allocated(end, process, call),
    }
}

/// Index and specification of the probe that was hit, while recording is on.
#[inline(always)]
fn probe(ctx: *mut pt_regs) -> Option<(u32, &'static ProbeSpec)> {
    if !is_recording() {
        return None;
    }
    // SAFETY: the context is the kernel's.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.cast()) } as u32;
    Some((cookie, PROBES.get(cookie)?))
}

#[inline(always)]
pub fn is_recording() -> bool {
    match STATE.get_ptr(0) {
        // SAFETY: a valid pointer; userspace changes the flag at any time, hence volatile.
        Some(state) => unsafe { core::ptr::read_volatile(&raw const (*state).recording) != 0 },
        None => false,
    }
}

#[inline(always)]
pub fn caller() -> Caller {
    let ids = bpf_get_current_pid_tgid();
    Caller {
        process: (ids >> 32) as u32,
        thread: ids as u32,
    }
}
