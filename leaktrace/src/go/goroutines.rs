//! All goroutines of a process at one moment, read from the runtime's own list without stopping anything.
//!
//! The list only grows, and the memory of a goroutine is never given back, so that every address in it can be read at
//! any time; but what stands there changes while it is read. So each is read twice: what is not the same goroutine in
//! the same state both times is not believed.

use super::bytes::{u32_at, u64_at};
use super::layout::Layout;
use super::runtime::{GoError, Runtime, word};
use super::stack::{Chains, Stacks};

/// Most goroutines that are read: with their stacks, that many take twenty gigabytes at least.
const MAX_GOROUTINES: u64 = 1 << 23;
/// How many goroutines are looked at to check the layout.
const SAMPLE: usize = 512;
/// The garbage collector is looking at the goroutine's stack.
const SCANNED: u32 = 0x1000;

/// What a goroutine is doing. The numbers are the runtime's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It could run and waits for a processor.
    Runnable,
    /// It runs.
    Running,
    /// It is in a system call, or in C.
    Syscall,
    /// It waits, for the reason with this number.
    Waiting(u8),
    /// Its stack is being moved.
    Copying,
    /// It was stopped for others.
    Preempted,
    /// The garbage collector has found that it waits for ever, for the reason with this number (Go 1.26).
    Leaked(u8),
}

/// A goroutine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goroutine {
    /// Its structure's address.
    pub address: u64,
    /// Its number, as in Go's own traces.
    pub id: u64,
    /// What it is doing.
    pub state: State,
    /// When it was first seen waiting by the garbage collector, on the process's monotonic clock; 0 if it was not yet.
    pub waiting_since: u64,
    /// Return address of the `go` statement that made it; 0 if the runtime itself did.
    pub created_at: u64,
    /// Number of the goroutine that did; 0 if that is not known.
    pub parent: u64,
    /// First instruction of its function.
    pub start: u64,
    /// Where its stack is.
    pub stack: (u64, u64),
    /// Stack pointer where it stopped; 0 while it runs.
    pub sp: u64,
    /// Where it goes on; 0 while it runs.
    pub pc: u64,
    /// What it waits for (`runtime.sudog`), if that is a channel or several.
    pub waiting: u64,
}

/// All goroutines of one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Those that were the same both times.
    pub goroutines: Vec<Goroutine>,
    /// For each, which of the stacks it has.
    pub stack_of: Vec<usize>,
    /// Different stacks; the first is empty, and that of those whose stack is not known.
    pub stacks: Stacks,
    /// The structures of all goroutines, also of those that have ended.
    pub structures: Vec<u64>,
    /// How many ended, or became others, while they were read.
    pub ended: u64,
    /// How many were seen, but in different states: only what they are and who made them is told of these.
    pub changing: u64,
    /// How many could not be read.
    pub unreadable: u64,
}

/// The runtime's list of goroutines.
pub struct List {
    addresses: Vec<u64>,
    /// Whether the two places that name it agree.
    agrees: bool,
}

impl List {
    /// Reads the list, its length first: it only grows.
    pub fn read(runtime: &Runtime) -> Result<Self, GoError> {
        let memory = runtime.memory;
        let places = runtime.list()?;
        let unreadable = |error| runtime.unreadable(error);
        let length = memory.word(places.length).map_err(unreadable)?;
        let pointer = memory.word(places.pointer).map_err(unreadable)?;
        let list = memory.bytes(places.list, 24).map_err(unreadable)?;
        let (again, full) = (word(&list, 0), word(&list, 16));
        if length > MAX_GOROUTINES {
            return Ok(Self {
                addresses: Vec::new(),
                agrees: false,
            });
        }
        let bytes = memory.bytes(pointer, 8 * length as usize).unwrap_or_default();
        let addresses = bytes.chunks_exact(8).filter_map(|chunk| u64_at(chunk, 0));
        Ok(Self {
            addresses: addresses.collect(),
            // It may have moved in between.
            agrees: length <= full && (pointer == again || memory.word(places.pointer).map_err(unreadable)? == again),
        })
    }

    /// Hands out the function of each goroutine that there is.
    pub fn each_start(&self, runtime: &Runtime, mut take: impl FnMut(u64)) -> Result<(), GoError> {
        let size = runtime.layout.g.size;
        let ranges: Vec<(u64, usize)> = self.addresses.iter().map(|&address| (address, size)).collect();
        let read = runtime.memory.each(&ranges, |_, bytes| {
            if let Some(Read::Live(one)) = bytes.map(|bytes| parse(0, bytes, &runtime.layout)) {
                take(one.start);
            }
        });
        read.map_err(|error| runtime.unreadable(error))
    }

    /// What speaks against this being the list of goroutines, laid out as believed.
    pub fn objection(&self, runtime: &Runtime) -> Result<Option<&'static str>, GoError> {
        if !self.agrees || self.addresses.is_empty() {
            return Ok(Some("their list contradicts itself"));
        }
        // From all over the list.
        let step = self.addresses.len().div_ceil(SAMPLE);
        let sample: Vec<u64> = self.addresses.iter().copied().step_by(step).collect();
        let read = read_all(runtime, &sample)?;
        let live: Vec<&Goroutine> = read.iter().filter_map(|one| one.goroutine()).collect();
        let sound = live.iter().filter(|one| is_sound(runtime, one)).count();
        let strange = read.iter().filter(|one| matches!(one, Read::Strange)).count();
        // One that is being made or ends while it is looked at may not fit.
        let fits = sound * 20 >= live.len() * 19 && strange * 20 <= read.len();
        Ok((!fits || live.is_empty()).then_some("they are not laid out as expected"))
    }
}

/// What was read of a goroutine.
enum Read {
    Live(Goroutine),
    /// Free to become another one.
    Dead,
    /// No goroutine.
    Strange,
    Unreadable,
}

impl Read {
    fn goroutine(&self) -> Option<&Goroutine> {
        match self {
            Self::Live(goroutine) => Some(goroutine),
            _ => None,
        }
    }
}

impl Snapshot {
    /// Reads all goroutines, and with `stacks` what is on their stacks.
    pub fn take(runtime: &Runtime, chains: &mut Chains, stacks: bool) -> Result<Self, GoError> {
        let list = List::read(runtime)?;
        let first = read_all(runtime, &list.addresses)?;
        let live: Vec<Goroutine> = first.iter().filter_map(|one| one.goroutine().cloned()).collect();
        let mut snapshot = Self {
            unreadable: first
                .iter()
                .filter(|one| matches!(one, Read::Unreadable | Read::Strange))
                .count() as u64,
            ..Self::default()
        };
        let stack_of = if stacks {
            chains.walk(runtime, &live, &mut snapshot.stacks)?
        } else {
            vec![0; live.len()]
        };
        let again: Vec<u64> = live.iter().map(|goroutine| goroutine.address).collect();
        let second = read_all(runtime, &again)?;
        for ((before, stack), after) in live.into_iter().zip(stack_of).zip(second) {
            match after {
                Read::Live(after) if after == before => snapshot.add(after, stack),
                Read::Live(after) if after.id == before.id => {
                    snapshot.changing += 1;
                    snapshot.add(after, 0);
                }
                _ => snapshot.ended += 1,
            }
        }
        snapshot.structures = list.addresses;
        Ok(snapshot)
    }

    fn add(&mut self, goroutine: Goroutine, stack: usize) {
        self.goroutines.push(goroutine);
        self.stack_of.push(stack);
    }
}

/// Reads the goroutines at these addresses.
fn read_all(runtime: &Runtime, addresses: &[u64]) -> Result<Vec<Read>, GoError> {
    let ranges: Vec<(u64, usize)> = addresses
        .iter()
        .map(|&address| (address, runtime.layout.g.size))
        .collect();
    let mut result: Vec<Read> = addresses.iter().map(|_| Read::Unreadable).collect();
    let take = |index: usize, bytes: Option<&[u8]>| {
        if let (Some(slot), Some(&address), Some(bytes)) = (result.get_mut(index), addresses.get(index), bytes) {
            *slot = parse(address, bytes, &runtime.layout);
        }
    };
    runtime
        .memory
        .each(&ranges, take)
        .map_err(|error| runtime.unreadable(error))?;
    Ok(result)
}

fn parse(address: u64, bytes: &[u8], layout: &Layout) -> Read {
    let g = &layout.g;
    let field = |at: usize| word(bytes, at);
    let reason = bytes.get(g.waitreason).copied().unwrap_or(0);
    let state = match u32_at(bytes, g.atomicstatus).map(|status| status & !SCANNED) {
        Some(1) => State::Runnable,
        Some(2) => State::Running,
        Some(3) => State::Syscall,
        Some(4) => State::Waiting(reason),
        Some(8) => State::Copying,
        Some(9) => State::Preempted,
        Some(10) => State::Leaked(reason),
        // Not made yet, dead, or kept for threads of C.
        Some(0 | 6 | 11) => return Read::Dead,
        _ => return Read::Strange,
    };
    let (sp, pc) = match state {
        State::Running | State::Copying => (0, 0),
        State::Syscall => (field(g.syscallsp), field(g.syscallpc)),
        _ => (field(g.sched + layout.gobuf.sp), field(g.sched + layout.gobuf.pc)),
    };
    let is_parked = matches!(state, State::Waiting(_) | State::Leaked(_));
    Read::Live(Goroutine {
        address,
        id: field(g.goid),
        state,
        waiting_since: if is_parked { field(g.waitsince) } else { 0 },
        created_at: field(g.gopc),
        parent: g.parent_goid.map_or(0, field),
        start: field(g.startpc),
        stack: (field(g.stack), field(g.stack + 8)),
        sp,
        pc,
        waiting: if is_parked { field(g.waiting) } else { 0 },
    })
}

/// Whether a goroutine is what one must be: its function begins where a function begins, and it stands on its own stack.
fn is_sound(runtime: &Runtime, goroutine: &Goroutine) -> bool {
    let file_address = |address: u64| address.wrapping_sub(runtime.bias);
    let starts = runtime.table.find(file_address(goroutine.start));
    let created = goroutine.created_at == 0 || runtime.table.find(file_address(goroutine.created_at)).is_some();
    let (low, high) = goroutine.stack;
    let on_stack = goroutine.sp == 0 || (low..=high).contains(&goroutine.sp);
    goroutine.id > 0
        && starts.is_some_and(|function| function.start == file_address(goroutine.start))
        && created
        && low < high
        && low.is_multiple_of(8)
        && on_stack
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..500), status in 0..16_u32, minor in 18..29_u32) {
            let (layout, _) = Layout::of(Some(minor)).unwrap();
            let mut bytes = bytes;
            if let Some(at) = bytes.get_mut(layout.g.atomicstatus..layout.g.atomicstatus + 4) {
                at.copy_from_slice(&(status | SCANNED).to_le_bytes());
            }
            let read = parse(0x1000, &bytes, layout);
            let is_live = matches!(status, 1..=4 | 8..=10) && bytes.len() >= layout.g.atomicstatus + 4;
            prop_assert_eq!(read.goroutine().is_some(), is_live);
        }
    }
}
