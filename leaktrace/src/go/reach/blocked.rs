//! What goroutines wait for: channels, in the list that each keeps of them, and semaphores, in a table of the runtime.

use std::collections::{HashMap, HashSet};

use super::roots::SEMAPHORES;
use crate::go::goroutines::{Goroutine, Snapshot, State};
use crate::go::runtime::{GoError, Runtime, word};
use crate::go::shown;

/// Reasons to wait for a channel, or for several.
const CHANNELS: [&str; 3] = ["chan receive", "chan send", "select"];
/// Reasons to wait for a semaphore.
const SEMAPHORE_WAITS: [&str; 6] = [
    "semacquire",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "sync.Mutex.Lock (durable)",
];
/// Reasons to wait for nothing, which never comes.
const NOTHING: [&str; 3] = ["chan receive (nil chan)", "chan send (nil chan)", "select (no cases)"];
/// Most channels that all goroutines together wait for.
const MAX_LINKS: usize = 1 << 25;
/// Most goroutines that are looked for in the table of semaphores.
const MAX_WAITERS: usize = 1 << 25;
/// In the table of semaphores: bytes of an entry, and where its tree is.
const ENTRY: usize = 64;
const TREE: usize = 8;

/// What a goroutine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A channel at this address.
    Channel(u64),
    /// A semaphore: that of a mutex or a wait group.
    Semaphore(u64),
}

impl Object {
    /// Where it is.
    pub fn address(self) -> u64 {
        match self {
            Self::Channel(address) | Self::Semaphore(address) => address,
        }
    }
}

/// Goroutines of the program that are blocked, and on what.
pub struct Waits<'a> {
    /// Each with what it waits for; nothing, if it can never be woken.
    pub examined: Vec<(&'a Goroutine, Vec<Object>)>,
    addresses: HashSet<u64>,
}

/// How a goroutine waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Channels,
    Semaphore,
    ForNothing,
}

impl<'a> Waits<'a> {
    /// Reads what the goroutines of `snapshot` wait for. Those of which it cannot be told are not examined.
    pub fn read(runtime: &Runtime, snapshot: &'a Snapshot) -> Result<Self, GoError> {
        if runtime.reasons.is_empty() {
            return Err(runtime.missing("names of the reasons to wait"));
        }
        let blocked: Vec<(&Goroutine, Way)> = snapshot
            .goroutines
            .iter()
            .filter_map(|one| Some((one, way(runtime, one)?)))
            .collect();
        let channels = channels(runtime, &blocked)?;
        let semaphores = semaphores(runtime)?;
        let mut examined = Vec::new();
        for (goroutine, way) in blocked {
            let objects = match way {
                Way::ForNothing => Some(Vec::new()),
                Way::Channels => channels.get(&goroutine.address).cloned(),
                Way::Semaphore => semaphores
                    .get(&goroutine.address)
                    .map(|&at| vec![Object::Semaphore(at)]),
            };
            examined.extend(objects.map(|objects| (goroutine, objects)));
        }
        Ok(Self {
            addresses: examined.iter().map(|(goroutine, _)| goroutine.address).collect(),
            examined,
        })
    }

    /// Whether it can be told what a goroutine waits for.
    pub fn is_examined(&self, goroutine: &Goroutine) -> bool {
        self.addresses.contains(&goroutine.address)
    }
}

/// How a goroutine of the program waits, if it waits for what only others can give it.
fn way(runtime: &Runtime, goroutine: &Goroutine) -> Option<Way> {
    let (State::Waiting(number) | State::Leaked(number)) = goroutine.state else {
        return None;
    };
    let reason = runtime.reasons.get(usize::from(number))?.as_str();
    let way = if CHANNELS.contains(&reason) {
        Way::Channels
    } else if SEMAPHORE_WAITS.contains(&reason) {
        Way::Semaphore
    } else if NOTHING.contains(&reason) {
        Way::ForNothing
    } else {
        return None;
    };
    let function = runtime.table.find(goroutine.start.wrapping_sub(runtime.bias))?;
    let name = shown(runtime.table.name(&function)?);
    (!name.starts_with("runtime.") || name == "runtime.main").then_some(way)
}

/// The channels that goroutines wait for, by the goroutine: each has a list of them. All lists are followed at once.
fn channels(runtime: &Runtime, blocked: &[(&Goroutine, Way)]) -> Result<HashMap<u64, Vec<Object>>, GoError> {
    let layout = &runtime.layout.sudog;
    let mut found: HashMap<u64, Vec<Object>> = HashMap::new();
    let mut broken = HashSet::new();
    let mut next: Vec<(u64, u64)> = blocked
        .iter()
        .filter(|(goroutine, way)| *way == Way::Channels && goroutine.waiting != 0)
        .map(|(goroutine, _)| (goroutine.address, goroutine.waiting))
        .collect();
    let mut links = 0;
    while !next.is_empty() && links < MAX_LINKS {
        links += next.len();
        let ranges: Vec<(u64, usize)> = next.iter().map(|&(_, sudog)| (sudog, layout.size)).collect();
        let read = runtime
            .memory
            .pieces(&ranges)
            .map_err(|error| runtime.unreadable(error))?;
        let mut after = Vec::new();
        for (index, &(goroutine, _)) in next.iter().enumerate() {
            let bytes = read.get(index).filter(|bytes| word(bytes, layout.g) == goroutine);
            let channel = bytes.map_or(0, |bytes| word(bytes, layout.c));
            if channel == 0 {
                // It was woken meanwhile.
                broken.insert(goroutine);
                continue;
            }
            found.entry(goroutine).or_default().push(Object::Channel(channel));
            let link = bytes.map_or(0, |bytes| word(bytes, layout.waitlink));
            after.extend((link != 0).then_some((goroutine, link)));
        }
        next = after;
    }
    // A list without an end is none.
    broken.extend(next.iter().map(|(goroutine, _)| *goroutine));
    found.retain(|goroutine, _| !broken.contains(goroutine));
    Ok(found)
}

/// The semaphore that each goroutine waits for, from the runtime's table: trees of addresses, with lists of goroutines.
fn semaphores(runtime: &Runtime) -> Result<HashMap<u64, u64>, GoError> {
    let layout = &runtime.layout.sudog;
    let table = runtime
        .globals
        .semaphores
        .ok_or_else(|| runtime.missing("table of semaphores"))?;
    let unreadable = |error| runtime.unreadable(error);
    let bytes = runtime.memory.bytes(table, SEMAPHORES as usize).map_err(unreadable)?;
    let mut next: Vec<u64> = bytes.chunks_exact(ENTRY).map(|entry| word(entry, TREE)).collect();
    let (mut seen, mut found) = (HashSet::new(), HashMap::new());
    while !next.is_empty() && seen.len() < MAX_WAITERS {
        next.retain(|&sudog| sudog != 0 && seen.insert(sudog));
        let ranges: Vec<(u64, usize)> = next.iter().map(|&sudog| (sudog, layout.size)).collect();
        let read = runtime.memory.pieces(&ranges).map_err(unreadable)?;
        let mut after = Vec::new();
        for bytes in (0..ranges.len()).filter_map(|index| read.get(index)) {
            found.insert(word(bytes, layout.g), word(bytes, layout.elem));
            after.extend([layout.prev, layout.next, layout.waitlink].map(|link| word(bytes, link)));
        }
        next = after;
    }
    Ok(found)
}
