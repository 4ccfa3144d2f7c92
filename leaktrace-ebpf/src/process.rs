//! Threads and processes coming to their end, and programs being replaced.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};
use leaktrace_common::{
    counters::Counter,
    events::{ProcessRecord, ProcessStep, TAG_PROCESS},
};

use crate::{counters::bump, inflight, maps::EVENTS};

/// A thread ends: what it had in flight is forgotten, so that a later thread of the same number starts clean.
#[raw_tracepoint]
pub fn thread_exit(_ctx: RawTracePointContext) -> i32 {
    inflight::forget(bpf_get_current_pid_tgid() as u32);
    0
}

/// A process replaces its program.
#[raw_tracepoint]
pub fn program_exec(_ctx: RawTracePointContext) -> i32 {
    let ids = bpf_get_current_pid_tgid();
    let thread = ids as u32;
    if inflight::forget(thread) {
        tell(ProcessStep::Executed, (ids >> 32) as u32, thread);
    }
    0
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
