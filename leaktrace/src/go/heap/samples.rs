//! Samples of the objects of Go's heap. Pure.
//!
//! A span is handed out to be filled, and is given back. The object at its first free place is allocated at once, and
//! its stack is known: it is the sample. For how many objects it stands, [`Weights`] knows.
//!
//! Objects that no collection has judged yet are taken to survive as the others of their site have, in the same part.
//!
//! A place that is free again is only taken again after its span has been handed out anew. So at that moment all samples
//! in its pages are dropped that are not there any more; what is left is what it was.

use std::collections::{BTreeMap, HashMap};

use super::estimate::Weight;
use super::weights::{Filled, Id, Weights};
use super::{Estimate, Span};

/// Cohorts that stay open besides the newest: their spans may still be being filled.
const OPEN_COHORTS: u32 = 10;

/// A span that was handed out.
#[derive(Clone, Copy, Debug)]
pub struct HandedOut<'a> {
    /// Address of its description.
    pub address: u64,
    /// What that said.
    pub span: Span,
    /// Which of its places are taken, as far as they are not below the free index: a bit for each.
    pub bits: &'a [u64],
    /// Whether it is one large object.
    pub large: bool,
    /// The thread that asked for it.
    pub thread: u32,
    /// Whose stack that was.
    pub site: u32,
    /// Label of the cohort.
    pub cohort: u32,
    /// The heap's sweep generation at that time.
    pub generation: u32,
}

/// A sampled object that may be live.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// First byte of its span.
    pub base: u64,
    /// Bytes of an object.
    pub object_size: u64,
    /// The heap's sweep generation when it was allocated.
    pub generation: u32,
    /// Tells it from others that were at the same address.
    pub number: u64,
    site: u32,
    cohort: u32,
    /// Whether it has been seen to be live; else it is too young to be judged.
    is_live: bool,
    stands_for: StandsFor,
}

/// For how many objects a sample stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum StandsFor {
    /// That depends on others of its cohort.
    Open(Id),
    /// So many.
    Settled(Weight),
}

/// What the garbage collector's marks say of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Live at the last collection, which began after it was allocated.
    Live,
    /// Marked, but only because it was allocated while marks were made, or not reached by a collection yet.
    Young,
    /// Garbage, or already gone.
    Dead,
}

/// What is known of a site.
#[derive(Clone, Debug, Default)]
pub struct SiteEstimate {
    /// Allocated since the attach.
    pub allocated: Estimate,
    /// Live: those that were judged so, and of the young ones the part that can be expected to be.
    pub live: Estimate,
    /// What is live, by label of the cohort.
    pub cohorts: HashMap<u32, Estimate>,
    /// Too young to be judged.
    pub young: Estimate,
    /// Bytes of those that were judged and are not live.
    pub garbage_bytes: u64,
    young_cohorts: HashMap<u32, Estimate>,
}

impl SiteEstimate {
    fn add(&mut self, sample: &Sample, weight: Weight) {
        let (all, by_cohort) = if sample.is_live {
            (&mut self.live, &mut self.cohorts)
        } else {
            (&mut self.young, &mut self.young_cohorts)
        };
        let seen = Estimate::of(weight, sample.object_size);
        *all = all.plus(seen);
        let cohort = by_cohort.entry(sample.cohort).or_default();
        *cohort = cohort.plus(seen);
    }

    /// Counts the young ones as live in the part in which those that were judged are.
    fn expect(&mut self) {
        let judged = self.allocated.bytes().saturating_sub(self.young.bytes());
        self.garbage_bytes = judged.saturating_sub(self.live.bytes());
        if judged == 0 {
            return;
        }
        let part = (self.live.bytes() as f64 / judged as f64).min(1.0);
        for (label, young) in std::mem::take(&mut self.young_cohorts) {
            let expected = young.part(part);
            self.live = self.live.plus(expected);
            let cohort = self.cohorts.entry(label).or_default();
            *cohort = cohort.plus(expected);
        }
    }
}

/// A span that is being filled.
#[derive(Clone, Copy, Debug)]
struct Filling {
    /// Address of the sample, and its number.
    sample: (u64, u64),
    id: Id,
    filled: Filled,
    /// How many places were taken before, and how many there are.
    before: u64,
    places: u64,
}

/// All samples.
#[derive(Debug)]
pub struct Samples {
    pending: BTreeMap<u64, Sample>,
    filling: HashMap<u64, Filling>,
    /// Classes of the spans that threads have given back last because they were full.
    full: HashMap<u32, u8>,
    weights: Weights,
    newest: u32,
    limit: usize,
    next: u64,
    refused: u64,
}

impl Samples {
    /// None yet, and never more than `limit` that may be live.
    pub fn new(limit: usize) -> Self {
        Self {
            pending: BTreeMap::new(),
            filling: HashMap::new(),
            full: HashMap::new(),
            weights: Weights::default(),
            newest: 0,
            limit,
            next: 0,
            refused: 0,
        }
    }

    /// Takes in that a span was handed out.
    pub fn handed_out(&mut self, event: &HandedOut<'_>) {
        self.settle(event.cohort);
        let span = &event.span;
        let is_taken = |index: u64| bit(event.bits, index);
        self.drop_gone(span, event.large, is_taken);
        let free = if event.large {
            Some(0)
        } else {
            (span.free_index..span.objects).find(|&index| !is_taken(index))
        };
        let Some(index) = free else { return };
        let address = span.base + index * span.object_size;
        self.next += 1;
        let stands_for = if event.large {
            self.add_large(event)
        } else {
            self.add_filling(event, address)
        };
        if self.pending.len() >= self.limit {
            self.refused += 1;
            return;
        }
        let sample = Sample {
            base: span.base,
            object_size: span.object_size,
            generation: event.generation,
            number: self.next,
            site: event.site,
            cohort: event.cohort,
            is_live: false,
            stands_for,
        };
        self.pending.insert(address, sample);
    }

    /// Every large object is seen.
    fn add_large(&mut self, event: &HandedOut<'_>) -> StandsFor {
        let seen = Estimate::of(Weight::of(1.0), event.span.object_size);
        self.weights.add_settled(event.site, seen);
        StandsFor::Settled(Weight::of(1.0))
    }

    fn add_filling(&mut self, event: &HandedOut<'_>, address: u64) -> StandsFor {
        let span = &event.span;
        let filled = Filled {
            cohort: event.cohort,
            class: span.class,
            site: event.site,
            object_size: span.object_size,
            // The runtime gives a full span back and takes the next one at once, in the same thread.
            regular: self.full.remove(&event.thread) == Some(span.class),
            objects: 1,
        };
        let id = self.weights.add(filled, event.thread);
        let filling = Filling {
            sample: (address, self.next),
            id,
            filled,
            before: span.taken,
            places: span.objects,
        };
        self.filling.insert(event.address, filling);
        StandsFor::Open(id)
    }

    /// Takes in that `thread` gave back the span described at `address`, with `taken` places taken.
    pub fn uncached(&mut self, address: u64, taken: u64, thread: u32) {
        self.set_taken(address, taken);
        self.full.remove(&thread);
        if let Some(filling) = self.filling.remove(&address).filter(|filling| taken >= filling.places) {
            self.full.insert(thread, filling.filled.class);
        }
    }

    /// Takes in that the span described at `address`, which is being filled, has `taken` places taken by now.
    pub fn set_taken(&mut self, address: u64, taken: u64) {
        let Some(filling) = self.filling.get_mut(&address) else {
            return;
        };
        // The place of the sample itself is taken before anything else can happen to the span.
        let objects = taken.saturating_sub(filling.before).max(1);
        let more = objects as f64 - filling.filled.objects as f64;
        let is_settled = self.weights.set_objects(filling.id, objects, &mut filling.filled);
        let (address, number) = filling.sample;
        let sample = self.pending.get_mut(&address).filter(|sample| sample.number == number);
        let stands_for = sample.filter(|_| is_settled).map(|sample| &mut sample.stands_for);
        if let Some(StandsFor::Settled(weight)) = stands_for {
            weight.objects += more;
        }
    }

    /// Addresses of the descriptions of spans that are being filled.
    pub fn filling(&self) -> Vec<u64> {
        self.filling.keys().copied().collect()
    }

    /// Samples that may be live, by address.
    pub fn pending(&self) -> impl Iterator<Item = (u64, &Sample)> {
        self.pending.iter().map(|(address, sample)| (*address, sample))
    }

    /// How many objects could not be kept, as there were too many that may be live. They count as allocated.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes in verdicts: of the sample at an address, if it is still the one with that number.
    pub fn apply(&mut self, verdicts: &[(u64, u64, Verdict)]) {
        for &(address, number, verdict) in verdicts {
            let sample = self.pending.get_mut(&address);
            match (sample.filter(|sample| sample.number == number), verdict) {
                (Some(sample), Verdict::Live) => sample.is_live = true,
                (Some(_), Verdict::Dead) => drop(self.pending.remove(&address)),
                (_, Verdict::Young) | (None, _) => {}
            }
        }
    }

    /// What is known of each site.
    pub fn sites(&self) -> HashMap<u32, SiteEstimate> {
        let allocated = self.weights.allocated().into_iter().map(|(site, allocated)| {
            let estimate = SiteEstimate {
                allocated,
                ..SiteEstimate::default()
            };
            (site, estimate)
        });
        let mut sites: HashMap<u32, SiteEstimate> = allocated.collect();
        let open = self.weights.open();
        for sample in self.pending.values() {
            let weight = sample.weight(&open);
            sites.entry(sample.site).or_default().add(sample, weight);
        }
        sites.values_mut().for_each(SiteEstimate::expect);
        sites
    }

    /// The site at which the object at `address` was allocated, if it is a sample that may be live.
    pub fn site_of(&self, address: u64) -> Option<u32> {
        self.pending.get(&address).map(|sample| sample.site)
    }

    /// Addresses of the objects of each site that are live, those that stand for most first; at most `most` of each.
    pub fn live_objects(&self, most: usize) -> HashMap<u32, Vec<u64>> {
        let open = self.weights.open();
        let live = self.pending().filter(|(_, sample)| sample.is_live);
        let mut live: Vec<(u64, u32, f64)> = live
            .map(|(address, sample)| (address, sample.site, sample.weight(&open).objects))
            .collect();
        live.sort_by(|a, b| b.2.total_cmp(&a.2));
        let mut objects: HashMap<u32, Vec<u64>> = HashMap::new();
        for (address, site, _) in live {
            let of_site = objects.entry(site).or_default();
            if of_site.len() < most {
                of_site.push(address);
            }
        }
        objects
    }

    /// A cohort has begun: those long before it stay as they are.
    fn settle(&mut self, cohort: u32) {
        if cohort <= self.newest {
            return;
        }
        self.newest = cohort;
        let weights = self.weights.settle_before(cohort.saturating_sub(OPEN_COHORTS));
        if weights.is_empty() {
            return;
        }
        for sample in self.pending.values_mut() {
            if let StandsFor::Open(id) = sample.stands_for
                && let Some(&weight) = weights.get(&id.key())
            {
                sample.stands_for = StandsFor::Settled(weight);
            }
        }
    }

    /// Drops what is not there any more, now that `span` is handed out.
    fn drop_gone(&mut self, span: &Span, large: bool, is_taken: impl Fn(u64) -> bool) {
        let is_gone = |address: u64, sample: &Sample| {
            let index = (address - span.base) / span.object_size;
            let other = sample.base != span.base || sample.object_size != span.object_size;
            other || large || (index >= span.free_index && !is_taken(index))
        };
        let inside = self.pending.range(span.range());
        let gone: Vec<u64> = inside
            .filter(|(address, sample)| is_gone(**address, sample))
            .map(|(address, _)| *address)
            .collect();
        for address in gone {
            self.pending.remove(&address);
        }
    }
}

impl Sample {
    /// For how many objects it stands, given the weights that are not settled.
    fn weight(&self, open: &HashMap<(u32, usize), Weight>) -> Weight {
        match self.stands_for {
            StandsFor::Settled(weight) => weight,
            StandsFor::Open(id) => open.get(&id.key()).copied().unwrap_or(Weight::of(1.0)),
        }
    }
}

fn bit(bits: &[u64], index: u64) -> bool {
    let word = bits.get((index / 64) as usize);
    word.is_some_and(|word| word >> (index % 64) & 1 == 1)
}

#[cfg(test)]
#[path = "samples_tests.rs"]
mod tests;
