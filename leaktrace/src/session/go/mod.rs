//! The Go side of a trace: where its heap is probed, and which of the objects sampled are live.

mod holders;
mod own_profile;
mod section;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use leaktrace_common::{
    go::{GoLayout, SpanRecord, TAG_LARGE},
    probes::{CallKind, ProbeSpec},
};

pub use self::own_profile::frames;
pub use self::section::{describe_sites, sample_bytes};
use super::recorder::Recorder;
use crate::{
    go::{
        Counter, GoError, HeapProbes, LayoutSource, Moment, Rate, RateError, Runtime, Sampled,
        heap::{HandedOut, Judge, Samples, Span},
        memory_parts,
    },
    kernel::{AttachPoint, SpanEvent},
    profile::{GoMoment, Holder, MemoryPart, OwnProfile, goroutines::GoProgram},
    target::AddressSpace,
};

/// What the kernel side may still be writing when it is asked.
const SETTLING: Duration = Duration::from_millis(1);
/// Least time between two judgements, and how many times as long as one takes.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE: u32 = 30;
/// Experiments of Go under which objects are freed before a collection finds them dead.
const FREEING: [&str; 2] = ["runtimefreegc", "arenas"];
/// How many times as long as it took nothing is counted.
const COUNT_PAUSE: u32 = 20;
/// How long a program that has only begun is given before it is not believed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Go's heap in a trace.
pub struct GoTrace {
    runtime: Runtime,
    probes: HeapProbes,
    trust: Trust,
    judged: Option<Instant>,
    spent: Duration,
    opened: Instant,
    counter: Counter,
    /// When goroutines were counted last, and how long that took.
    counted: Option<(Instant, Duration)>,
    /// How many there were at the last moment, if they were counted.
    goroutines: Option<u64>,
    /// The runtime when the trace began, and when it was last looked at.
    first: Option<Moment>,
    last: Option<Moment>,
    /// Where the process's resident memory was at the end.
    memory: Vec<MemoryPart>,
    /// Go's own heap profile at the end, where it is on.
    own_profile: Option<OwnProfile>,
    /// The rate that the profile had, where another was set.
    rate: Option<Rate>,
    /// What held the live objects of each site at the end, where that was asked for.
    holders: HashMap<u32, Vec<Holder>>,
}

/// Whether what is read of the runtime is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trust {
    /// It has not been checked with success yet: it may have only begun to run.
    NotYet,
    /// It has passed the checks.
    Full,
    /// It has not; why, until that was said.
    None(Option<String>),
}

impl GoTrace {
    /// Finds the Go runtime of a process that has one.
    ///
    /// # Errors
    /// It cannot be read, or its code was not recognised.
    pub fn open(space: &AddressSpace) -> Result<Self, GoError> {
        let runtime = Runtime::find(space)?;
        let probes = runtime.probes.map_err(|why| GoError::NoProbe {
            pid: space.pid,
            version: runtime.info.version.clone(),
            why,
        })?;
        if runtime.globals.heap.is_none() {
            return Err(runtime.missing("heap"));
        }
        let mut go = Self {
            runtime,
            probes,
            trust: Trust::NotYet,
            judged: None,
            spent: Duration::ZERO,
            opened: Instant::now(),
            counter: Counter::default(),
            counted: None,
            goroutines: None,
            first: None,
            last: None,
            memory: Vec::new(),
            own_profile: None,
            rate: None,
            holders: HashMap::new(),
        };
        go.is_trusted();
        Ok(go)
    }

    /// The runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Where its heap is probed.
    pub fn points(&self) -> Vec<AttachPoint> {
        let points = [
            (self.probes.refill, CallKind::SpanRefilled),
            (self.probes.large, CallKind::SpanLarge),
            (self.probes.uncache, CallKind::SpanUncached),
        ];
        let file = &self.runtime.file;
        let point = |(address, kind): (u64, CallKind)| {
            Some(AttachPoint {
                path: file.link_path(),
                shown_path: file.name.clone(),
                offset: file.headers().file_offset(address)?,
                spec: ProbeSpec {
                    kind: kind as u32,
                    ..ProbeSpec::default()
                },
            })
        };
        points.into_iter().filter_map(point).collect()
    }

    /// Code that maps memory for the runtime, which is not the program's: the file, and virtual addresses of it.
    pub fn own_code(&self) -> impl Iterator<Item = ((u64, u64), (u64, u64))> + '_ {
        let file = self.runtime.file.identity;
        self.runtime.mapping_code.iter().map(move |&range| (file, range))
    }

    /// What the probes need to know.
    pub fn layout(&self) -> GoLayout {
        let (span, heap) = (&self.runtime.layout.mspan, self.runtime.globals.heap.unwrap_or(0));
        GoLayout {
            sweep_generation: heap.wrapping_add(self.runtime.layout.mheap.sweepgen as u64),
            span_bytes: span.needed() as u32,
            alloc_bits: span.alloc_bits as u32,
            objects: span.nelems as u32,
            wide_counts: u32::from(span.wide_counts),
            alloc_count: span.alloc_count as u32,
            zero: 0,
        }
    }

    /// What a profile says of the program.
    pub fn program(&self) -> GoProgram {
        program(&self.runtime)
    }

    /// Why nothing can be said of what is live, if so; once.
    pub fn take_objection(&mut self) -> Option<String> {
        match &mut self.trust {
            Trust::None(why) => why.take(),
            Trust::NotYet | Trust::Full => None,
        }
    }

    /// Whether enough time has passed since the last judgement, for what it takes.
    pub fn is_due(&self) -> bool {
        let pause = LEAST_PAUSE.max(self.spent * PAUSE);
        self.judged.is_none_or(|judged| judged.elapsed() >= pause)
    }

    /// Asks the collector's marks which samples are live. Nothing is changed where that cannot be told now.
    ///
    /// # Errors
    /// The process cannot be read: it has ended.
    pub fn judge(&mut self, recorder: &mut Recorder) -> Result<(), GoError> {
        if !self.is_trusted() {
            return Ok(());
        }
        let started = Instant::now();
        recorder.drain();
        // The memory is that of another program by now.
        if recorder.is_replaced() {
            return Ok(());
        }
        let judge = Judge::new(&self.runtime)?;
        if let Some(samples) = recorder.samples() {
            let filling = samples.filling();
            let taken = judge.taken(&filling)?;
            for (address, taken) in filling.into_iter().zip(taken) {
                if let Some(taken) = taken {
                    samples.set_taken(address, taken);
                }
            }
            let verdicts = judge.judge(samples)?;
            // A place can have been taken anew before its mark was read: what told of that is here by now.
            recorder.drain();
            std::thread::sleep(SETTLING);
            recorder.drain();
            let is_replaced = recorder.is_replaced();
            if let Some(samples) = recorder.samples().filter(|_| !is_replaced) {
                samples.apply(&verdicts);
            }
        }
        self.spent = started.elapsed();
        self.judged = Some(Instant::now());
        Ok(())
    }

    /// What makes the numbers less than right, before anything is known.
    pub fn cautions(&self) -> Vec<String> {
        let runtime = &self.runtime;
        let nearest = match runtime.source {
            LayoutSource::Debug | LayoutSource::Known => None,
            LayoutSource::Nearest(minor) => Some(format!(
                "the layout of {} is not known: that of go1.{minor} is used, if it stands up to the checks",
                runtime.info.version
            )),
        };
        let others = runtime.has_others.then(|| {
            format!(
                "the process has plugins or other libraries in Go: only the heap of {} is traced",
                runtime.file.name
            )
        });
        let freed = runtime
            .info
            .experiments
            .iter()
            .find(|name| FREEING.contains(&name.as_str()));
        let freed = freed.map(|name| {
            format!("the program was built with GOEXPERIMENT={name}: it takes places again unseen, so that live can be too much")
        });
        nearest.into_iter().chain(others).chain(freed).collect()
    }

    /// Sets the rate of the program's own heap profile until the end, and gives what it was.
    ///
    /// # Errors
    /// It is not to be set.
    pub fn set_rate(&mut self, rate: u64) -> Result<u64, RateError> {
        let set = Rate::set(&self.runtime, rate)?;
        Ok(self.rate.insert(set).before())
    }

    /// Puts that rate back.
    pub fn put_rate_back(&mut self) {
        self.rate = None;
    }

    /// Whether the trace has begun.
    pub fn has_begun(&self) -> bool {
        self.first.is_some()
    }

    /// The trace begins: what the runtime counts is counted from here. One that cannot be read has only begun to run.
    pub fn begin(&mut self) {
        self.first = Some(self.moment(true).unwrap_or_default());
    }

    /// What the runtime says of itself now; nothing where that cannot be read.
    pub fn moment(&mut self, is_last: bool) -> Option<Moment> {
        if !self.is_trusted() {
            return None;
        }
        self.count_goroutines(is_last);
        Moment::read(&self.runtime).ok()
    }

    /// Remembers a moment, and says what a profile says of it.
    pub fn keep(&mut self, moment: Moment) -> GoMoment {
        self.first.get_or_insert_with(|| moment.clone());
        let told = moment.told(self.goroutines);
        self.last = Some(moment);
        told
    }

    /// Counts the goroutines, unless that took long, and not long ago.
    fn count_goroutines(&mut self, is_last: bool) {
        if !is_last && self.counted.is_some_and(|(at, took)| at.elapsed() < took * COUNT_PAUSE) {
            self.goroutines = None;
            return;
        }
        let started = Instant::now();
        self.goroutines = self.counter.count(&self.runtime).ok();
        self.counted = Some((Instant::now(), started.elapsed()));
    }

    /// Takes down what is only looked at in the end, while the process is there to be read.
    pub fn look_around(&mut self, space: &AddressSpace) {
        if self.is_trusted() {
            self.memory = memory_parts(space, &self.runtime).unwrap_or_default();
            let sampled = Sampled::read(&self.runtime).ok().flatten();
            self.own_profile = sampled.map(|sampled| own_profile::told(&self.runtime, &sampled));
        }
    }

    fn is_trusted(&mut self) -> bool {
        if self.trust == Trust::NotYet {
            match self.runtime.check().and_then(|()| self.runtime.check_heap()) {
                Ok(()) => self.trust = Trust::Full,
                Err(error) if self.opened.elapsed() > PATIENCE => self.trust = Trust::None(Some(error.to_string())),
                Err(_) => {}
            }
        }
        self.trust == Trust::Full
    }
}

/// What is said of a program.
pub fn program(runtime: &Runtime) -> GoProgram {
    GoProgram {
        version: runtime.info.version.clone(),
        experiments: runtime.info.experiments.clone(),
        build_mode: runtime.info.build_mode.clone(),
        layout_of: match runtime.source {
            LayoutSource::Debug | LayoutSource::Known => None,
            LayoutSource::Nearest(minor) => Some(format!("go1.{minor}")),
        },
        layout_from: Some(runtime.source.name().to_owned()),
    }
}

/// Takes a record of the kernel side in.
pub fn take_in(samples: &mut Samples, layout: &crate::go::layout::Span, event: &SpanEvent) {
    match event {
        SpanEvent::Uncached(record) => samples.uncached(record.span, record.taken, record.thread),
        SpanEvent::HandedOut(record) => {
            if let Some(span) = Span::parse(layout, &record.description) {
                samples.handed_out(&handed_out(record, span));
            }
        }
    }
}

fn handed_out(record: &SpanRecord, span: Span) -> HandedOut<'_> {
    HandedOut {
        address: record.span,
        span,
        bits: record.bits.get(..record.bit_words as usize).unwrap_or_default(),
        large: record.tag == TAG_LARGE,
        thread: record.thread,
        site: record.site,
        cohort: record.cohort,
        generation: record.sweep_generation,
    }
}
