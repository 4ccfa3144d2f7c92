//! From what was read of the goroutines to what is said of them.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use crate::{
    go::{
        Chains, GoError, Runtime, Snapshot, State,
        reach::{self, Object},
        shown,
    },
    profile::{
        Ending, Frame, Stack, Tool,
        goroutines::{CreationSite, GoroutineCount, GoroutineStack, Goroutines, Leaks, SCHEMA, Single},
    },
    session::{
        go::{self, frames},
        trace::target_info,
        window::{Clock, nanoseconds},
    },
    target::Process,
};

/// Looks at the goroutines of one process, and remembers what it saw first.
pub struct Viewer {
    runtime: Runtime,
    chains: Chains,
    clock: Clock,
    /// Everything that is the same at each look.
    frame: Goroutines,
    /// At the first look, how many each site had made.
    first: Option<HashMap<(u64, u64), u64>>,
    timeline: Vec<GoroutineCount>,
    calls: HashMap<u64, Vec<Frame>>,
    names: HashMap<u64, String>,
    reading: Duration,
}

/// Time between the two looks of a proof.
const BETWEEN_PROOFS: Duration = Duration::from_millis(500);
/// How many things that goroutines wait for are named for each stack.
const MAX_OBJECTS: usize = 8;

/// Where goroutines come from: the return address of the `go` statement, and the function they run.
type SiteKey = (u64, u64);

impl Viewer {
    /// Looks at the goroutines of `process`, whose runtime is given.
    pub fn new(process: &Process, runtime: Runtime) -> Self {
        let frame = Goroutines {
            schema: SCHEMA.to_owned(),
            tool: Tool {
                name: env!("CARGO_PKG_NAME").into(),
                version: env!("CARGO_PKG_VERSION").into(),
            },
            target: target_info(process),
            go: go::program(&runtime),
            ..Goroutines::default()
        };
        Self {
            runtime,
            chains: Chains::default(),
            clock: Clock::new(),
            frame,
            first: None,
            timeline: Vec::new(),
            calls: HashMap::new(),
            names: HashMap::new(),
            reading: Duration::ZERO,
        }
    }

    /// What is to be said before the first look.
    pub fn notes(&self) -> Vec<String> {
        let go = &self.frame.go;
        let nearest = go.layout_of.as_ref().map(|version| {
            format!(
                "the layout of {} is not known: that of {version} is used, and has passed the checks",
                go.version
            )
        });
        nearest.into_iter().collect()
    }

    /// How long the last look took to read the process's memory.
    pub fn reading(&self) -> Duration {
        self.reading
    }

    /// Forgets what is kept from one look to the next, but for when the first was.
    pub fn forget(&mut self) {
        self.chains = Chains::default();
        self.first = None;
        self.timeline.clear();
        self.calls.clear();
        self.names.clear();
    }

    /// All goroutines of this moment.
    pub fn look(&mut self) -> Result<Goroutines, GoError> {
        if self.first.is_none() {
            self.clock.begin();
        }
        let started = Instant::now();
        let snapshot = Snapshot::take(&self.runtime, &mut self.chains, true)?;
        self.reading = started.elapsed();
        Ok(self.tell(&snapshot, &Lost::new()))
    }

    /// All goroutines, with proof of those that nobody can wake.
    pub fn look_for_leaks(&mut self) -> Result<Goroutines, GoError> {
        let first = Snapshot::take(&self.runtime, &mut self.chains, false)?;
        let before = reach::unreachable(&self.runtime, &first)?;
        std::thread::sleep(BETWEEN_PROOFS);
        if self.first.is_none() {
            self.clock.begin();
        }
        let second = Snapshot::take(&self.runtime, &mut self.chains, true)?;
        let mut found = reach::unreachable(&self.runtime, &second)?;
        found
            .lost
            .retain(|goroutine, objects| before.lost.get(goroutine) == Some(objects));
        let mut told = self.tell(&second, &found.lost);
        told.leaks = Some(Leaks {
            proven: found.lost.len() as u64,
            examined: found.examined,
            heap_bytes: found.heap_bytes,
            unreadable_bytes: found.unreadable,
        });
        Ok(told)
    }

    fn tell(&mut self, snapshot: &Snapshot, lost_ones: &Lost) -> Goroutines {
        let mut told = self.frame.clone();
        let mut sites: HashMap<SiteKey, CreationSite> = HashMap::new();
        let mut stacks: HashMap<GroupKey, GoroutineStack> = HashMap::new();
        for (key, group) in groups(snapshot, lost_ones) {
            let state = self.state(key.1);
            match self.kind(key.0.1, &state) {
                Kind::System => {
                    told.system += group.count;
                    continue;
                }
                Kind::Callback => {}
                Kind::User => told.num_goroutine += group.count,
            }
            let site = sites.entry(key.0).or_default();
            site.count += group.count;
            site.leaked += group.leaked;
            site.longest_wait_ns = site.longest_wait_ns.max(group.longest_wait_ns);
            *site.states.entry(state.clone()).or_default() += group.count;
            stacks.insert(key, GoroutineStack { state, ..group });
        }
        told.count = sites.values().map(|site| site.count).sum();
        self.remember(&sites, told.count);
        told.first_count = self.first.iter().flat_map(HashMap::values).sum();
        told.window = self.clock.window();
        told.timeline.clone_from(&self.timeline);
        told.lost = lost(snapshot);
        self.add_sites(&mut told, sites, stacks, snapshot);
        told
    }

    /// The first look is what the others are compared with.
    fn remember(&mut self, sites: &HashMap<SiteKey, CreationSite>, count: u64) {
        self.first
            .get_or_insert_with(|| sites.iter().map(|(key, site)| (*key, site.count)).collect());
        self.timeline.push(GoroutineCount {
            at_ns: nanoseconds(self.clock.elapsed()),
            count,
        });
    }

    fn add_sites(
        &mut self,
        told: &mut Goroutines,
        sites: HashMap<SiteKey, CreationSite>,
        stacks: HashMap<GroupKey, GoroutineStack>,
        snapshot: &Snapshot,
    ) {
        let mut sites: Vec<(SiteKey, CreationSite)> = sites.into_iter().collect();
        sites.sort_by_key(|(key, site)| (std::cmp::Reverse(site.count), *key));
        let index: HashMap<SiteKey, usize> = sites.iter().enumerate().map(|(at, (key, _))| (*key, at)).collect();
        for (key, mut site) in sites {
            site.first_count = self
                .first
                .as_ref()
                .and_then(|first| first.get(&key).copied())
                .unwrap_or(0);
            site.id = format!("{:016x}", key.0.rotate_left(24) ^ key.1);
            site.start = self.name(key.1);
            site.start_address = key.1;
            site.created_by = self.creator(key.0, &site.start);
            *told.starts.entry(site.start.clone()).or_default() += site.count;
            for (state, count) in &site.states {
                *told.states.entry(state.clone()).or_default() += count;
            }
            told.sites.push(site);
        }
        for ((key, _, stack), mut one) in stacks {
            one.site = index.get(&key).copied().unwrap_or_default();
            one.stack = self.stack(snapshot.stacks.get(stack));
            told.stacks.push(one);
        }
        let order = |one: &GoroutineStack| (std::cmp::Reverse(one.count), one.site);
        told.stacks
            .sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.state.cmp(&b.state)));
        told.offsets = self.offsets(told);
    }

    /// How far the return addresses of what is told are from the beginnings of their functions.
    fn offsets(&self, told: &Goroutines) -> BTreeMap<u64, u64> {
        let stacks = told.stacks.iter().flat_map(|one| &one.stack.frames);
        let frames = stacks.chain(told.sites.iter().flat_map(|site| &site.created_by));
        let known = frames.filter_map(|frame| {
            let address = frame.address.wrapping_sub(self.runtime.bias);
            let function = self.runtime.table.find(address.wrapping_sub(1))?;
            Some((frame.address, address.checked_sub(function.start)?))
        });
        known.collect()
    }

    /// Where a goroutine was made; nowhere, if the runtime did it before the program began.
    fn creator(&mut self, address: u64, start: &str) -> Vec<Frame> {
        if address == 0 || start == "runtime.main" {
            return Vec::new();
        }
        self.frames(address)
    }

    fn stack(&mut self, addresses: &[u64]) -> Stack {
        let whole = self.chains.is_whole(&self.runtime, addresses.last());
        Stack {
            whole,
            end: if whole { Ending::Whole } else { Ending::Unknown },
            frames: addresses.iter().flat_map(|&address| self.frames(address)).collect(),
        }
    }

    /// The calls at a return address, innermost first.
    fn frames(&mut self, address: u64) -> Vec<Frame> {
        let runtime = &self.runtime;
        let frames = self.calls.entry(address).or_insert_with(|| frames(runtime, address));
        frames.clone()
    }

    /// The name of the function that begins at an address.
    fn name(&mut self, start: u64) -> String {
        let runtime = &self.runtime;
        let name = self.names.entry(start).or_insert_with(|| {
            let function = runtime.table.find(start.wrapping_sub(runtime.bias));
            let name = function.and_then(|function| runtime.table.name(&function));
            name.map_or_else(|| "[unknown]".to_owned(), shown)
        });
        name.clone()
    }

    /// A state as Go prints it.
    fn state(&self, state: State) -> String {
        let reason = |number: u8, otherwise: &str| match self.runtime.reasons.get(usize::from(number)) {
            Some(reason) if !reason.is_empty() => reason.clone(),
            _ if number == 0 => otherwise.to_owned(),
            _ => format!("{otherwise} (reason {number})"),
        };
        match state {
            State::Runnable => "runnable".to_owned(),
            State::Running => "running".to_owned(),
            State::Syscall => "syscall".to_owned(),
            State::Waiting(number) => reason(number, "waiting"),
            State::Copying => "copystack".to_owned(),
            State::Preempted => "preempted".to_owned(),
            State::Leaked(number) => format!("{} (leaked)", reason(number, "waiting")),
        }
    }

    /// Whose a goroutine is, as the runtime itself decides it: by the name of its function.
    fn kind(&mut self, start: u64, state: &str) -> Kind {
        let name = self.name(start);
        let is_idle = |reason| state == reason || state == "runnable";
        match name.as_str() {
            "runtime.main" | "runtime.handleAsyncEvent" | "runtime.corostart" => Kind::User,
            // These call functions of the program, and are the program's while they do.
            "runtime.runfinq" | "runtime.runFinalizers" if is_idle("finalizer wait") => Kind::System,
            "runtime.runCleanups" if is_idle("cleanup wait") => Kind::System,
            "runtime.runfinq" | "runtime.runFinalizers" | "runtime.runCleanups" => Kind::Callback,
            _ if name.starts_with("runtime.") => Kind::System,
            _ => Kind::User,
        }
    }
}

/// Goroutines that were made by one statement and do the same: of one state, with one stack.
type GroupKey = (SiteKey, State, usize);

/// Puts goroutines together that are alike. Names are looked up once for each group, of which there are few.
fn groups(snapshot: &Snapshot, lost_ones: &Lost) -> HashMap<GroupKey, GoroutineStack> {
    let now = monotonic_ns();
    let mut groups: HashMap<GroupKey, GoroutineStack> = HashMap::new();
    for (goroutine, &stack) in snapshot.goroutines.iter().zip(&snapshot.stack_of) {
        let key = ((goroutine.created_at, goroutine.start), goroutine.state, stack);
        let wait = (goroutine.waiting_since > 0).then(|| now.saturating_sub(goroutine.waiting_since));
        let group = groups.entry(key).or_default();
        let lost = lost_ones.get(&(goroutine.address, goroutine.id));
        group.count += 1;
        group.longest_wait_ns = group.longest_wait_ns.max(wait);
        group.each.push(Single {
            id: goroutine.id,
            parent: goroutine.parent,
            waited_ns: wait,
            leaked: lost.is_some(),
        });
        if let Some(objects) = lost {
            group.leaked += 1;
            add_objects(&mut group.blocked_on, objects);
        }
    }
    groups
}

/// Whose a goroutine is.
enum Kind {
    /// The program's.
    User,
    /// The runtime's own.
    System,
    /// The runtime's own, but running functions of the program: `runtime.NumGoroutine` does not count it.
    Callback,
}

/// What goroutines that nobody can wake wait for, by the address of their structure and their number.
type Lost = HashMap<(u64, u64), Vec<Object>>;

/// Adds what a goroutine waits for, as long as there is room.
fn add_objects(blocked_on: &mut Vec<String>, objects: &[Object]) {
    let shown = objects.iter().map(|object| match object {
        Object::Channel(address) => format!("channel {address:#x}"),
        Object::Semaphore(address) => format!("semaphore {address:#x}"),
    });
    let nothing = objects.is_empty().then(|| "nothing".to_owned());
    for object in shown.chain(nothing) {
        if blocked_on.len() < MAX_OBJECTS && !blocked_on.contains(&object) {
            blocked_on.push(object);
        }
    }
}

/// What could not be told, without what did not happen.
fn lost(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let counts = [
        ("ended_while_read", snapshot.ended),
        ("changing_while_read", snapshot.changing),
        ("unreadable", snapshot.unreadable),
    ];
    let happened = counts.into_iter().filter(|(_, count)| *count > 0);
    happened.map(|(name, count)| (name.to_owned(), count)).collect()
}

/// The clock that the runtime keeps its times by.
fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| nanoseconds(Duration::from(time)))
}
