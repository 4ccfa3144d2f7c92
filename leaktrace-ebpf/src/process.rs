//! Threads and processes coming to their end, and programs being replaced.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};
use leaktrace_common::{
    counters::Counter,
    events::{ProcessRecord, ProcessStep, TAG_PROCESS},
};

use crate::{
    counters::bump,
    inflight,
    maps::{EVENTS, STATE},
    regs,
};

/// A thread ends: what it had in flight is forgotten, so that a later thread of the same number starts clean. Of a main
/// thread that leaves the others behind, userspace is told: the kernel finds the process's memory by it.
#[raw_tracepoint]
pub fn thread_exit(_ctx: RawTracePointContext) -> i32 {
    let ids = bpf_get_current_pid_tgid();
    let (process, thread) = ((ids >> 32) as u32, ids as u32);
    inflight::forget(thread);
    if process == thread && is_traced(process) && regs::thread_ends_itself() {
        tell(ProcessStep::MainThreadEnded, process, thread);
    }
    0
}

/// A process replaces its program: from here on its memory is another's, so that nothing more is recorded.
#[raw_tracepoint]
pub fn program_exec(_ctx: RawTracePointContext) -> i32 {
    let ids = bpf_get_current_pid_tgid();
    let (process, thread) = ((ids >> 32) as u32, ids as u32);
    inflight::forget(thread);
    if stop_traced(process) {
        tell(ProcessStep::Executed, process, thread);
    }
    0
}

/// Stops recording if this is the process that is traced, and says whether it is.
fn stop_traced(process: u32) -> bool {
    let traced = is_traced(process);
    if traced && let Some(state) = STATE.get_ptr_mut(0) {
        // SAFETY: a valid pointer to shared memory.
        unsafe { core::ptr::write_volatile(&raw mut (*state).recording, 0) };
    }
    traced
}

fn is_traced(process: u32) -> bool {
    // SAFETY: a valid pointer to shared memory.
    STATE
        .get_ptr(0)
        .is_some_and(|state| unsafe { (*state).process } == process)
}

/// Tells userspace.
#[inline(never)]
pub fn tell(step: ProcessStep, process: u32, thread: u32) {
    let record = ProcessRecord {
        tag: TAG_PROCESS,
        process,
        thread,
        step: step as u32,
    };
    if EVENTS.output::<ProcessRecord>(record, 0).is_err() {
        bump(Counter::LostProcessEvent);
    }
}
