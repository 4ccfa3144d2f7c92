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
};

/// A thread ends: what it had in flight is forgotten, so that a later thread of the same number starts clean.
#[raw_tracepoint]
pub fn thread_exit(_ctx: RawTracePointContext) -> i32 {
    inflight::forget(bpf_get_current_pid_tgid() as u32);
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
    let Some(state) = STATE.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a valid pointer to shared memory.
    unsafe {
        let traced = (*state).process == process;
        if traced {
            core::ptr::write_volatile(&raw mut (*state).recording, 0);
        }
        traced
    }
}

fn tell(step: ProcessStep, process: u32, thread: u32) {
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
