//! From a stack to its site: hash, index, and the frames sent to userspace once.

use core::mem::offset_of;

use aya_ebpf::bindings::BPF_NOEXIST;
use leaktrace_common::{
    counters::Counter,
    events::{MAX_FRAMES, StackRecord, TAG_STACK},
    sites::{OVERFLOW_SITE, SessionState, SiteEntry},
    unwind::Registers,
};

use crate::{
    atomic,
    counters::bump,
    maps::{EVENTS, SCRATCH, SCRATCH_SLOTS, SITE_INDEX, STATE, Scratch},
    unwind,
};

/// The site of a call in `process` that returns to `caller`.
#[inline(always)]
pub fn site(caller: &Registers, process: u32, probe: u32) -> u32 {
    let Some((slot, scratch)) = acquire() else {
        bump(Counter::LostScratch);
        return OVERFLOW_SITE;
    };
    let hash = unwind::walk(caller, scratch, slot, u64::from(process));
    // SAFETY: the busy flag makes the buffer ours until released.
    let record = unsafe { &mut (*scratch).record };
    record.hash = hash;
    let site = match SITE_INDEX.get_ptr_mut(hash) {
        // SAFETY: a valid pointer; entries are never removed.
        Some(entry) if unsafe { (*entry).sent } != 0 => unsafe { (*entry).site },
        entry => introduce(record, entry, process, probe),
    };
    release(scratch);
    site
}

/// For measuring: walks a stack, and nothing else.
#[inline(always)]
pub fn walk_only(first: &Registers) {
    if let Some((slot, scratch)) = acquire() {
        unwind::walk(first, scratch, slot, 0);
        release(scratch);
    }
}

/// A stack that userspace does not know yet.
#[inline(never)]
fn introduce(record: &mut StackRecord, entry: Option<*mut SiteEntry>, process: u32, probe: u32) -> u32 {
    let Some(entry) = entry.or_else(|| new_entry(record.hash)) else {
        bump(Counter::LostSitesFull);
        return OVERFLOW_SITE;
    };
    // SAFETY: a valid pointer; entries are never removed.
    let entry = unsafe { &mut *entry };
    record.tag = TAG_STACK;
    record.process = process;
    record.site = entry.site;
    record.probe = probe;
    match EVENTS.output::<[u8]>(used(record), 0) {
        Ok(()) => entry.sent = 1,
        Err(_) => bump(Counter::DeferredStacks),
    }
    entry.site
}

/// The bytes of a record up to its last frame: most stacks are far from the deepest, and room is short.
#[inline(always)]
fn used(record: &StackRecord) -> &[u8] {
    let frames = record.frame_count as usize & MAX_FRAMES;
    let length = offset_of!(StackRecord, frames) + frames * size_of::<u64>();
    // SAFETY: the length is at most that of the record.
    unsafe { core::slice::from_raw_parts((&raw const *record).cast(), length) }
}

/// A new index for a stack; another processor may have been first, then its index.
#[inline(always)]
fn new_entry(hash: u64) -> Option<*mut SiteEntry> {
    let site = next_site(STATE.get_ptr_mut(0)?)?;
    let _ = SITE_INDEX.insert(hash, SiteEntry { site, sent: 0 }, u64::from(BPF_NOEXIST));
    SITE_INDEX.get_ptr_mut(hash)
}

#[inline(always)]
fn next_site(state: *mut SessionState) -> Option<u32> {
    // SAFETY: a valid pointer to shared memory.
    let (next, limit) = unsafe { (&raw mut (*state).next_site, (*state).site_limit) };
    // Looked at first, so that a full table does not make the number run over.
    // SAFETY: as above.
    if unsafe { core::ptr::read_volatile(next) } >= limit {
        return None;
    }
    // SAFETY: as above.
    let site = unsafe { atomic::add(next, 1) };
    (site < limit).then_some(site)
}

/// A buffer that no other walk on this processor is using.
#[inline(always)]
fn acquire() -> Option<(u32, *mut Scratch)> {
    for slot in 0..SCRATCH_SLOTS {
        let scratch = SCRATCH.get_ptr_mut(slot)?;
        // SAFETY: a valid pointer to this processor's buffer.
        if unsafe { atomic::exchange(&raw mut (*scratch).busy, 1) } == 0 {
            return Some((slot, scratch));
        }
    }
    None
}

#[inline(always)]
fn release(scratch: *mut Scratch) {
    // SAFETY: the buffer is ours; programs do not migrate between processors.
    unsafe { atomic::exchange(&raw mut (*scratch).busy, 0) };
}
