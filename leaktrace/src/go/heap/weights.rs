//! For how many objects each sample stands. Pure.
//!
//! A sample stands for all objects that were put into its span while it was being filled. But a collection takes all spans
//! back, and the first object after it is often one that a piece of work begins with: taken for all that follow, its
//! site would seem to allocate more than it does. So such a sample stands for itself alone, and what else was put into
//! its span is shared out among the samples whose span was handed out because another was full: those come at any time.
//! That is done for each size of objects and each cohort by itself, where there are enough of them.

use std::collections::{BTreeMap, HashMap};

use super::estimate::{Estimate, Weight};

/// Fewer samples than this are not made to stand for what others have seen.
const FEWEST: u64 = 4;

/// A span that was handed out to be filled, and what is known of how it was filled.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// Label of the cohort.
    pub cohort: u32,
    /// Which spans it stands in for: their size of objects, and whether these can hold pointers.
    pub class: u8,
    /// Index of the site of the sample.
    pub site: u32,
    /// Bytes of an object.
    pub object_size: u64,
    /// Whether another had been full before. If not, it is the first after a collection.
    pub regular: bool,
    /// How many objects were put into it.
    pub objects: u64,
}

/// Tells a [`Filled`] from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    cohort: u32,
    index: usize,
}

/// What the spans of one class have seen in one cohort.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    regular: u64,
    regular_objects: u64,
    /// Objects that the samples of the other spans do not stand for.
    others: u64,
    /// By how much the variance is larger than that of samples that know nothing of each other.
    inflation: f64,
}

/// What has come first in the spans of a class, one after the other in a thread.
///
/// A program that allocates by a fixed sequence, as many places as a span has or a divisor of that, puts the same first
/// into each: then one sample tells no more than another, however many there are. That shows in how often two that
/// follow each other are of one site, against how often that would be by chance.
#[derive(Clone, Debug, Default)]
struct Habit {
    last: HashMap<u32, u32>,
    of_site: HashMap<u32, u64>,
    all: u64,
    pairs: u64,
    alike: u64,
}

impl Habit {
    fn add(&mut self, site: u32, thread: u32) {
        *self.of_site.entry(site).or_default() += 1;
        self.all += 1;
        if let Some(before) = self.last.insert(thread, site) {
            self.pairs += 1;
            self.alike += u64::from(before == site);
        }
    }

    /// Which part of a site's objects may be another's of the same class, or the other way round. Where the work that
    /// allocates goes through them in a fixed order, the same come first again and again, also when neighbours differ.
    /// Measured with such programs: more samples do not help, and only the sum of the class is right.
    fn shift(&self, site: u32) -> f64 {
        let own = self.of_site.get(&site).copied().unwrap_or(0);
        if own == 0 || self.of_site.len() < 2 {
            return 0.0;
        }
        let share = own as f64 / self.all as f64;
        MOST_SHIFT * ((1.0 - share) / share).sqrt() * (share / LARGE_SHARE).min(1.0)
    }

    /// The factor of the variance, from the correlation of neighbours: that of a chain in which only they depend on each
    /// other.
    fn inflation(&self) -> f64 {
        let all = self.all;
        let share = |count: &u64| (*count as f64 / all as f64).powi(2);
        let by_chance: f64 = self.of_site.values().map(share).sum();
        if self.pairs < FEWEST || by_chance > 0.999 {
            return 1.0;
        }
        let alike = self.alike as f64 / self.pairs as f64;
        let correlation = ((alike - by_chance) / (1.0 - by_chance)).clamp(0.0, MOST_ALIKE);
        (1.0 + correlation) / (1.0 - correlation)
    }
}

/// What is shifted at most of a site that has half of its class; and a share from which on a site is a large one of its
/// class. Of smaller ones, the others that come first are of many kinds.
const MOST_SHIFT: f64 = 0.5;
const LARGE_SHARE: f64 = 0.2;
/// A correlation beyond which the error is not made larger any more: it is a multiple by then.
const MOST_ALIKE: f64 = 0.999;

/// All spans filled.
#[derive(Debug, Default)]
pub struct Weights {
    open: BTreeMap<u32, Vec<Filled>>,
    settled: HashMap<u32, Estimate>,
    habits: HashMap<u8, Habit>,
}

impl Weights {
    /// Adds a span, that `thread` fills.
    pub fn add(&mut self, filled: Filled, thread: u32) -> Id {
        if filled.regular {
            self.habits.entry(filled.class).or_default().add(filled.site, thread);
        }
        let of_cohort = self.open.entry(filled.cohort).or_default();
        of_cohort.push(filled);
        Id {
            cohort: filled.cohort,
            index: of_cohort.len() - 1,
        }
    }

    /// Adds what one sample says that is no estimate.
    pub fn add_settled(&mut self, site: u32, seen: Estimate) {
        let settled = self.settled.entry(site).or_default();
        *settled = settled.plus(seen);
    }

    /// So many objects are in it by now. Says whether its cohort was settled before: then its sample stands for the
    /// difference besides, and is counted so here.
    pub fn set_objects(&mut self, id: Id, objects: u64, last_known: &mut Filled) -> bool {
        let before = std::mem::replace(&mut last_known.objects, objects);
        let filled = self.open.get_mut(&id.cohort).and_then(|all| all.get_mut(id.index));
        if let Some(filled) = filled {
            filled.objects = objects;
            return false;
        }
        let seen = |objects: u64| Estimate::of(Weight::of(objects as f64), last_known.object_size);
        let settled = self.settled.entry(last_known.site).or_default();
        *settled = settled.changed(seen(before), seen(objects));
        true
    }

    /// For how many objects the sample of each span of the cohorts that are not settled stands.
    pub fn open(&self) -> HashMap<(u32, usize), Weight> {
        let mut weights = HashMap::new();
        for (&cohort, all) in &self.open {
            let classes = classes(all, &self.habits);
            let weighed = all.iter().enumerate();
            weights.extend(weighed.map(|(index, filled)| ((cohort, index), weight(filled, &classes, &self.habits))));
        }
        weights
    }

    /// What has been allocated at each site.
    pub fn allocated(&self) -> HashMap<u32, Estimate> {
        let mut allocated = self.settled.clone();
        for all in self.open.values() {
            add(&mut allocated, all, &self.habits);
        }
        allocated
    }

    /// Settles all cohorts before this one: they stay as they are. Says for how many objects each of their samples stands.
    pub fn settle_before(&mut self, cohort: u32) -> HashMap<(u32, usize), Weight> {
        let later = self.open.split_off(&cohort);
        let weights = self.open();
        for all in std::mem::replace(&mut self.open, later).values() {
            add(&mut self.settled, all, &self.habits);
        }
        weights
    }
}

impl Id {
    /// As a key of [`Weights::open`].
    pub fn key(self) -> (u32, usize) {
        (self.cohort, self.index)
    }
}

fn add(sums: &mut HashMap<u32, Estimate>, all: &[Filled], habits: &HashMap<u8, Habit>) {
    let classes = classes(all, habits);
    for filled in all {
        let seen = Estimate::of(weight(filled, &classes, habits), filled.object_size);
        let sum = sums.entry(filled.site).or_default();
        *sum = sum.plus(seen);
    }
}

fn classes(all: &[Filled], habits: &HashMap<u8, Habit>) -> HashMap<u8, Class> {
    let mut classes: HashMap<u8, Class> = HashMap::new();
    for filled in all {
        let class = classes.entry(filled.class).or_insert_with(|| Class {
            inflation: habits.get(&filled.class).map_or(1.0, Habit::inflation),
            ..Class::default()
        });
        if filled.regular {
            class.regular += 1;
            class.regular_objects = class.regular_objects.saturating_add(filled.objects);
        } else {
            class.others = class.others.saturating_add(filled.objects.saturating_sub(1));
        }
    }
    classes
}

fn weight(filled: &Filled, classes: &HashMap<u8, Class>, habits: &HashMap<u8, Habit>) -> Weight {
    let shifted = habits.get(&filled.class).map_or(0.0, |habit| habit.shift(filled.site));
    let objects = filled.objects as f64;
    let inflation = classes.get(&filled.class).map_or(1.0, |class| class.inflation);
    let more = |objects: f64| (inflation - 1.0) * objects * (objects - 1.0).max(0.0);
    let Some(class) = classes.get(&filled.class).filter(|class| class.regular >= FEWEST) else {
        return Weight {
            objects,
            doubt: more(objects),
            shifted,
        };
    };
    let share = 1.0 + class.others as f64 / class.regular_objects as f64;
    if filled.regular {
        let objects = objects * share;
        return Weight {
            objects,
            doubt: more(objects),
            shifted,
        };
    }
    // What came after it may have been of its site, though no regular sample was: as many as one of those stands for.
    let regular = share * class.regular_objects as f64 / class.regular as f64;
    Weight {
        objects: 1.0,
        doubt: (objects - 1.0) * regular * inflation,
        shifted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(site: u32, regular: bool, objects: u64) -> Filled {
        Filled {
            cohort: 1,
            class: 10,
            site,
            object_size: 64,
            regular,
            objects,
        }
    }

    fn counts(weights: &Weights) -> Vec<(u32, u64)> {
        let mut counts: Vec<_> = weights
            .allocated()
            .iter()
            .map(|(site, one)| (*site, one.count()))
            .collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn what_came_after_a_collection_is_shared_out_among_the_regular_ones() {
        let mut weights = Weights::default();
        // After each of four collections, site 1 begins; what follows is of site 2, and one in five times of site 1.
        for _ in 0..4 {
            weights.add(filled(1, false, 50), 1);
        }
        for site in [2, 2, 1, 2, 2] {
            weights.add(filled(site, true, 100), 1);
        }
        // 196 objects more than the four seen, and 500 of regular ones: 1.392 for one.
        assert_eq!(counts(&weights), [(1, 4 + 139), (2, 557)]);
        let total: f64 = weights.open().values().map(|weight| weight.objects).sum();
        assert!((total - 700.0).abs() < 1e-9, "{total}");
    }

    #[test]
    fn a_site_that_no_regular_sample_was_of_is_in_doubt() {
        let mut weights = Weights::default();
        weights.add(filled(1, false, 51), 1);
        for _ in 0..4 {
            weights.add(filled(2, true, 100), 1);
        }
        let allocated = weights.allocated();
        // Fifty more may be its, and a regular sample stands for 112.5 objects: the root of 5,625 is 75.
        let error = allocated[&1].error().unwrap();
        assert_eq!(allocated[&1].count(), 1);
        // 2.4675 times that, as all errors are.
        assert!((error - 75.0 * 2.4675).abs() < 0.1, "{error}");
    }

    #[test]
    fn what_always_comes_first_makes_the_error_large() {
        let error = |sites: &dyn Fn(u32) -> u32| {
            let mut weights = Weights::default();
            for number in 0..1000 {
                weights.add(filled(sites(number), true, 8), 1);
            }
            weights.allocated()[&1].error().unwrap()
        };
        // Of two sites, the one comes first five hundred times, and then the other.
        assert!(error(&|number| 1 + number / 500) > 1.5);
        // Half may be the other's, whatever chance says.
        let mixed = error(&|number| 1 + (number.wrapping_mul(2_654_435_761) >> 16) % 2);
        assert!((0.5..0.55).contains(&mixed), "{mixed}");
        // Alone there is nothing to be mixed up with.
        assert!(error(&|_| 1) < 0.08);
    }

    #[test]
    fn few_regular_ones_are_not_made_to_stand_for_others() {
        let mut weights = Weights::default();
        weights.add(filled(1, false, 50), 1);
        weights.add(filled(2, true, 100), 1);
        assert_eq!(counts(&weights), [(1, 50), (2, 100)]);
    }

    #[test]
    fn classes_and_cohorts_stand_for_themselves_and_settled_ones_stay() {
        let mut weights = Weights::default();
        let id = weights.add(filled(1, false, 50), 1);
        for _ in 0..4 {
            weights.add(
                Filled {
                    cohort: 2,
                    ..filled(2, true, 100)
                },
                1,
            );
            weights.add(
                Filled {
                    class: 11,
                    ..filled(3, true, 100)
                },
                1,
            );
        }
        assert_eq!(counts(&weights), [(1, 50), (2, 400), (3, 400)]);
        let mut known = filled(1, false, 50);
        assert!(!weights.set_objects(id, 60, &mut known));
        let settled = weights.settle_before(2);
        assert_eq!((settled.len(), settled[&id.key()]), (5, Weight::of(60.0)));
        assert_eq!(counts(&weights), [(1, 60), (2, 400), (3, 400)]);
        // One that is still being filled counts what is added.
        assert!(weights.set_objects(id, 70, &mut known));
        assert_eq!(counts(&weights), [(1, 70), (2, 400), (3, 400)]);
        assert_eq!((weights.open().len(), weights.settle_before(1).len()), (4, 0));
    }
}
