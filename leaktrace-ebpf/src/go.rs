//! Go's heap: entry points of the probes in its runtime, which tell of spans. None of them is followed by a return probe:
//! Go moves its stacks, and would not find its way back.
//!
//! A span is a run of pages with objects of one size. It is handed out to a processor of the runtime, which fills it,
//! and is given back. That is where objects are sampled: hundreds of them are allocated between two such events.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE, pt_regs},
    helpers::{bpf_probe_read_user, generated::bpf_probe_read_user as read_user},
};
use leaktrace_common::{
    counters::Counter,
    go::{BIT_WORDS, GoLayout, MAX_SPAN_BYTES, SpanRecord, TAG_LARGE, TAG_REFILLED, TAG_UNCACHED, UncachedRecord},
};

use crate::{
    counters::bump,
    maps::{GO_LAYOUTS, SPANS, STATE},
    programs, regs, stack,
};

/// A span of small objects has been handed out.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/span_refilled")]
pub extern "C" fn span_refilled(ctx: *mut c_void) -> u32 {
    handed_out::<TAG_REFILLED>(ctx.cast());
    0
}

/// A span has been handed out that is one large object.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/span_large")]
pub extern "C" fn span_large(ctx: *mut c_void) -> u32 {
    handed_out::<TAG_LARGE>(ctx.cast());
    0
}

/// A span is given back.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/span_uncached")]
pub extern "C" fn span_uncached(ctx: *mut c_void) -> u32 {
    let Some((_, layout)) = layout() else {
        return 0;
    };
    let span = regs::second_of_go(ctx.cast());
    let count = span.wrapping_add(u64::from(layout.alloc_count));
    // SAFETY: the helper checks the address.
    let Ok(taken) = (unsafe { bpf_probe_read_user(count as *const u16) }) else {
        bump(Counter::LostSpans);
        return 0;
    };
    let caller = programs::caller();
    let record = UncachedRecord {
        tag: TAG_UNCACHED,
        process: caller.process,
        span,
        taken: u64::from(taken),
        thread: caller.thread,
        zero: 0,
    };
    if SPANS.output::<UncachedRecord>(record, wake_up()).is_err() {
        bump(Counter::LostSpans);
    }
    0
}

/// The process, and where things are in it, while recording is on.
#[inline(always)]
fn layout() -> Option<(u32, &'static GoLayout)> {
    if !programs::is_recording() {
        return None;
    }
    let process = programs::caller().process;
    // SAFETY: entries are never changed or removed while probes are in place.
    Some((process, unsafe { GO_LAYOUTS.get(process) }?))
}

#[inline(always)]
fn handed_out<const TAG: u32>(ctx: *mut pt_regs) {
    let span = regs::returned(ctx);
    let Some((process, layout)) = layout() else {
        return;
    };
    // The runtime has no memory: it is about to end.
    if span == 0 {
        return;
    }
    let site = stack::site(&regs::frame(ctx), process, TAG);
    let Some(mut entry) = SPANS.reserve::<SpanRecord>(0) else {
        bump(Counter::LostSpans);
        return;
    };
    // SAFETY: all of it is written before it is told.
    let told = unsafe { fill::<TAG>(entry.as_mut_ptr(), span, layout) };
    if told {
        // SAFETY: as above.
        unsafe {
            (*entry.as_mut_ptr()).process = process;
            (*entry.as_mut_ptr()).thread = programs::caller().thread;
            (*entry.as_mut_ptr()).site = site;
        }
        entry.submit(wake_up());
    } else {
        entry.discard(0);
        bump(Counter::LostSpans);
    }
}

/// Fills a record but for process and site. False if the span could not be read.
///
/// # Safety
/// `record` is valid for writing.
#[inline(always)]
unsafe fn fill<const TAG: u32>(record: *mut SpanRecord, span: u64, layout: &GoLayout) -> bool {
    // SAFETY: as promised; the helpers check the addresses that they read from.
    unsafe {
        record
            .cast::<MaybeUninit<[u64; size_of::<SpanRecord>() / 8]>>()
            .write(MaybeUninit::zeroed());
        (*record).tag = TAG;
        (*record).span = span;
        (*record).cohort = STATE
            .get_ptr(0)
            .map_or(0, |state| core::ptr::read_volatile(&raw const (*state).cohort));
        let Ok(generation) = bpf_probe_read_user(layout.sweep_generation as *const u32) else {
            return false;
        };
        (*record).sweep_generation = generation;
        let size = layout.span_bytes;
        if size > MAX_SPAN_BYTES as u32 {
            return false;
        }
        let description = (&raw mut (*record).description).cast();
        if read_user(description, size, span as *const c_void) != 0 {
            return false;
        }
        TAG == TAG_LARGE || read_bits(record, span, layout)
    }
}

/// Reads which places are taken. Where none is, the bits need not be in memory yet, and are not looked at.
///
/// # Safety
/// `record` is valid for writing.
#[inline(always)]
unsafe fn read_bits(record: *mut SpanRecord, span: u64, layout: &GoLayout) -> bool {
    // SAFETY: as promised; the helpers check the addresses that they read from.
    unsafe {
        let field = |offset: u32| span.wrapping_add(u64::from(offset));
        match bpf_probe_read_user(field(layout.alloc_count) as *const u16) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
        let objects = if layout.wide_counts != 0 {
            bpf_probe_read_user(field(layout.objects) as *const u64)
        } else {
            bpf_probe_read_user(field(layout.objects) as *const u16).map(u64::from)
        };
        let (Ok(objects), Ok(bits)) = (objects, bpf_probe_read_user(field(layout.alloc_bits) as *const u64)) else {
            return false;
        };
        let words = objects.wrapping_add(63) / 64;
        if words > BIT_WORDS as u64 {
            return false;
        }
        (*record).bit_words = words as u32;
        let into = (&raw mut (*record).bits).cast();
        read_user(into, (words * 8) as u32, bits as *const c_void) == 0
    }
}

/// Userspace is woken when a quarter of the buffer is full. To be woken for each record would cost both sides more than
/// the record.
#[inline(always)]
fn wake_up() -> u64 {
    let (used, size) = (
        SPANS.query(u64::from(BPF_RB_AVAIL_DATA)),
        SPANS.query(u64::from(BPF_RB_RING_SIZE)),
    );
    u64::from(if used > size / 4 {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    })
}
