//! One traced program: its memory, its probes, its recorder, and the profile of any moment.

mod golang;

use std::{
    collections::HashSet,
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;
use tokio::io::unix::AsyncFd;

use super::{
    arm,
    code::{self, CodeTables},
    go::GoTrace,
    loader,
    own_code::AllocatorCode,
    recorder::{Followed, Recorder},
    snapshot::{self, Detail, Scene},
    window::{Clock, nanoseconds},
};
use crate::{
    go::Runtime,
    kernel::{Limits, LoadedProgram, Tracer, UnwindLimits, Way},
    probes::plan::PlanError,
    profile::{BEGAN_UNTRACED, Exit, MAIN_THREAD_GONE, NOT_RECORDED, Profile, TargetInfo},
    settings::TraceSettings,
    symbols::Symbolizer,
    target::{AddressSpace, Process},
};

/// A traced program, from the moment its tables exist until its profile is made.
pub struct Trace {
    process: Process,
    space: AddressSpace,
    recorder: Recorder,
    symbolizer: Symbolizer,
    code: CodeTables,
    target: TargetInfo,
    armed: HashSet<(u64, u64)>,
    /// Modules with an allocator that is not traced.
    untraced: HashSet<(u64, u64)>,
    allocator_code: AllocatorCode,
    /// Go's heap, of a Go program.
    go: Option<GoTrace>,
    notes: Vec<String>,
    timings: Vec<String>,
    way: Option<Way>,
    clock: Clock,
    min_age_ns: u64,
    stacks_seen: usize,
    settled: bool,
    loader_probed: bool,
    go_armed: bool,
    remarks: Remarks,
    followed: Instant,
    looked_at: Followed,
    events: AsyncFd<OwnedFd>,
    spans: AsyncFd<OwnedFd>,
}

/// What a report has to say of the process besides its numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Remarks {
    /// Its main thread has ended.
    main_thread_gone: bool,
    /// Its program had begun before it was traced, though the process was.
    began_untraced: bool,
    /// What holds its live objects is asked for, and not found out yet.
    lacks_holders: bool,
}

/// Least time between two looks at the memory map, for a program that keeps showing new stacks; and where these end in
/// unknown code.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const LOOK_SOON: Duration = Duration::from_millis(2);

impl Trace {
    /// Creates the tables. Nothing of the process is touched yet.
    pub fn new(settings: &TraceSettings, pid: u32) -> Result<Self> {
        let no_map = || format!("cannot read the memory map of process {pid}");
        let mut space = AddressSpace::read(pid).with_context(no_map)?;
        let unwind = UnwindLimits::fitting(code::unwinding_bytes(&space));
        let has_go = Runtime::is_in(&space);
        let tracer = Tracer::create(
            Limits {
                unwind,
                go: has_go,
                ..settings.limits
            },
            settings.verbose,
        )?;
        tracer.tables().set_process(pid);
        // From here on it is told when the program is replaced. Looked at only now, so that it is not taken for another.
        let process = Process::open(pid)?;
        if space.refresh().with_context(no_map)? {
            space = AddressSpace::read(pid).with_context(no_map)?;
        }
        tracer.tables().set_stack_start(process.stack_start);
        let mut recorder = Recorder::new(tracer);
        let mut symbolizer = Symbolizer::new();
        symbolizer.follow(&space);
        let (mut go, mut notes) = golang::open_go(&space, has_go);
        notes.extend(settings.go_rate.map(|rate| golang::set_rate(go.as_mut(), rate)));
        if let Some(go) = &go {
            recorder.sample(settings.limits.live as usize, go.runtime().layout.mspan.clone());
        }
        Ok(Self {
            target: target_info(&process),
            events: watched(recorder.tracer().events_fd())?,
            spans: watched(recorder.tracer().spans_fd())?,
            recorder,
            process,
            space,
            symbolizer,
            code: CodeTables::default(),
            armed: HashSet::new(),
            untraced: HashSet::new(),
            allocator_code: AllocatorCode::default(),
            go,
            notes,
            timings: Vec::new(),
            way: settings.way,
            clock: Clock::new(),
            min_age_ns: nanoseconds(settings.min_age),
            stacks_seen: 0,
            settled: false,
            loader_probed: false,
            go_armed: false,
            remarks: Remarks {
                lacks_holders: settings.reach,
                ..Remarks::default()
            },
            followed: Instant::now(),
            looked_at: Followed::default(),
        })
    }

    /// Places probes on the allocators that are mapped and have none yet, and says how many. Where none is found at
    /// all, the error says what was looked at.
    pub fn arm(&mut self) -> Result<Result<usize, PlanError>> {
        self.recorder.drain();
        self.refresh();
        self.build_tables();
        self.watch_loader();
        let mut planned = match arm::plan(&self.space, &mut self.armed) {
            Ok(planned) => planned,
            Err(_) if self.go.is_some() => arm::Planned::default(),
            Err(nothing) => return Ok(Err(nothing)),
        };
        self.plan_go(&mut planned)?;
        self.allocator_code.extend(planned.own_code);
        self.place_allocator_code()?;
        if !planned.points.is_empty() {
            let started = Instant::now();
            let way = self
                .recorder
                .tracer()
                .attach(self.process.pid, &planned.points, self.way)?;
            self.clock.begin();
            self.way = Some(way);
            self.recorder.tracer().set_recording(true);
            if let Some(go) = self.go.as_mut().filter(|go| !go.has_begun()) {
                go.begin();
            }
            let (probes, took) = (planned.points.len(), started.elapsed());
            self.timings
                .push(format!("attached {probes} probes by {way:?} in {took:.1?}"));
            let loaded = self.recorder.tracer().take_loaded();
            self.timings.extend(loaded.iter().map(said_of_program));
            let (tables, built) = (self.recorder.tracer().unwind().used_bytes() / 1024, self.code.spent());
            self.timings
                .push(format!("unwinding tables of {tables} KiB built in {built:.1?}"));
        }
        let (modules, names): (Vec<_>, Vec<_>) = planned.untraced.into_iter().unzip();
        self.untraced.extend(modules);
        let untraced = names.into_iter().map(|name| format!("{name} (not traced)"));
        for allocator in planned.allocators.into_iter().chain(untraced) {
            if !self.target.allocators.contains(&allocator) {
                self.target.allocators.push(allocator);
            }
        }
        self.notes.extend(planned.notes);
        Ok(Ok(planned.points.len()))
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Whether the program is started by a loader, which maps its libraries.
    pub fn has_loader(&self) -> bool {
        arm::has_loader(&self.space, &self.process.exe)
    }

    /// Names of the allocators traced.
    pub fn allocators(&self) -> &[String] {
        &self.target.allocators
    }

    /// What is not seen, and why; each once.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// What took how long, since last asked: for those who want to know more.
    pub fn timings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.timings)
    }

    /// Waits until the kernel side has something to tell.
    pub async fn events_ready(&self) {
        let ready = tokio::select! {
            ready = self.events.readable() => ready,
            ready = self.spans.readable() => ready,
        };
        if let Ok(mut ready) = ready {
            ready.clear_ready();
        }
    }

    /// Whether the process has replaced its program: the trace is of the one before.
    pub fn is_replaced(&self) -> bool {
        self.recorder.is_replaced()
    }

    /// The libraries and the program whose code is mapped.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Takes in what the kernel side tells.
    pub fn drain(&mut self) {
        self.recorder.drain();
        let since = self.followed.elapsed();
        if since >= LOOK_AGAIN || (since >= LOOK_SOON && self.recorder.take_unknown_code()) {
            self.follow_code();
        }
        if since >= LOOK_SOON && self.recorder.take_code_changed() {
            self.look_at_code();
        }
    }

    /// Closes a cohort, and opens the files of new code while the process is there to show them.
    pub fn turn(&mut self) {
        self.judge(false);
        self.measure();
        self.look_for_main_thread();
        self.follow_code();
        self.symbolizer.follow(&self.space);
    }

    /// Reads the memory map again when there are stacks that it has not been read for.
    pub fn follow_code(&mut self) {
        let seen = self.recorder.stack_count();
        // Of a process that has replaced its program, the map is the new one's.
        if seen != self.stacks_seen && !self.is_replaced() {
            self.stacks_seen = seen;
            self.look_at_code();
        }
    }

    fn look_at_code(&mut self) {
        self.followed = Instant::now();
        if !self.is_replaced() && self.refresh() {
            self.build_tables();
            if let Err(error) = self.place_allocator_code() {
                self.notes.push(error.to_string());
            }
        }
        self.recorder.set_followed(self.looked_at);
    }

    /// Reads the memory map again, and says whether code was mapped or unmapped. Of a process that has ended, which is
    /// found out elsewhere, the last known map serves.
    fn refresh(&mut self) -> bool {
        let removed = self.recorder.tracer().tables().code_removed();
        if removed != self.looked_at.removed {
            self.space.begin_era();
        }
        let Ok(changed) = self.space.refresh() else {
            return false;
        };
        let era = self.space.era();
        self.looked_at = Followed { removed, era };
        changed
    }

    /// Has the kernel side told when the loader maps or unmaps code. Without that, it is looked for once a second.
    fn watch_loader(&mut self) {
        if self.loader_probed || !self.way.is_none_or(Way::records) {
            return;
        }
        if let Some((point, is_adding)) = loader::point(&self.space) {
            if is_adding {
                self.recorder.tracer().tables().set_code_arriving();
            }
            let attached = self.recorder.tracer().attach(self.process.pid, &[point], self.way);
            self.loader_probed = attached.is_ok();
        }
    }

    /// Takes the probes away and settles the numbers.
    pub fn stop(&mut self) -> Result<()> {
        self.look_for_main_thread();
        self.judge(true);
        if self.is_still_the_same()
            && let Some(go) = &mut self.go
        {
            go.look_around(&self.space);
        }
        if let Some(go) = &mut self.go {
            go.put_rate_back();
        }
        // Names for what was seen last, while the process is there to give them.
        self.recorder.drain();
        self.follow_code();
        self.symbolizer.follow(&self.space);
        let started = Instant::now();
        self.clock.end();
        self.recorder.tracer().detach();
        self.timings.push(format!("detached in {:.1?}", started.elapsed()));
        self.settle()?;
        self.look_for_holders();
        Ok(())
    }

    /// Stops recording, and takes in all that has been recorded: the numbers are final.
    pub fn settle(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.settled, true) {
            return Ok(());
        }
        self.recorder.tracer().set_recording(false);
        self.clock.end();
        self.recorder.tracer().settle()?;
        self.measure();
        Ok(())
    }

    /// Notes that the program had begun before it was traced, though its process was.
    pub fn set_began_untraced(&mut self) {
        self.remarks.began_untraced = true;
    }

    /// Notes how the process ended.
    pub fn set_exit(&mut self, exit: Exit) {
        self.target.exit = Some(exit);
    }

    /// The profile of this moment.
    pub fn profile(&mut self, detail: Detail) -> Result<Profile> {
        self.recorder.drain();
        self.judge(detail == Detail::Full);
        let window = self.clock.window();
        let scene = Scene {
            target: &self.target,
            space: &self.space,
            window,
            min_age_ns: self.min_age_ns,
            detail,
            untraced: &self.untraced,
            go: self.go.as_ref(),
        };
        let mut profile = snapshot::profile(&self.recorder, &mut self.symbolizer, &scene)?;
        if !self.way.is_none_or(Way::records) {
            profile.accounting.lost.insert(NOT_RECORDED.into(), 1);
            profile.accounting.complete = false;
        }
        if self.remarks.began_untraced {
            profile.accounting.notes.insert(BEGAN_UNTRACED.into(), 1);
        }
        if self.remarks.main_thread_gone || self.recorder.main_thread_ended() {
            profile.accounting.lost.insert(MAIN_THREAD_GONE.into(), 1);
            profile.accounting.complete = false;
        }
        Ok(profile)
    }

    /// The kernel finds a process's memory by its main thread. Once that is gone, it takes a process for one that nobody
    /// traces when another trace of the same file ends, and takes the breakpoints away without a word. The kernel side
    /// tells when it ends by itself; this is for one that ended before there was anybody to tell, or was killed alone.
    fn look_for_main_thread(&mut self) {
        self.remarks.main_thread_gone |= self.process.main_thread_gone();
    }

    fn measure(&mut self) {
        let resident = self.process.resident_bytes().unwrap_or(0);
        let is_last = self.settled;
        let moment = self.go.as_mut().and_then(|go| go.moment(is_last));
        let moment = moment.filter(|_| self.is_still_the_same());
        let go = self.go.as_mut().zip(moment).map(|(go, moment)| go.keep(moment));
        self.recorder.turn(nanoseconds(self.clock.elapsed()), resident, go);
    }

    fn place_allocator_code(&mut self) -> Result<()> {
        let (own, left_out) = self.allocator_code.locate(&self.space);
        if left_out > 0 {
            self.notes.push(format!(
                "more allocators than can be told apart: what {left_out} of them map for themselves is shown as the program's"
            ));
        }
        self.recorder.tracer().set_own_code(self.process.pid, &own)?;
        Ok(())
    }

    fn build_tables(&mut self) {
        self.code.follow(&self.space, self.recorder.tracer());
        self.recorder.set_followed(self.looked_at);
        let notes = self.code.take_left_out().into_iter();
        self.notes
            .extend(notes.map(|what| format!("no room for the unwinding tables of {what}: stacks there are guessed")));
    }
}

/// Watches a descriptor of its own, so that the original can come and go.
pub fn watched(descriptor: BorrowedFd<'_>) -> Result<AsyncFd<OwnedFd>> {
    let copy = descriptor.try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` gives the same open descriptor for as long as it lives.
    Ok(unsafe { AsyncFd::register(copy) }?)
}

fn said_of_program(program: &LoadedProgram) -> String {
    let verified = program
        .verified
        .map_or_else(String::new, |count| format!(", {count} instructions verified"));
    format!("loaded {} in {:.1?}{verified}", program.name, program.took)
}

/// What a profile says of a process.
pub(super) fn target_info(process: &Process) -> TargetInfo {
    let system = uname().ok();
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    TargetInfo {
        pids: vec![process.pid],
        command: process.command.clone(),
        exe: process.exe.display().to_string(),
        build_id: process.build_id.clone(),
        language: process.language.into(),
        allocators: Vec::new(),
        host: text(system.as_ref().map(nix::sys::utsname::UtsName::nodename)),
        kernel: text(system.as_ref().map(nix::sys::utsname::UtsName::release)),
        exit: None,
    }
}
