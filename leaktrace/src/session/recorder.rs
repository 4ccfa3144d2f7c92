//! What a trace has seen so far: totals in the kernel's tables, ranges and stacks kept here, and their history.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

use leaktrace_common::{
    events::{ProcessRecord, ProcessStep, StackEnd},
    sites::{Amount, COHORT_SLOTS, OVERFLOW_SITE},
};

use super::{
    cohorts::{Cohorts, plus},
    go,
    ranges::Ranges,
};
use crate::{
    analysis::History,
    go::heap::{Estimate, Samples, SiteEstimate},
    go::layout,
    kernel::{CounterValues, Event, KernelError, Tracer},
    profile::{GoMoment, TimelinePoint},
    target::Era,
};

/// Most records of spans taken in at once: more than the buffer holds.
const MAX_SPANS: usize = 1 << 18;
/// Most points of the timeline; every second one goes when it is full.
const MAX_TIMELINE: usize = 2048;

/// A site as seen by this room.
#[derive(Clone, Debug)]
pub struct SiteRecord {
    /// Hash of process and frames.
    pub hash: u64,
    /// Return addresses, innermost first.
    pub frames: Vec<u64>,
    /// How the walk ended.
    pub end: StackEnd,
    /// When it was taken.
    pub era: Era,
    /// Live bytes over time.
    pub history: History,
}

/// Totals of a site at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct SiteNow {
    /// All that was allocated.
    pub allocated: Amount,
    /// What is live, by cohort slot.
    pub live: [Amount; COHORT_SLOTS],
}

impl SiteNow {
    /// What is live, of every age.
    pub fn live(&self) -> Amount {
        self.live.iter().copied().fold(Amount::default(), plus)
    }
}

/// Records one process until it ends or is replaced. Times are nanoseconds since the recording began.
pub struct Recorder {
    tracer: Tracer,
    cohorts: Cohorts,
    ranges: Ranges,
    samples: Option<(Samples, layout::Span)>,
    sites: HashMap<u32, SiteRecord>,
    timeline: Vec<TimelinePoint>,
    followed: Followed,
    code_news: CodeNews,
    replaced: bool,
    main_thread_ended: bool,
}

impl Recorder {
    /// Makes everything ready. Recording is to be switched on when probes are in place: a block that is seen being
    /// born must be seen when it is freed.
    pub fn new(tracer: Tracer) -> Self {
        let cohorts = Cohorts::new(0);
        tracer.tables().set_slot(0, 0);
        tracer.tables().set_cohort(0);
        Self {
            tracer,
            cohorts,
            ranges: Ranges::default(),
            samples: None,
            sites: HashMap::new(),
            timeline: Vec::new(),
            followed: Followed::default(),
            code_news: CodeNews::default(),
            replaced: false,
            main_thread_ended: false,
        }
    }

    /// The kernel side.
    pub fn tracer(&mut self) -> &mut Tracer {
        &mut self.tracer
    }

    /// Samples Go's heap from now on, at most `limit` objects that may be live; spans are described as `layout` says.
    pub fn sample(&mut self, limit: usize, layout: layout::Span) {
        self.samples = Some((Samples::new(limit), layout));
    }

    /// The samples of Go's heap, if it is traced.
    pub fn samples(&mut self) -> Option<&mut Samples> {
        self.samples.as_mut().map(|(samples, _)| samples)
    }

    /// The site at which an object of Go's heap was allocated, if it is a sample that may be live.
    pub fn site_of(&self, address: u64) -> Option<u32> {
        let (samples, _) = self.samples.as_ref()?;
        samples.site_of(address)
    }

    /// What is known of the sites of Go's heap.
    pub fn estimates(&self) -> HashMap<u32, SiteEstimate> {
        let samples = self.samples.as_ref();
        samples.map_or_else(HashMap::new, |(samples, _)| samples.sites())
    }

    /// How many samples there was no room for.
    pub fn refused_samples(&self) -> u64 {
        self.samples.as_ref().map_or(0, |(samples, _)| samples.refused())
    }

    /// Takes in all waiting records.
    pub fn drain(&mut self) {
        while let Some(event) = self.tracer.next_event() {
            match event {
                Event::Stack {
                    site,
                    hash,
                    frames,
                    end,
                    code_removed,
                    ..
                } => {
                    let (history, era) = (History::default(), self.followed.era(code_removed, end));
                    self.code_news.unknown |= matches!(end, StackEnd::Gap | StackEnd::NewCode);
                    self.sites.entry(site).or_insert(SiteRecord {
                        hash,
                        frames,
                        end,
                        era,
                        history,
                    });
                }
                Event::Mapping(record) => self.ranges.apply(&record),
                Event::Process(record) => self.note(&record),
            }
        }
        if let Some((samples, layout)) = &mut self.samples {
            // Not without end: a program can tell as fast as is read.
            for event in std::iter::from_fn(|| self.tracer.next_span()).take(MAX_SPANS) {
                go::take_in(samples, layout, &event);
            }
        }
    }

    /// Whether the process has replaced its program.
    pub fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// Whether the main thread has ended by itself.
    pub fn main_thread_ended(&self) -> bool {
        self.main_thread_ended
    }

    /// Closes a cohort and takes every site's live bytes down in its history.
    pub fn turn(&mut self, now_ns: u64, resident_bytes: u64, go: Option<GoMoment>) {
        self.drain();
        self.turn_cohorts(now_ns);
        let mut total = Amount::default();
        for (index, now) in self.now() {
            let live = now.live();
            total = plus(total, live);
            if let Some(site) = self.sites.get_mut(&index) {
                site.history.push(now_ns, positive(live.bytes));
            }
        }
        self.push_point(now_ns, total, resident_bytes, go);
    }

    /// Totals of every site, mappings included.
    pub fn now(&self) -> BTreeMap<u32, SiteNow> {
        let mut sites: BTreeMap<u32, SiteNow> = self
            .tracer
            .sites()
            .map(|(index, totals)| {
                (
                    index,
                    SiteNow {
                        allocated: totals.allocated,
                        live: totals.live,
                    },
                )
            })
            .collect();
        for (index, amount) in self.ranges.allocated() {
            let site = sites.entry(*index).or_default();
            site.allocated = plus(site.allocated, *amount);
        }
        for mapped in self.ranges.live() {
            let slot = self.cohorts.slot_of(mapped.cohort) as usize % COHORT_SLOTS;
            let site = sites.entry(mapped.site).or_default();
            site.live[slot] = plus(
                site.live[slot],
                Amount {
                    bytes: mapped.bytes as i64,
                    count: 1,
                },
            );
        }
        for (index, estimate) in self.estimates() {
            let site = sites.entry(index).or_default();
            site.allocated = plus(site.allocated, amount(&estimate.allocated));
            for (cohort, live) in &estimate.cohorts {
                let slot = self.cohorts.slot_of(*cohort) as usize % COHORT_SLOTS;
                site.live[slot] = plus(site.live[slot], amount(live));
            }
        }
        sites
    }

    /// What is known of a site's stack; nothing for the site that stands for all stacks not kept.
    pub fn site(&self, index: u32) -> Option<&SiteRecord> {
        self.sites.get(&index).filter(|_| index != OVERFLOW_SITE)
    }

    /// Number of stacks seen.
    pub fn stack_count(&self) -> usize {
        self.sites.len()
    }

    /// Whether stacks have ended in code without tables since last asked: code that may have been mapped only now.
    pub fn take_unknown_code(&mut self) -> bool {
        std::mem::take(&mut self.code_news.unknown)
    }

    /// Whether the loader has mapped or unmapped code since last asked.
    pub fn take_code_changed(&mut self) -> bool {
        std::mem::take(&mut self.code_news.changed)
    }

    /// Says which code is known from now on.
    pub fn set_followed(&mut self, followed: Followed) {
        self.tracer.tables().set_code_followed(followed.removed);
        self.followed = followed;
    }

    /// Ages.
    pub fn cohorts(&self) -> &Cohorts {
        &self.cohorts
    }

    /// Totals over time.
    pub fn timeline(&self) -> &[TimelinePoint] {
        &self.timeline
    }

    /// What the kernel side counted.
    pub fn counters(&self) -> Result<CounterValues, KernelError> {
        self.tracer.counters()
    }

    fn note(&mut self, record: &ProcessRecord) {
        self.code_news.changed |= record.step == ProcessStep::CodeChanged as u32;
        self.replaced |= record.step == ProcessStep::Executed as u32;
        self.main_thread_ended |= record.step == ProcessStep::MainThreadEnded as u32;
    }

    fn turn_cohorts(&mut self, now_ns: u64) {
        let turn = self.cohorts.turn(now_ns);
        let tables = self.tracer.tables();
        if let Some((from, to)) = turn.merge {
            tables.merge_slots(from, to);
        }
        if let Some((labels, slot)) = turn.relabel {
            labels.for_each(|label| tables.set_slot(label, slot));
        }
        if let Some((label, slot)) = turn.next {
            tables.set_slot(label, slot);
            tables.set_cohort(label);
        }
    }

    fn push_point(&mut self, at_ns: u64, live: Amount, resident_bytes: u64, go: Option<GoMoment>) {
        if self.timeline.len() >= MAX_TIMELINE {
            let mut keep = false;
            self.timeline.retain(|_| {
                keep = !keep;
                keep
            });
        }
        let (live_bytes, live_count) = (positive(live.bytes), positive(live.count));
        self.timeline.push(TimelinePoint {
            at_ns,
            live_bytes,
            live_count,
            resident_bytes,
            go,
        });
    }
}

fn amount(estimate: &Estimate) -> Amount {
    Amount {
        bytes: estimate.bytes() as i64,
        count: estimate.count() as i64,
    }
}

/// What is a reason to read the memory map again.
#[derive(Clone, Copy, Debug, Default)]
struct CodeNews {
    /// A stack has ended in unknown code.
    unknown: bool,
    /// The loader has mapped or unmapped code.
    changed: bool,
}

/// Which code is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Followed {
    /// How often the loader had unmapped code when the memory map was last read.
    pub removed: u64,
    /// The era since then.
    pub era: u32,
}

impl Followed {
    /// When a stack was taken that was begun after so many removals. One that falls between a removal and the reading
    /// of the memory map can be of either era: only code that was there in both is known to be in it.
    fn era(self, removed: u64, end: StackEnd) -> Era {
        let (from, to) = match removed.cmp(&self.removed) {
            _ if end == StackEnd::Unsettled => (self.era, self.era + 1),
            Ordering::Less => (self.era.saturating_sub(1), self.era),
            Ordering::Equal => (self.era, self.era),
            Ordering::Greater => (self.era, self.era + 1),
        };
        Era { from, to }
    }
}

/// A total that is read while it changes can be below zero for a moment.
pub fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
