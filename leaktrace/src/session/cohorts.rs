//! Age cohorts: which slot of a site's totals holds the blocks of which time. Pure.
//!
//! Blocks carry the label of the time they were born in; a table maps labels to slots. Slots are few and a trace may
//! run for days, so old neighbours are merged: young cohorts stay one turn wide, old ones grow with their age. A merge
//! takes two turns: first the labels are pointed to the older slot, then, when no probe can still be using the old
//! mapping, the totals are moved.

use std::ops::Range;

use leaktrace_common::sites::{Amount, COHORT_SLOTS, MAX_COHORTS};

/// The blocks born in one stretch of time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cohort {
    /// Slots that hold its totals: one, or two while a merge is under way. The first is the one that stays.
    slots: Vec<u32>,
    labels: Range<u32>,
    start_ns: u64,
    /// Open for the youngest.
    end_ns: Option<u64>,
}

/// All cohorts of a trace, oldest first.
#[derive(Clone, Debug)]
pub struct Cohorts {
    list: Vec<Cohort>,
    free: Vec<u32>,
    turns: u64,
}

/// What the tables must be told at a turn, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Move the totals of the first slot to the second.
    pub merge: Option<(u32, u32)>,
    /// Point these labels to this slot.
    pub relabel: Option<(Range<u32>, u32)>,
    /// Blocks born from now on get this label, which has this slot.
    pub next: Option<(u32, u32)>,
}

impl Cohorts {
    /// The first cohort, with label 0 in slot 0, opened at `now_ns`.
    pub fn new(now_ns: u64) -> Self {
        let first = Cohort {
            slots: vec![0],
            labels: 0..1,
            start_ns: now_ns,
            end_ns: None,
        };
        Self {
            list: vec![first],
            free: (1..COHORT_SLOTS as u32).rev().collect(),
            turns: 0,
        }
    }

    /// Closes the youngest cohort and opens another, as far as there is room.
    pub fn turn(&mut self, now_ns: u64) -> Turn {
        self.turns += 1;
        let merge = self.finish_merge();
        let relabel = if self.free.len() < 2 {
            self.begin_merge(now_ns)
        } else {
            None
        };
        let next = self.open(now_ns);
        if let Some((slot, _)) = merge {
            self.free.push(slot);
        }
        Turn { merge, relabel, next }
    }

    /// Sum of what is at least `age_ns` old, to the resolution of a cohort: blocks that may be younger are left out.
    pub fn older_than(&self, live: &[Amount; COHORT_SLOTS], now_ns: u64, age_ns: u64) -> Amount {
        let old_enough = |cohort: &&Cohort| age_ns == 0 || youngest_age(cohort, now_ns) >= age_ns;
        self.list
            .iter()
            .filter(old_enough)
            .map(|cohort| sum(live, cohort))
            .fold(Amount::default(), plus)
    }

    /// Age of the oldest block at least, in nanoseconds.
    pub fn oldest_age(&self, live: &[Amount; COHORT_SLOTS], now_ns: u64) -> u64 {
        let oldest = self.list.iter().find(|cohort| sum(live, cohort).count > 0);
        oldest.map_or(0, |cohort| youngest_age(cohort, now_ns))
    }

    /// What is live of each cohort, with the age of its first block, in nanoseconds; oldest first.
    pub fn by_age(&self, live: &[Amount; COHORT_SLOTS], now_ns: u64) -> impl Iterator<Item = (u64, Amount)> {
        self.list
            .iter()
            .map(move |cohort| (now_ns.saturating_sub(cohort.start_ns), sum(live, cohort)))
    }

    /// The slot in which label `label` is kept.
    pub fn slot_of(&self, label: u32) -> u32 {
        self.list
            .iter()
            .find(|cohort| cohort.labels.contains(&label))
            .map_or(0, |cohort| cohort.slots[0])
    }

    fn finish_merge(&mut self) -> Option<(u32, u32)> {
        let merging = self.list.iter_mut().find(|cohort| cohort.slots.len() > 1)?;
        Some((merging.slots.pop()?, merging.slots[0]))
    }

    /// Merges the two neighbours whose common width matters least at their age.
    fn begin_merge(&mut self, now_ns: u64) -> Option<(Range<u32>, u32)> {
        let cost = |pair: &[Cohort]| {
            let end = pair[1].end_ns.unwrap_or(now_ns);
            let age = now_ns.saturating_sub(end).max(1);
            (end - pair[0].start_ns) as f64 / age as f64
        };
        let closed = self.list.len().saturating_sub(1);
        let pairs = self.list.get(..closed)?.windows(2).enumerate();
        let (older, _) = pairs
            .map(|(i, pair)| (i, cost(pair)))
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        let younger = self.list.remove(older + 1);
        let merged = self.list.get_mut(older)?;
        merged.labels.end = younger.labels.end;
        merged.end_ns = younger.end_ns;
        merged.slots.extend(younger.slots);
        Some((younger.labels, merged.slots[0]))
    }

    fn open(&mut self, now_ns: u64) -> Option<(u32, u32)> {
        let youngest = self.list.last_mut()?;
        let label = youngest.labels.end;
        if label >= MAX_COHORTS || !self.turns.is_multiple_of(stride(label)) {
            return None;
        }
        let slot = self.free.pop()?;
        youngest.end_ns = Some(now_ns);
        self.list.push(Cohort {
            slots: vec![slot],
            labels: label..label + 1,
            start_ns: now_ns,
            end_ns: None,
        });
        Some((label, slot))
    }
}

/// Turns per label: one at first, then more and more: at a turn a second the labels last for 68 years.
fn stride(label: u32) -> u64 {
    u64::from(MAX_COHORTS / (MAX_COHORTS - label).max(1)).pow(2)
}

fn youngest_age(cohort: &Cohort, now_ns: u64) -> u64 {
    cohort.end_ns.map_or(0, |end| now_ns.saturating_sub(end))
}

fn sum(live: &[Amount; COHORT_SLOTS], cohort: &Cohort) -> Amount {
    cohort
        .slots
        .iter()
        .filter_map(|slot| live.get(*slot as usize))
        .copied()
        .fold(Amount::default(), plus)
}

/// Adds two amounts.
pub fn plus(a: Amount, b: Amount) -> Amount {
    Amount {
        bytes: a.bytes + b.bytes,
        count: a.count + b.count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables as the kernel side keeps them: one block is born in each turn and none is freed.
    struct Model {
        cohorts: Cohorts,
        live: [Amount; COHORT_SLOTS],
        slot_of: Vec<u32>,
        label: u32,
    }

    impl Model {
        fn new() -> Self {
            let live = [Amount::default(); COHORT_SLOTS];
            Self {
                cohorts: Cohorts::new(0),
                live,
                slot_of: vec![0; MAX_COHORTS as usize],
                label: 0,
            }
        }

        fn turn(&mut self, now_ns: u64) {
            self.live[self.slot_of[self.label as usize] as usize].count += 1;
            let turn = self.cohorts.turn(now_ns);
            if let Some((from, to)) = turn.merge {
                let moved = std::mem::take(&mut self.live[from as usize]);
                self.live[to as usize] = plus(self.live[to as usize], moved);
            }
            if let Some((labels, slot)) = turn.relabel {
                labels.for_each(|label| self.slot_of[label as usize] = slot);
            }
            if let Some((label, slot)) = turn.next {
                assert_eq!(
                    self.live[slot as usize],
                    Amount::default(),
                    "a slot is empty when it is opened"
                );
                self.slot_of[label as usize] = slot;
                self.label = label;
            }
        }
    }

    #[test]
    fn old_cohorts_widen_and_nothing_is_lost() {
        let mut model = Model::new();
        for second in 1..=100_000_u64 {
            model.turn(second * 1_000_000_000);
        }
        let now = 100_000 * 1_000_000_000;
        assert_eq!(model.cohorts.older_than(&model.live, now, 0).count, 100_000);
        for age_s in [5_u64, 60, 3_600, 50_000] {
            let counted = model.cohorts.older_than(&model.live, now, age_s * 1_000_000_000).count;
            let truth = 100_000 - age_s as i64;
            assert!(
                counted <= truth,
                "{counted} are said to be older than {age_s} s, {truth} are"
            );
            assert!(truth - counted <= 3 + age_s as i64, "{counted} of {truth} at {age_s} s");
        }
        assert!(model.cohorts.oldest_age(&model.live, now) > now / 3);
    }

    #[test]
    fn labels_never_run_out() {
        let mut cohorts = Cohorts::new(0);
        for second in 1..=1_000_000 {
            cohorts.turn(second * 1_000_000_000);
        }
        assert!(
            cohorts
                .list
                .last()
                .is_some_and(|youngest| youngest.labels.end < MAX_COHORTS)
        );
    }

    #[test]
    fn a_label_is_found_after_merges() {
        let mut model = Model::new();
        for second in 1..=1_000_u64 {
            model.turn(second);
        }
        for label in 0..1_000 {
            assert_eq!(model.cohorts.slot_of(label), model.slot_of[label as usize]);
        }
    }
}
