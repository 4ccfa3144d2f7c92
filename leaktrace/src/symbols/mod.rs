//! From addresses to function names, files and lines. The only room that uses blazesym.
//!
//! Files are the target's, so nothing in them may make leaktrace panic, hang or take memory without bound: see
//! `image` and `worker`. Every answer is kept, so that a second report costs next to nothing.

mod debug_file;
mod demangle;
mod golang;
mod image;
mod jit;
mod mini_debug;
mod perf_map;
pub mod source;
pub mod trim;
mod worker;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leaktrace_common::events::StackEnd;

use crate::profile::{Ending, Frame, Stack};
use crate::target::files::read_start;
use crate::target::{AddressSpace, Era, Module, Place, Root};
use golang::GoTables;
use image::Image;
use jit::{JitNames, MODULE as PERF_MAP, is_generated};
use worker::{Call, Calls, Worker};

/// Most bytes of symbols and debug information that are held, over all files; less on a machine that is short of memory.
const MAX_BYTES: u64 = 2 << 30;
/// The share of the available memory that they may take: what the symbolizer makes of them takes as much again.
const MEMORY_SHARE: u64 = 4;
/// Most addresses asked at once.
const BATCH: usize = 512;
/// How long an answer may take; the first one includes reading the file's index.
const PATIENCE: Duration = Duration::from_mins(1);

/// A stack as the kernel side saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawStack {
    /// Return addresses, innermost first: the first is in the function that called the allocator.
    pub frames: Vec<u64>,
    /// How the walk ended.
    pub end: StackEnd,
    /// When it was taken.
    pub era: Era,
}

/// What could not be symbolized although the files hold more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Addresses that could not be looked up: the file is damaged.
    pub addresses: u64,
    /// Files that could not be opened or read, or make no sense.
    pub files: u64,
    /// Files that were overwritten or cut short since they were mapped.
    pub changed: u64,
    /// Files whose debug information is damaged or too large, so that only symbols were used.
    pub without_debug: u64,
    /// Files given up because they took too long.
    pub too_slow: u64,
    /// What of perf maps was not used.
    pub perf_maps: jit::Unused,
}

/// Gives names to addresses, and remembers them.
pub struct Symbolizer {
    worker: Option<Worker>,
    host: Option<Root>,
    files: HashMap<FileKey, Loaded>,
    go: GoTables,
    known: HashMap<(FileKey, u64), Calls>,
    jit: JitNames,
    /// Names of files that are mapped and could not be opened, each counted once.
    unopened: HashSet<Arc<str>>,
    budget: u64,
    patience: Duration,
    failures: Failures,
}

/// Device and inode. The module is kept open, so that no other file can take them.
type FileKey = (u64, u64);

struct Loaded {
    /// Best first; empty if nothing of the file could be read.
    images: Arc<[Image]>,
    _module: Arc<Module>,
}

impl Default for Symbolizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbolizer {
    /// A symbolizer that knows nothing yet. Costs nothing until it is asked.
    pub fn new() -> Self {
        Self {
            worker: None,
            host: Root::open(Path::new("/")).ok(),
            files: HashMap::new(),
            go: GoTables::default(),
            known: HashMap::new(),
            jit: JitNames::default(),
            unopened: HashSet::new(),
            budget: budget(),
            patience: PATIENCE,
            failures: Failures::default(),
        }
    }

    /// Looks after what the program can take with it when it ends: its perf map. To be called now and then while it
    /// runs.
    pub fn follow(&mut self, space: &AddressSpace) {
        self.jit.follow(space);
    }

    /// The stacks with names, in the order given. Allocator frames are still there: see [`trim`].
    ///
    /// Frames are return addresses, so the instruction looked up is the one before: the call. What cannot be
    /// symbolized keeps module, offset and build id.
    pub fn symbolize(&mut self, space: &AddressSpace, stacks: &[RawStack]) -> Vec<Stack> {
        let mut places: HashMap<(u64, Era), Option<Place>> = HashMap::new();
        for stack in stacks {
            for &address in certain(space, stack) {
                places
                    .entry((address, stack.era))
                    .or_insert_with(|| space.locate_in(address.wrapping_sub(1), stack.era));
            }
        }
        if places.values().flatten().any(is_generated) {
            self.jit.catch_up(space);
        }
        self.learn(space, places.values().flatten());
        let frames: HashMap<(u64, Era), Vec<Frame>> = places
            .iter()
            .map(|(&key, place)| (key, self.frames(key.0, place.as_ref())))
            .collect();
        let stack = |raw: &RawStack| Stack {
            whole: raw.end == StackEnd::Whole,
            end: ending(raw.end),
            frames: certain(space, raw)
                .iter()
                .filter_map(|address| frames.get(&(*address, raw.era)))
                .flatten()
                .cloned()
                .collect(),
        };
        stacks.iter().map(stack).collect()
    }

    /// What could not be symbolized so far.
    pub fn failures(&self) -> Failures {
        Failures {
            perf_maps: self.jit.unused(),
            ..self.failures
        }
    }

    /// Looks up what is not known yet, file by file, in the order of the addresses.
    fn learn<'a>(&mut self, space: &AddressSpace, places: impl Iterator<Item = &'a Place>) {
        let mut wanted: BTreeMap<FileKey, (Arc<Module>, Vec<u64>)> = BTreeMap::new();
        for place in places {
            let Some(module) = &place.module else {
                self.note_unopened(place);
                continue;
            };
            if !self.known.contains_key(&(module.identity, place.offset)) {
                wanted
                    .entry(module.identity)
                    .or_insert_with(|| (Arc::clone(module), Vec::new()))
                    .1
                    .push(place.offset);
            }
        }
        for (key, (module, mut offsets)) in wanted {
            offsets.sort_unstable();
            offsets.dedup();
            self.ask_go(&module, &mut offsets);
            if offsets.is_empty() {
                continue;
            }
            let images = self.load(space, &module);
            for batch in offsets.chunks(BATCH) {
                self.ask(key, &images, batch);
            }
        }
    }

    /// Looks up Go code, and takes it out of `offsets`. Needs no patience: Go's tables are bounded.
    fn ask_go(&mut self, module: &Arc<Module>, offsets: &mut Vec<u64>) {
        let Some(table) = self.go.of(module, &mut self.budget) else {
            return;
        };
        offsets.retain(|&offset| {
            let calls = golang::calls(table, offset);
            let unknown = calls.is_empty();
            if !unknown {
                self.known.insert((module.identity, offset), calls);
            }
            unknown
        });
        if table.is_exhausted() {
            self.failures.too_slow += 1;
            self.go.give_up(module.identity);
        }
    }

    /// Counts the file that a place lies in and that could not be opened.
    fn note_unopened(&mut self, place: &Place) {
        let is_file = place.name.starts_with('/') && !is_generated(place);
        if is_file && self.unopened.insert(Arc::clone(&place.name)) {
            self.failures.files += 1;
        }
    }

    fn ask(&mut self, key: FileKey, images: &Arc<[Image]>, batch: &[u64]) {
        // A file given up meanwhile is asked nothing more.
        let given_up = self.files.get(&key).is_none_or(|loaded| loaded.images.is_empty());
        let (mut calls, patience) = (Vec::new(), self.patience);
        if !images.is_empty() && !given_up {
            match self
                .worker()
                .and_then(|worker| worker.ask(key, images, batch.to_vec(), patience))
            {
                Some(answer) => {
                    self.failures.addresses += answer.failures;
                    calls = answer.calls;
                }
                None => self.give_up(key),
            }
        }
        calls.resize(batch.len(), Calls::new());
        self.known.extend(batch.iter().map(|&offset| (key, offset)).zip(calls));
    }

    /// The thread is left alone with the file that it does not come back from; the next question starts another.
    fn give_up(&mut self, key: FileKey) {
        self.failures.too_slow += 1;
        self.worker = None;
        if let Some(loaded) = self.files.get_mut(&key) {
            loaded.images = Arc::from([]);
        }
    }

    fn worker(&mut self) -> Option<&Worker> {
        if self.worker.is_none() {
            self.worker = Worker::start().ok();
        }
        self.worker.as_ref()
    }

    fn load(&mut self, space: &AddressSpace, module: &Arc<Module>) -> Arc<[Image]> {
        if let Some(loaded) = self.files.get(&module.identity) {
            return Arc::clone(&loaded.images);
        }
        let images: Arc<[Image]> = self.copy_images(space, module).into();
        self.failures.without_debug += u64::from(images.iter().any(|image| image.debug_refused));
        self.files.insert(
            module.identity,
            Loaded {
                images: Arc::clone(&images),
                _module: Arc::clone(module),
            },
        );
        images
    }

    /// Best first. A copy is worth something only if the file did not change before it was finished.
    fn copy_images(&mut self, space: &AddressSpace, module: &Module) -> Vec<Image> {
        let own = module.is_unchanged().then(|| {
            let budget = &mut self.budget;
            Image::copy(module.file(), module.build_id.as_deref(), false, budget).ok()
        });
        let own = own.flatten();
        let mut images = match &own {
            Some(own) if !own.has_debug && !own.debug_refused => self.copy_split_off(space, module),
            _ => Vec::new(),
        };
        if !module.is_unchanged() {
            self.failures.changed += 1;
            return Vec::new();
        }
        self.failures.files += u64::from(own.is_none());
        images.extend(own);
        images
    }

    /// What was split off from a file without debug information: the file that holds it, or else `MiniDebugInfo`.
    fn copy_split_off(&mut self, space: &AddressSpace, module: &Module) -> Vec<Image> {
        let found = self
            .host
            .as_ref()
            .and_then(|host| debug_file::find(module, space.root(), host));
        let separate = found.and_then(|found| {
            Image::copy(&found.file, found.build_id.as_deref(), found.of_host, &mut self.budget).ok()
        });
        let complete = separate.as_ref().is_some_and(|image| !image.debug_refused);
        let mut images: Vec<Image> = separate.into_iter().collect();
        if !complete && mini_debug::is_offered(module.headers()) {
            let build_id = module.build_id.as_deref();
            match mini_debug::copy(module.file(), build_id, &mut self.budget, self.patience) {
                Ok(image) => images.push(image),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => self.failures.too_slow += 1,
                Err(_) => self.failures.without_debug += 1,
            }
        }
        images
    }

    fn frames(&self, address: u64, place: Option<&Place>) -> Vec<Frame> {
        let Some(place) = place else {
            return vec![Frame {
                address,
                module: "[unknown]".to_owned(),
                ..Frame::default()
            }];
        };
        if let Some(name) = self.jit.name_at(place, address.wrapping_sub(1)) {
            return vec![Frame {
                address,
                module: PERF_MAP.to_owned(),
                function: Some(name),
                // The map counts as the process does.
                offset: address,
                ..Frame::default()
            }];
        }
        let calls = place
            .module
            .as_ref()
            .and_then(|module| self.known.get(&(module.identity, place.offset)));
        let frame = |call: &Call, inlined| Frame {
            address,
            module: place.name.to_string(),
            build_id: place.module.as_ref().and_then(|module| module.build_id.clone()),
            function: call.function.clone(),
            // The place is that of the call's last byte.
            offset: place.offset.wrapping_add(1),
            file: call.file.clone(),
            line: call.line,
            inlined,
        };
        match calls.map(Vec::as_slice) {
            None | Some([]) => vec![frame(&Call::default(), false)],
            Some(calls) => calls
                .iter()
                .enumerate()
                .map(|(at, call)| frame(call, at + 1 < calls.len()))
                .collect(),
        }
    }
}

/// How many bytes may be held on this machine, as it is now.
fn budget() -> u64 {
    let text = read_start(Path::new("/proc/meminfo"), 4096).unwrap_or_default();
    available(&String::from_utf8_lossy(&text)).map_or(MAX_BYTES, |bytes| MAX_BYTES.min(bytes / MEMORY_SHARE))
}

/// Bytes of memory that `/proc/meminfo` calls available.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The frames that are right whatever was unmapped meanwhile: up to the first in code that can have been, whose caller
/// was found by what may be another file's tables.
fn certain<'a>(space: &AddressSpace, stack: &'a RawStack) -> &'a [u64] {
    if stack.end != StackEnd::Unsettled {
        return &stack.frames;
    }
    let lasts = |address: &&u64| space.is_lasting(address.wrapping_sub(1));
    let lasting = stack.frames.iter().take_while(lasts).count();
    stack.frames.get(..=lasting).unwrap_or(&stack.frames)
}

/// How a walk ended, in the words of a profile.
fn ending(end: StackEnd) -> Ending {
    match end {
        StackEnd::Whole => Ending::Whole,
        StackEnd::Gap => Ending::NoUnwindInfo,
        StackEnd::Unsupported => Ending::UnsupportedRule,
        StackEnd::Fault => Ending::Unreadable,
        StackEnd::TooDeep => Ending::TooDeep,
        StackEnd::Guessed => Ending::Guessed,
        StackEnd::Unsettled => Ending::Unsettled,
        StackEnd::NewCode => Ending::NewCode,
    }
}

#[cfg(test)]
mod tests;
