//! What holds objects of Go's heap: a variable, the stack of a goroutine, a finalizer, or the runtime itself; and the
//! way from there.
//!
//! A copy of the heap is marked from the roots, as for lost goroutines, and for each object the way is remembered by
//! which it was first reached. All that the program's variables reach comes first, then what only finalizers do, then
//! timers, then stacks, where words may be left over, then what only the runtime's own variables do. Of an object that
//! several hold, the first is told.
//!
//! The copy may be torn. So each link of a way is read again from the process; where one is not there any more, the heap is
//! looked through again. Where only the root has changed, as that of a list that grows, the same must come out twice.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use super::heap::{Heap, available};
use super::paths::{Before, MAX_HOLDING, Paths, Start};
use super::roots::{each_goroutine, each_variable};
use super::variables::Variables;
use crate::go::bytes::{u32_at, u64_at};
use crate::go::goroutines::{Goroutine, Snapshot};
use crate::go::runtime::{GoError, Runtime, word};
use crate::go::shown;
use crate::profile::Holder;
use crate::units;

/// Most holders told of one group.
const MAX_HOLDERS: usize = 5;
/// Most links of a way that are told: the first half of them and the last.
const MAX_LINKS: usize = 6;
/// Most links of all ways that are read again.
const MAX_CHECKED: usize = 1 << 22;
/// How often the heap is looked through at most; and of how many objects one may be left for which that was not enough.
const MAX_LOOKS: u32 = 3;
const FEW_OPEN: usize = 50;
/// Most words of variables that may be pointers.
const MAX_WORDS: usize = 1 << 26;
/// No heap begins below this: the kernel maps nothing there.
const LEAST_ADDRESS: u64 = 65536;
/// Most processors that the runtime can have.
const MAX_PROCESSORS: u64 = 1 << 14;
/// The structure of one is larger than this.
const LEAST_PROCESSOR: u64 = 4096;

/// What holds groups of objects.
#[derive(Debug, Default)]
pub struct Found {
    /// For each group, by how many of its objects each holds.
    pub holders: Vec<Vec<Holder>>,
    /// Bytes of the heap that were copied.
    pub heap_bytes: u64,
    /// Bytes that could not be read, of the heap, the variables and the stacks.
    pub unreadable: u64,
    /// How often the heap was looked through: again, if not all was as before.
    pub looks: u32,
}

/// A root: a variable by its first byte, a goroutine by its function and where it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Root {
    Variable(u64),
    Finalizer,
    Stack { start: u64, created_at: u64 },
    Processors,
}

/// A root, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    root: Root,
    /// Which goroutine, or which object has the finalizer.
    part: u64,
}

/// How one object is held.
#[derive(Clone, Debug)]
struct Way {
    start: Start<Kind>,
    is_confirmed: bool,
    /// Whether all links but the root's were confirmed.
    may_agree: bool,
    /// Told for the first of those of a group that the same root holds.
    chain: Option<Chain>,
}

/// The objects between a root and an object.
#[derive(Clone, Debug, Default)]
struct Chain {
    /// Address and bytes; only of the first and the last where there are many.
    ends: Vec<(u64, u64)>,
    /// How many there are.
    length: usize,
}

/// Finds what holds the objects at the addresses of each group. `names` says what is known of an object: which code
/// allocates such.
pub fn find(runtime: &Runtime, groups: &[Vec<u64>], names: &dyn Fn(u64) -> Option<String>) -> Result<Found, GoError> {
    let variables = Variables::find(runtime);
    let mut found = Found::default();
    let mut ways: HashMap<u64, Way> = HashMap::new();
    let is_open = |ways: &HashMap<u64, Way>, address: &u64| ways.get(address).is_none_or(|way| !way.is_confirmed);
    let all: usize = groups.iter().map(Vec::len).sum();
    let mut open = groups.to_vec();
    while found.looks < MAX_LOOKS {
        for (address, mut now) in look(runtime, &variables, &open, &mut found)? {
            let before = ways.get(&address).filter(|way| way.may_agree);
            let is_same = before.is_some_and(|before| before.start.kind.root == now.start.kind.root);
            now.is_confirmed |= now.may_agree && is_same;
            ways.insert(address, now);
        }
        for group in &mut open {
            group.retain(|address| is_open(&ways, address));
        }
        if open.iter().map(Vec::len).sum::<usize>() * FEW_OPEN <= all {
            break;
        }
    }
    ways.retain(|_, way| way.is_confirmed);
    let teller = Teller {
        runtime,
        variables: &variables,
        names,
    };
    found.holders = groups.iter().map(|group| teller.holders(group, &ways)).collect();
    Ok(found)
}

/// Looks through a copy of the heap once: the ways to those of the objects that are held.
fn look(
    runtime: &Runtime,
    variables: &Variables,
    groups: &[Vec<u64>],
    found: &mut Found,
) -> Result<HashMap<u64, Way>, GoError> {
    let snapshot = Snapshot::take(runtime, &mut crate::go::Chains::default(), false)?;
    // Before the heap: what is new when the heap is copied is then known by nobody, and what was there is whole.
    let (words, unread) = words_of_variables(runtime)?;
    let heap = Heap::copy(runtime)?;
    if heap.holding > MAX_HOLDING || heap.holding.saturating_mul(4) > available() {
        return Err(runtime.no_proof("it holds so many objects that there is not the memory for the ways to them"));
    }
    found.looks += 1;
    found.heap_bytes = heap.copied;
    found.unreadable = heap.unreadable + unread;
    let mut paths = Paths::new(&heap);
    let wanted = groups.iter().flatten();
    let numbers: Vec<u64> = wanted.filter_map(|&address| paths.want(address)).collect();
    found.unreadable += mark(runtime, variables, &words, &snapshot, &heap, &mut paths)?;
    let mut checked = Checked::read(runtime, &heap, &paths, &numbers).map_err(|error| runtime.unreadable(error))?;
    let mut ways = HashMap::new();
    for group in groups {
        let mut told = HashSet::new();
        for &address in group {
            let number = paths.number(address);
            let Some((number, beginning)) = number.and_then(|at| Some((at, checked.beginning(&paths, at)?))) else {
                continue;
            };
            let (start, may_agree) = (beginning.start, beginning.is_rest_whole);
            let is_confirmed = beginning.is_root_whole && may_agree;
            let is_first = told.insert((start.kind.root, is_confirmed));
            let chain = is_first.then(|| chain(&paths, number));
            ways.insert(
                address,
                Way {
                    start,
                    is_confirmed,
                    may_agree,
                    chain,
                },
            );
        }
    }
    Ok(ways)
}

/// The objects between the root and an object.
fn chain(paths: &Paths<'_, Kind>, object: u64) -> Chain {
    let (mut ends, mut length, mut at) = (VecDeque::new(), 0, object);
    while let Some(Before::Object(before)) = paths.before(at) {
        length += 1;
        ends.push_front(before);
        if ends.len() > MAX_LINKS {
            ends.remove(MAX_LINKS / 2);
        }
        at = before;
    }
    Chain {
        ends: ends.into_iter().filter_map(|number| paths.object(number)).collect(),
        length,
    }
}

/// Marks from all roots, one kind after the other. Gives how many bytes could not be read.
fn mark(
    runtime: &Runtime,
    variables: &Variables,
    words: &[(u64, u64)],
    snapshot: &Snapshot,
    heap: &Heap,
    paths: &mut Paths<'_, Kind>,
) -> Result<u64, GoError> {
    // All goroutines name each other in the runtime's own lists, and processors and threads name all that there is.
    snapshot.structures.iter().for_each(|&address| paths.forbid(address));
    let processors = processors(runtime, variables, heap);
    for &address in &processors {
        paths.forbid(address);
    }
    push_variables(variables, words, paths, false);
    paths.run();
    for special in &heap.specials {
        let kind = Kind {
            root: Root::Finalizer,
            part: special.object,
        };
        if special.is_finalizer {
            let (object, _) = paths
                .number(special.object)
                .and_then(|number| paths.object(number))
                .unwrap_or_default();
            for (value, place) in paths.words_of(object) {
                paths.begin(kind, place, value);
            }
        }
        for (&value, place) in special.words.iter().zip((special.address + 8..).step_by(8)) {
            paths.begin(kind, place, value);
        }
    }
    paths.run();
    for &address in &processors {
        paths.allow(address);
        let kind = Kind {
            root: Root::Processors,
            part: address,
        };
        paths
            .words_of(address)
            .for_each(|(value, place)| paths.begin(kind, place, value));
    }
    paths.run();
    let unreadable = push_stacks(runtime, snapshot, paths)?;
    paths.run();
    push_variables(variables, words, paths, true);
    paths.run();
    Ok(unreadable)
}

/// The words of variables that may be pointers, each with where it stands; and how many bytes could not be read.
fn words_of_variables(runtime: &Runtime) -> Result<(Vec<(u64, u64)>, u64), GoError> {
    let mut words = Vec::new();
    let mut too_many = false;
    let unreadable = each_variable(runtime, |start, bytes| {
        for (chunk, place) in bytes.chunks_exact(8).zip((start..).step_by(8)) {
            match u64_at(chunk, 0) {
                Some(value) if value >= LEAST_ADDRESS && words.len() < MAX_WORDS => words.push((place, value)),
                Some(value) => too_many |= value >= LEAST_ADDRESS,
                None => {}
            }
        }
    })?;
    if too_many {
        return Err(runtime.no_proof("it has more than 64 million variables"));
    }
    Ok((words, unreadable))
}

fn push_variables(variables: &Variables, words: &[(u64, u64)], paths: &mut Paths<'_, Kind>, of_runtime: bool) {
    for &(place, value) in words {
        if paths.number(value).is_none() {
            continue;
        }
        let (variable, is_runtime) = variables.of(place);
        if is_runtime == of_runtime {
            let kind = Kind {
                root: Root::Variable(variable),
                part: 0,
            };
            paths.begin(kind, place, value);
        }
    }
}

fn push_stacks(runtime: &Runtime, snapshot: &Snapshot, paths: &mut Paths<'_, Kind>) -> Result<u64, GoError> {
    let goroutines: Vec<&Goroutine> = snapshot.goroutines.iter().collect();
    each_goroutine(runtime, &goroutines, |owner, start, bytes| {
        let Some(goroutine) = goroutines.get(owner) else {
            return;
        };
        let kind = Kind {
            root: Root::Stack {
                start: goroutine.start,
                created_at: goroutine.created_at,
            },
            part: goroutine.address,
        };
        // Of its structure, what is deferred (`_defer`) is the program's. It is followed by the thread that runs it,
        // through which there is a way to everything.
        let own = runtime.layout.g.sched.saturating_sub(8);
        let is_structure = start == goroutine.address;
        let bytes = if is_structure { bytes.get(..own) } else { Some(bytes) };
        paths.begin_all(kind, start, bytes.unwrap_or_default());
    })
}

/// The structures of the runtime's processors (`runtime.allp`): they keep timers and what is freed, and name threads,
/// and timers name them. Without symbols they are known by what only they are: a list of large objects, each of which
/// says which it is.
fn processors(runtime: &Runtime, variables: &Variables, heap: &Heap) -> Vec<u64> {
    if let Some(list) = variables.named("runtime.allp") {
        return processors_at(runtime, heap, list).unwrap_or_default();
    }
    let mut lists = variables.of_runtime();
    lists
        .find_map(|list| processors_at(runtime, heap, list))
        .unwrap_or_default()
}

fn processors_at(runtime: &Runtime, heap: &Heap, list: u64) -> Option<Vec<u64>> {
    let header = runtime.memory.bytes(list, 24).ok()?;
    let (pointer, count, room) = (word(&header, 0), word(&header, 8), word(&header, 16));
    if count == 0 || count > room || room > MAX_PROCESSORS {
        return None;
    }
    heap.find(pointer)?;
    let addresses = runtime.memory.bytes(pointer, 8 * count as usize).ok()?;
    let addresses: Vec<u64> = addresses.chunks_exact(8).map(|chunk| word(chunk, 0)).collect();
    let is_one = |(address, index): (&u64, u32)| {
        let Some((span, number)) = heap.find(*address) else {
            return false;
        };
        let start = span.base + number * span.object_size;
        // Since Go 1.22, a word that says what it is stands before a large object.
        let inside = (*address - start) as usize;
        let contents = heap.contents(span, number).get(inside..).unwrap_or_default();
        // Its number, and its status, of which there are five.
        let says = u32_at(contents, 0) == Some(index) && u32_at(contents, 4).is_some_and(|status| status < 5);
        span.object_size > LEAST_PROCESSOR && matches!(inside, 0 | 8) && says
    };
    addresses.iter().zip(0..).all(is_one).then_some(addresses)
}

/// Links of ways, looked at again in the process.
struct Checked {
    /// Objects whose link to what comes before is not there any more.
    broken: HashSet<u64>,
    /// More links than are looked at.
    too_many: bool,
    /// Where ways begin that were followed already, by the objects on them.
    known: HashMap<u64, Beginning>,
}

/// Where a way begins, and whether its links are still there: the first, and the others.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    start: Start<Kind>,
    is_root_whole: bool,
    is_rest_whole: bool,
}

impl Checked {
    fn read(runtime: &Runtime, heap: &Heap, paths: &Paths<'_, Kind>, objects: &[u64]) -> io::Result<Self> {
        // By the object that comes before, what it leads to; and where the words stand that begin ways.
        let mut links: HashMap<u64, HashSet<u64>> = HashMap::new();
        let mut places: Vec<(u64, u64)> = Vec::new();
        let mut seen = HashSet::new();
        for &object in objects {
            let mut object = object;
            while seen.len() < MAX_CHECKED && seen.insert(object) {
                match paths.before(object) {
                    Some(Before::Object(before)) => {
                        links.entry(before).or_default().insert(object);
                        object = before;
                    }
                    Some(Before::Root(start)) => places.push((start.place, object)),
                    None => {}
                }
            }
        }
        for (before, mut after) in links {
            let (address, _) = paths.object(before).unwrap_or_default();
            for (value, place) in paths.words_of(address) {
                if after.is_empty() {
                    break;
                }
                if let Some(object) = paths.number(value).filter(|object| after.remove(object)) {
                    places.push((place, object));
                }
            }
        }
        let ranges: Vec<(u64, usize)> = places.iter().map(|&(place, _)| (place, 8)).collect();
        let mut broken = HashSet::new();
        runtime.memory.each(&ranges, |index, bytes| {
            let object = places.get(index).map(|&(_, object)| object);
            let now = bytes.and_then(|bytes| heap.find(u64_at(bytes, 0)?));
            if now.map(|(span, number)| span.first + number) != object {
                broken.extend(object);
            }
        })?;
        Ok(Self {
            broken,
            too_many: seen.len() >= MAX_CHECKED,
            known: HashMap::new(),
        })
    }

    /// Where the way to an object begins; nothing if it is not held.
    fn beginning(&mut self, paths: &Paths<'_, Kind>, object: u64) -> Option<Beginning> {
        let (mut passed, mut at) = (Vec::new(), object);
        let mut beginning = loop {
            if let Some(&known) = self.known.get(&at) {
                break known;
            }
            match paths.before(at)? {
                Before::Root(start) => {
                    let known = Beginning {
                        start,
                        is_root_whole: !self.too_many && !self.broken.contains(&at),
                        is_rest_whole: true,
                    };
                    self.known.insert(at, known);
                    break known;
                }
                Before::Object(before) => {
                    passed.push(at);
                    at = before;
                }
            }
        };
        for object in passed.into_iter().rev() {
            beginning.is_rest_whole &= !self.broken.contains(&object);
            self.known.insert(object, beginning);
        }
        Some(beginning)
    }
}

/// Puts into words what was found.
struct Teller<'a> {
    runtime: &'a Runtime,
    variables: &'a Variables,
    names: &'a dyn Fn(u64) -> Option<String>,
}

/// What one root holds of a group.
struct Held<'a> {
    root: Root,
    ways: Vec<&'a Way>,
}

impl Teller<'_> {
    fn holders(&self, group: &[u64], ways: &HashMap<u64, Way>) -> Vec<Holder> {
        let mut by_root: Vec<Held<'_>> = Vec::new();
        for way in group.iter().filter_map(|address| ways.get(address)) {
            let root = way.start.kind.root;
            match by_root.iter_mut().find(|held| held.root == root) {
                Some(held) => held.ways.push(way),
                None => by_root.push(Held { root, ways: vec![way] }),
            }
        }
        by_root.sort_by_key(|held| (std::cmp::Reverse(held.ways.len()), held.root));
        let holder = |held: &Held<'_>| Holder {
            root: self.root(held),
            chain: held
                .ways
                .iter()
                .find_map(|way| way.chain.as_ref())
                .map(|chain| self.chain(chain))
                .unwrap_or_default(),
            held: held.ways.len() as u64,
            of: group.len() as u64,
        };
        by_root.iter().take(MAX_HOLDERS).map(holder).collect()
    }

    fn root(&self, held: &Held<'_>) -> String {
        let parts: HashSet<u64> = held.ways.iter().map(|way| way.start.kind.part).collect();
        match held.root {
            Root::Variable(start) => {
                let places: HashSet<u64> = held.ways.iter().map(|way| way.start.place).collect();
                // Of an array or the like, no word is more than another.
                let place = places.iter().next().filter(|_| places.len() == 1);
                self.variables
                    .name(self.runtime, start, place.map(|place| place.wrapping_sub(start)))
            }
            Root::Finalizer => {
                let of = parts.iter().next().filter(|_| parts.len() == 1);
                match of.and_then(|&object| (self.names)(object)) {
                    Some(name) => format!("the finalizer of an object of {name}"),
                    None if parts.len() == 1 => "a finalizer".to_owned(),
                    None => format!("{} finalizers", units::number(parts.len() as u64)),
                }
            }
            Root::Stack { start, created_at } => self.goroutines(start, created_at, parts.len() as u64),
            Root::Processors => "a timer, or another of the runtime's own lists".to_owned(),
        }
    }

    /// `the stacks of 12 goroutines in main.worker, created by main.main (main.go:42)`.
    fn goroutines(&self, start: u64, created_at: u64, count: u64) -> String {
        let function = self.runtime.table.find(start.wrapping_sub(self.runtime.bias));
        let function = function
            .and_then(|function| self.runtime.table.name(&function))
            .map(shown);
        let function = function.unwrap_or_else(|| "unknown code".to_owned());
        if function == "runtime.main" {
            return "the stack of the main goroutine".to_owned();
        }
        let stacks = match count {
            1 => "the stack of a goroutine".to_owned(),
            more => format!("the stacks of {} goroutines", units::number(more)),
        };
        let created = self.runtime.calls(created_at).into_iter().next_back();
        let created = created.map(|call| {
            let file = call.file.map(crate::target::printable).unwrap_or_default();
            let file = file.rsplit('/').next().unwrap_or_default().to_owned();
            let line = call.line.map(|line| format!(" ({file}:{line})")).unwrap_or_default();
            format!(", created by {}{line}", shown(call.function))
        });
        format!("{stacks} in {function}{}", created.unwrap_or_default())
    }

    fn chain(&self, chain: &Chain) -> Vec<String> {
        let link = |&(address, size): &(u64, u64)| match (self.names)(address) {
            Some(name) => format!("object of {name}"),
            None => format!("{}-byte object", units::number(size)),
        };
        let mut links: Vec<String> = chain.ends.iter().map(link).collect();
        let hidden = chain.length.saturating_sub(links.len());
        if hidden > 0 {
            links.insert(MAX_LINKS / 2, format!("{} more", units::number(hidden as u64)));
        }
        links
    }
}

#[cfg(test)]
#[path = "holders_tests.rs"]
mod tests;
