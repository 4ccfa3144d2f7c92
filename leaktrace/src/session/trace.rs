//! One traced program: its memory, its probes, its recorder, and the profile of any moment.

use std::{
    collections::HashSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;

use super::{
    arm,
    code::CodeTables,
    recorder::Recorder,
    snapshot::{self, Detail, Scene},
};
use crate::{
    kernel::{Tracer, Way},
    probes::plan::PlanError,
    profile::{Exit, NOT_RECORDED, Profile, TargetInfo, Window},
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
    notes: Vec<String>,
    timings: Vec<String>,
    way: Option<Way>,
    clock: Clock,
    min_age_ns: u64,
    stacks_seen: usize,
}

/// When the trace began, by both clocks.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    unix_ns: u64,
}

impl Trace {
    /// Creates the tables. Nothing of the process is touched yet.
    pub fn new(settings: &TraceSettings, process: Process) -> Result<Self> {
        let space = AddressSpace::read(process.pid)
            .with_context(|| format!("cannot read the memory map of process {}", process.pid))?;
        Ok(Self {
            target: target_info(&process),
            recorder: Recorder::new(Tracer::create(settings.limits)?),
            process,
            space,
            symbolizer: Symbolizer::new(),
            code: CodeTables::default(),
            armed: HashSet::new(),
            notes: Vec::new(),
            timings: Vec::new(),
            way: settings.way,
            clock: Clock::start(),
            min_age_ns: nanoseconds(settings.min_age),
            stacks_seen: 0,
        })
    }

    /// Places probes on the allocators that are mapped and have none yet, and says how many. Where none is found at
    /// all, the error says what was looked at.
    pub fn arm(&mut self) -> Result<Result<usize, PlanError>> {
        // A process that has ended is found out elsewhere; its last known map serves.
        let _ = self.space.refresh();
        self.build_tables();
        let planned = match arm::plan(&self.space, &mut self.armed) {
            Ok(planned) => planned,
            Err(nothing) => return Ok(Err(nothing)),
        };
        if !planned.points.is_empty() {
            let started = Instant::now();
            let way = self
                .recorder
                .tracer()
                .attach(self.process.pid, &planned.points, self.way)?;
            self.way = Some(way);
            self.recorder.tracer().set_recording(true);
            let (probes, took) = (planned.points.len(), started.elapsed());
            self.timings
                .push(format!("attached {probes} probes by {way:?} in {took:.1?}"));
            let (tables, built) = (self.recorder.tracer().unwind().used_bytes() / 1024, self.code.spent());
            self.timings
                .push(format!("unwinding tables of {tables} KiB built in {built:.1?}"));
        }
        for allocator in planned.allocators {
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

    /// What is recorded.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
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

    /// Time since the trace began.
    pub fn elapsed(&self) -> Duration {
        self.clock.started.elapsed()
    }

    /// Closes a cohort, and opens the files of new code while the process is there to show them.
    pub fn turn(&mut self) {
        let resident = self.process.resident_bytes().unwrap_or(0);
        self.recorder.turn(nanoseconds(self.elapsed()), resident);
        self.follow_code();
    }

    /// Reads the memory map again when there are stacks that it has not been read for.
    pub fn follow_code(&mut self) {
        let seen = self.recorder.stack_count();
        if seen != self.stacks_seen {
            self.stacks_seen = seen;
            if matches!(self.space.refresh(), Ok(true)) {
                self.build_tables();
            }
        }
    }

    /// Takes the probes away and reads what is left in the ring buffer: the numbers are final.
    pub fn stop(&mut self) {
        let started = Instant::now();
        self.recorder.tracer().detach();
        self.timings.push(format!("detached in {:.1?}", started.elapsed()));
        self.recorder.drain();
    }

    /// Notes how the process ended.
    pub fn set_exit(&mut self, exit: Exit) {
        self.target.exit = Some(exit);
    }

    /// The profile of this moment.
    pub fn profile(&mut self, detail: Detail) -> Result<Profile> {
        self.recorder.drain();
        let window = self.clock.window();
        let scene = Scene {
            target: &self.target,
            space: &self.space,
            window,
            min_age_ns: self.min_age_ns,
            detail,
        };
        let mut profile = snapshot::profile(&self.recorder, &mut self.symbolizer, &scene)?;
        if self.way == Some(Way::Empty) {
            profile.accounting.lost.insert(NOT_RECORDED.into(), 1);
            profile.accounting.complete = false;
        }
        Ok(profile)
    }

    fn build_tables(&mut self) {
        self.code.follow(&self.space, self.recorder.tracer());
        let notes = self.code.take_left_out().into_iter();
        self.notes
            .extend(notes.map(|what| format!("no room for the unwinding tables of {what}: stacks there are guessed")));
    }
}

impl Clock {
    fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: Instant::now(),
            unix_ns: nanoseconds(unix),
        }
    }

    fn window(self) -> Window {
        let duration_ns = nanoseconds(self.started.elapsed());
        Window {
            start_unix_ns: self.unix_ns,
            end_unix_ns: self.unix_ns + duration_ns,
            duration_ns,
        }
    }
}

fn target_info(process: &Process) -> TargetInfo {
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

/// A duration in whole nanoseconds; the longest that fits, if it does not.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
