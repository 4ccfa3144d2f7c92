//! Samples of the objects of Go's heap. Pure.
//!
//! A span is handed out to be filled, and is given back. The object at its first free place is allocated at once, and
//! its stack is known: it is the sample, and stands for all objects that are allocated until the span is given back.
//!
//! Objects that no collection has judged yet are taken to survive as the others of their site have, in the same part.
//!
//! A place that is free again is only taken again after its span has been handed out anew. So at that moment all samples
//! in its pages are dropped that are not there any more; what is left is what it was.

use std::collections::{BTreeMap, HashMap};

use super::Span;

/// Half the width of the interval that holds nine of ten values of a normal distribution, in standard deviations.
const NINE_OF_TEN: f64 = 1.645;
/// By how much the error of these samples is larger than that of samples drawn by lot. They are not: what a program
/// allocates follows a pattern, and the first object after a collection is often of the same kind. Measured with programs
/// that count what they allocate.
const DESIGN_EFFECT: f64 = 1.5;

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
    /// Whose stack asked for it.
    pub site: u32,
    /// Label of the cohort.
    pub cohort: u32,
    /// The heap's sweep generation at that time.
    pub generation: u32,
}

/// A sampled object that may be live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// First byte of its span.
    pub base: u64,
    /// Bytes of an object.
    pub object_size: u64,
    /// Index of its site.
    pub site: u32,
    /// Label of its cohort.
    pub cohort: u32,
    /// The heap's sweep generation when it was allocated.
    pub generation: u32,
    /// How many objects it stands for.
    pub weight: u64,
    /// Tells it from others that were at the same address.
    pub number: u64,
    /// Whether it has been seen to be live; else it is too young to be judged.
    pub is_live: bool,
}

impl Sample {
    fn bytes(&self) -> u64 {
        self.weight.saturating_mul(self.object_size)
    }
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

/// An estimate of objects and bytes, and what it goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Objects.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
    /// Samples.
    pub samples: u64,
    /// What the variance of the bytes is estimated at.
    variance: f64,
}

/// What a sample that stands for `weight` objects adds to the variance of their bytes: one object is seen itself, and
/// each was to be seen with a chance of one in `weight` (Horvitz and Thompson). Nothing, where every object is seen.
fn variance(weight: u64, object_size: u64) -> f64 {
    let (weight, size) = (weight as f64, object_size as f64);
    weight * (weight - 1.0) * size * size
}

impl Estimate {
    /// Half the width of the interval in which the truth lies in nine cases of ten, relative to the estimate; none
    /// without samples.
    pub fn error(&self) -> Option<f64> {
        (self.bytes > 0).then(|| NINE_OF_TEN * DESIGN_EFFECT * self.variance.max(0.0).sqrt() / self.bytes as f64)
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            bytes: self.bytes.saturating_add(other.bytes),
            samples: self.samples.saturating_add(other.samples),
            variance: self.variance + other.variance,
        }
    }

    /// What can be expected of it where only a part is what it should be.
    fn part(self, part: f64) -> Self {
        Self {
            count: (self.count as f64 * part).round() as u64,
            bytes: (self.bytes as f64 * part).round() as u64,
            samples: 0,
            variance: self.variance * part,
        }
    }

    fn add(&mut self, weight: u64, object_size: u64) {
        *self = self.plus(Self {
            count: weight,
            bytes: weight.saturating_mul(object_size),
            samples: 1,
            variance: variance(weight, object_size),
        });
    }

    /// Of one sample that counted `before`: it stands for `after` objects.
    fn change(&mut self, before: u64, after: u64, object_size: u64) {
        let (old, new) = (before.saturating_mul(object_size), after.saturating_mul(object_size));
        self.count = self.count.saturating_sub(before).saturating_add(after);
        self.bytes = self.bytes.saturating_sub(old).saturating_add(new);
        self.variance += variance(after, object_size) - variance(before, object_size);
    }
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
    young_cohorts: HashMap<u32, Estimate>,
}

impl SiteEstimate {
    fn add(&mut self, sample: &Sample) {
        let (all, by_cohort) = match sample.is_live {
            true => (&mut self.live, &mut self.cohorts),
            false => (&mut self.young, &mut self.young_cohorts),
        };
        all.add(sample.weight, sample.object_size);
        let cohort = by_cohort.entry(sample.cohort).or_default();
        cohort.add(sample.weight, sample.object_size);
    }

    /// Counts the young ones as live in the part in which those that were judged are. Their samples are none.
    fn expect(&mut self) {
        let judged = self.allocated.bytes.saturating_sub(self.young.bytes);
        if judged == 0 {
            return;
        }
        let part = (self.live.bytes as f64 / judged as f64).min(1.0);
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
    site: u32,
    object_size: u64,
    /// How many places were taken before.
    before: u64,
    /// For how many objects the sample counts so far.
    weight: u64,
}

/// All samples.
#[derive(Debug)]
pub struct Samples {
    pending: BTreeMap<u64, Sample>,
    filling: HashMap<u64, Filling>,
    allocated: HashMap<u32, Estimate>,
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
            allocated: HashMap::new(),
            limit,
            next: 0,
            refused: 0,
        }
    }

    /// Takes in that a span was handed out.
    pub fn handed_out(&mut self, event: &HandedOut<'_>) {
        let span = &event.span;
        let is_taken = |index: u64| bit(event.bits, index);
        self.drop_gone(span, event.large, is_taken);
        let free = match event.large {
            true => Some(0),
            false => (span.free_index..span.objects).find(|&index| !is_taken(index)),
        };
        let Some(index) = free else { return };
        let address = span.base + index * span.object_size;
        // The least there is: its own.
        self.allocated.entry(event.site).or_default().add(1, span.object_size);
        self.next += 1;
        if !event.large {
            let filling = Filling {
                sample: (address, self.next),
                site: event.site,
                object_size: span.object_size,
                before: span.taken,
                weight: 1,
            };
            self.filling.insert(event.address, filling);
        }
        if self.pending.len() >= self.limit {
            self.refused += 1;
            return;
        }
        let sample = Sample {
            base: span.base,
            object_size: span.object_size,
            site: event.site,
            cohort: event.cohort,
            generation: event.generation,
            weight: 1,
            number: self.next,
            is_live: false,
        };
        self.pending.insert(address, sample);
    }

    /// Takes in that the span described at `address` was given back with `taken` places taken.
    pub fn uncached(&mut self, address: u64, taken: u64) {
        self.set_taken(address, taken);
        self.filling.remove(&address);
    }

    /// Takes in that the span described at `address`, which is being filled, has `taken` places taken by now.
    pub fn set_taken(&mut self, address: u64, taken: u64) {
        let Some(filling) = self.filling.get_mut(&address) else {
            return;
        };
        // The place of the sample itself is taken before anything else can happen to the span.
        let weight = taken.saturating_sub(filling.before).max(1);
        let before = std::mem::replace(&mut filling.weight, weight);
        let (filling, pending) = (*filling, &mut self.pending);
        if let Some(allocated) = self.allocated.get_mut(&filling.site) {
            allocated.change(before, weight, filling.object_size);
        }
        let (address, number) = filling.sample;
        if let Some(sample) = pending.get_mut(&address).filter(|sample| sample.number == number) {
            sample.weight = weight;
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
            let Some(sample) = self.pending.get_mut(&address).filter(|sample| sample.number == number) else {
                continue;
            };
            match verdict {
                Verdict::Live => sample.is_live = true,
                Verdict::Young => {}
                Verdict::Dead => drop(self.pending.remove(&address)),
            }
        }
    }

    /// What is known of each site.
    pub fn sites(&self) -> HashMap<u32, SiteEstimate> {
        let mut sites: HashMap<u32, SiteEstimate> = self
            .allocated
            .iter()
            .map(|(&site, &allocated)| {
                let estimate = SiteEstimate {
                    allocated,
                    ..SiteEstimate::default()
                };
                (site, estimate)
            })
            .collect();
        for sample in self.pending.values() {
            sites.entry(sample.site).or_default().add(sample);
        }
        sites.values_mut().for_each(SiteEstimate::expect);
        sites
    }

    /// Addresses of the objects of each site that are live, the largest first; at most `most` of each.
    pub fn live_objects(&self, most: usize) -> HashMap<u32, Vec<u64>> {
        let mut live: Vec<(u64, &Sample)> = self.pending().filter(|(_, sample)| sample.is_live).collect();
        live.sort_by_key(|(_, sample)| std::cmp::Reverse(sample.bytes()));
        let mut objects: HashMap<u32, Vec<u64>> = HashMap::new();
        for (address, sample) in live {
            let of_site = objects.entry(sample.site).or_default();
            if of_site.len() < most {
                of_site.push(address);
            }
        }
        objects
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

fn bit(bits: &[u64], index: u64) -> bool {
    let word = bits.get((index / 64) as usize);
    word.is_some_and(|word| word >> (index % 64) & 1 == 1)
}

#[cfg(test)]
#[path = "samples_tests.rs"]
mod tests;
