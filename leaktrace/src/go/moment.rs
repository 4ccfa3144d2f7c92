//! What the runtime says of itself at one moment: its heap, its collections and how long they stopped the program.
//!
//! One system call reads all of it, the number of collections first and last: if that has changed, it is read again. The
//! runtime keeps these numbers without a lock, so that what must fit together is also compared.

use super::bytes::u32_at;
use super::heap::PAGE;
use super::layout::{Controller, Layout};
use super::runtime::{GoError, Runtime, word};
use crate::profile::GoMoment;

/// How often it is read until it fits together.
const ATTEMPTS: usize = 16;
/// How many pauses the runtime remembers.
const PAUSES: u64 = 256;
/// What the runtime has for the size at which a collection began while none has.
const NOT_BEGUN: u64 = u64::MAX;
/// Addresses that a process has: no heap comes to a goal of more.
const MOST: u64 = 1 << 47;
/// The least distance between the start of a collection and the goal.
const RUNWAY: u64 = 64 << 10;
/// The least that a memory limit leaves free.
const LEAST_HEADROOM: u64 = 1 << 20;

/// The runtime at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Bytes that were live at the last collection, and all that was allocated since. A run of pages counts as
    /// allocated, all of it that is free, when a processor takes it to allocate from.
    pub heap_live: u64,
    /// Bytes at which the next collection is to be done, as `/gc/heap/goal:bytes` of `runtime/metrics` and `NextGC` of
    /// `runtime.MemStats` have it; more than there are addresses where collections are switched off (`GOGC=off`).
    pub heap_goal: u64,
    /// Bytes that were live at the last collection.
    pub heap_marked: u64,
    /// Collections since the program began.
    pub collections: u64,
    /// Nanoseconds for which they stopped the program, together.
    pub pause_ns: u64,
    /// Bytes allocated since the program began, without those that processors have allocated from the runs of pages
    /// that they hold now: less than one run of each size of object for each processor.
    pub allocated_bytes: u64,
    /// Bytes freed since then.
    pub freed_bytes: u64,
    /// Bytes of the pages that hold objects.
    pub heap_in_use: u64,
    /// Bytes of free pages that were not given back to the kernel.
    pub heap_free: u64,
    /// Pauses of the last 256 collections, by the number of the collection modulo that.
    pauses: Vec<(u64, u64)>,
}

/// How long a collection stopped the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Which collection: the program's first is 1.
    pub collection: u64,
    /// When it ended, in nanoseconds since 1970.
    pub ended_unix_ns: u64,
    /// Nanoseconds.
    pub pause_ns: u64,
}

/// Where what is read lies: the counts of collections, and the pacer.
struct Places {
    stats: u64,
    controller: u64,
}

impl Moment {
    /// Reads the runtime of a process that runs on.
    ///
    /// # Errors
    /// Its variables were not found, it has ended, or its numbers do not fit together.
    pub fn read(runtime: &Runtime) -> Result<Self, GoError> {
        let (Some(stats), Some(controller)) = (runtime.globals.stats, runtime.globals.controller) else {
            return Err(runtime.missing("counts of its collector"));
        };
        let places = Places { stats, controller };
        for _ in 0..ATTEMPTS {
            if let Some(moment) = places.read(runtime)? {
                return Ok(moment);
            }
        }
        Err(runtime.refused("counts of the garbage collector", "they contradict each other"))
    }

    /// The pauses of the collections after the one with this number, oldest first; only the last 256 are known.
    pub fn pauses_since(&self, collections: u64) -> impl Iterator<Item = Pause> {
        let first = collections
            .max(self.collections.saturating_sub(PAUSES))
            .saturating_add(1);
        (first..=self.collections).filter_map(|collection| {
            let &(pause_ns, ended_unix_ns) = self.pauses.get(((collection - 1) % PAUSES) as usize)?;
            Some(Pause {
                collection,
                ended_unix_ns,
                pause_ns,
            })
        })
    }

    /// As a profile has it.
    pub fn told(&self, goroutines: Option<u64>) -> GoMoment {
        GoMoment {
            heap_live_bytes: self.heap_live,
            heap_goal_bytes: self.heap_goal,
            collections: self.collections,
            pause_ns: self.pause_ns,
            goroutines,
        }
    }
}

impl Places {
    /// None if it changed while it was read.
    fn read(&self, runtime: &Runtime) -> Result<Option<Moment>, GoError> {
        let layout = &runtime.layout.mstats;
        let count = (self.stats.wrapping_add(layout.numgc as u64), 4);
        let start = layout.pause_total_ns;
        let end = layout.pause_end + 8 * PAUSES as usize;
        let ranges = [
            count,
            (self.stats.wrapping_add(start as u64), end.saturating_sub(start)),
            (self.controller, runtime.layout.controller.size),
            count,
        ];
        let unreadable = |error| runtime.unreadable(error);
        let read = runtime.memory.pieces(&ranges).map_err(unreadable)?;
        let piece = |index| {
            let bytes = read.get(index).ok_or(std::io::ErrorKind::UnexpectedEof);
            bytes.map_err(|kind| unreadable(kind.into()))
        };
        let (before, after) = (u32_at(piece(0)?, 0), u32_at(piece(3)?, 0));
        let collections = before.filter(|_| before == after);
        Ok(collections.and_then(|collections| parse(collections, piece(1).ok()?, piece(2).ok()?, &runtime.layout)))
    }
}

/// `stats` begins with the sum of all pauses. None if the numbers do not fit together.
fn parse(collections: u32, stats: &[u8], controller: &[u8], layout: &Layout) -> Option<Moment> {
    let at = &layout.controller;
    let field = |at: usize| word(controller, at);
    let ring = |start: usize| (0..PAUSES as usize).map(move |index| word(stats, start + 8 * index));
    let inside = |at: usize| at.checked_sub(layout.mstats.pause_total_ns);
    let moment = Moment {
        heap_live: field(at.heap_live),
        heap_goal: goal(controller, layout),
        heap_marked: field(at.heap_marked),
        collections: u64::from(collections),
        pause_ns: word(stats, 0),
        allocated_bytes: field(at.total_alloc),
        freed_bytes: field(at.total_free),
        heap_in_use: field(at.heap_in_use),
        heap_free: field(at.heap_free),
        pauses: ring(inside(layout.mstats.pause_ns)?)
            .zip(ring(inside(layout.mstats.pause_end)?))
            .collect(),
    };
    let pages = [moment.heap_in_use, moment.heap_free];
    let ready = field(at.mapped_ready);
    let fits = pages.iter().all(|bytes| bytes.is_multiple_of(PAGE))
        && moment.heap_in_use > 0
        && moment.heap_in_use.checked_add(moment.heap_free)? <= ready
        && moment.freed_bytes <= moment.allocated_bytes
        && moment.heap_marked <= moment.allocated_bytes.max(ready)
        && ready < MOST;
    fits.then_some(moment)
}

/// The goal as the runtime works it out when it is asked (`gcControllerState.heapGoalInternal`): that of `GOGC` with
/// some distance kept, or that of the memory limit if it is lower.
fn goal(controller: &[u8], layout: &Layout) -> u64 {
    let at = &layout.controller;
    let field = |at: usize| word(controller, at);
    let goal = field(at.gc_percent_heap_goal);
    let limited = limited_goal(controller, at, layout.kinds.headroom_percent);
    if limited < goal {
        return limited;
    }
    let goal = goal.max(field(at.sweep_dist_min_trigger));
    match field(at.triggered) {
        // No collection has begun since the last.
        NOT_BEGUN => goal,
        triggered => goal.max(triggered.saturating_add(RUNWAY)),
    }
}

/// What the memory limit leaves for the heap (`gcControllerState.memoryLimitHeapGoal`).
fn limited_goal(controller: &[u8], at: &Controller, headroom_percent: u64) -> u64 {
    let field = |at: usize| word(controller, at);
    let (limit, ready) = (field(at.memory_limit), field(at.mapped_ready));
    let allocated = field(at.total_alloc).saturating_sub(field(at.total_free));
    let others = ready.saturating_sub(field(at.heap_free)).saturating_sub(allocated);
    let left = limit.saturating_sub(others.saturating_add(ready.saturating_sub(limit)));
    if left == 0 {
        return field(at.heap_marked);
    }
    let headroom = (left / 100 * headroom_percent).max(LEAST_HEADROOM);
    left.saturating_sub(headroom).max(headroom).max(field(at.heap_marked))
}

#[cfg(test)]
#[path = "moment_tests.rs"]
mod tests;
