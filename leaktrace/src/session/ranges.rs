//! The program's own mappings, kept as ranges: they can be taken away in parts, and replaced by others. Pure.

use std::collections::{BTreeMap, HashMap};

use leaktrace_common::{
    events::{MappingRecord, MappingStep},
    sites::Amount,
};

const PAGE: u64 = 4096;

/// What is left of one mapping call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The site that mapped it.
    pub site: u32,
    /// Label of its cohort.
    pub cohort: u32,
    /// Bytes not yet unmapped.
    pub bytes: u64,
}

/// A stretch of addresses of one mapping call.
#[derive(Clone, Copy, Debug)]
struct Piece {
    end: u64,
    block: u64,
}

/// All mappings of one process, in the order of what happened to them.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    pieces: BTreeMap<u64, Piece>,
    blocks: HashMap<u64, Mapped>,
    /// What a thread's call has taken away, until it is known to have succeeded.
    pending: HashMap<u32, Vec<(u64, Piece, Mapped)>>,
    allocated: HashMap<u32, Amount>,
    next_block: u64,
}

impl Ranges {
    /// Takes note of what happened.
    pub fn apply(&mut self, record: &MappingRecord) {
        match MappingStep::from_raw(record.step) {
            Some(MappingStep::Added) => self.add(record),
            Some(MappingStep::Removing) => {
                let taken = self.cut(record.address, page_end(record.address, record.length));
                self.pending.insert(record.thread, taken);
            }
            Some(MappingStep::Restored) => self.restore(record.thread),
            Some(MappingStep::Removed) => drop(self.pending.remove(&record.thread)),
            None => {}
        }
    }

    /// What is mapped now.
    pub fn live(&self) -> impl Iterator<Item = &Mapped> {
        self.blocks.values()
    }

    /// What each site has mapped in all.
    pub fn allocated(&self) -> &HashMap<u32, Amount> {
        &self.allocated
    }

    /// A new mapping takes the place of whatever was there.
    fn add(&mut self, record: &MappingRecord) {
        self.cut(record.address, page_end(record.address, record.length));
        if record.length == 0 {
            return;
        }
        let block = self.next_block;
        self.next_block += 1;
        let mapped = Mapped {
            site: record.site,
            cohort: record.cohort,
            bytes: record.length,
        };
        let end = record.address.saturating_add(record.length);
        self.pieces.insert(record.address, Piece { end, block });
        self.blocks.insert(block, mapped);
        let total = self.allocated.entry(record.site).or_default();
        total.bytes += record.length as i64;
        total.count += 1;
    }

    /// Takes `start..end` away, and gives what was there.
    fn cut(&mut self, start: u64, end: u64) -> Vec<(u64, Piece, Mapped)> {
        let first = self
            .pieces
            .range(..start)
            .next_back()
            .filter(|(_, piece)| piece.end > start)
            .map(|(s, _)| *s);
        let inside = self.pieces.range(start..end.max(start)).map(|(s, _)| *s);
        let touched: Vec<u64> = first.into_iter().chain(inside).collect();
        touched
            .into_iter()
            .filter_map(|at| self.cut_piece(at, start, end))
            .collect()
    }

    fn cut_piece(&mut self, at: u64, start: u64, end: u64) -> Option<(u64, Piece, Mapped)> {
        let piece = self.pieces.remove(&at)?;
        let (from, to) = (at.max(start), piece.end.min(end));
        if at < from {
            self.pieces.insert(
                at,
                Piece {
                    end: from,
                    block: piece.block,
                },
            );
        }
        if to < piece.end {
            self.pieces.insert(to, piece);
        }
        let mapped = *self.blocks.get(&piece.block)?;
        self.change(piece.block, mapped, -((to - from) as i64));
        Some((
            from,
            Piece {
                end: to,
                block: piece.block,
            },
            mapped,
        ))
    }

    fn restore(&mut self, thread: u32) {
        for (start, piece, mapped) in self.pending.remove(&thread).unwrap_or_default() {
            self.pieces.insert(start, piece);
            let current = self
                .blocks
                .get(&piece.block)
                .copied()
                .unwrap_or(Mapped { bytes: 0, ..mapped });
            self.change(piece.block, current, (piece.end - start) as i64);
        }
    }

    fn change(&mut self, block: u64, mapped: Mapped, by: i64) {
        let bytes = mapped.bytes.saturating_add_signed(by);
        if bytes == 0 {
            self.blocks.remove(&block);
        } else {
            self.blocks.insert(block, Mapped { bytes, ..mapped });
        }
    }
}

/// Where a range ends that the kernel rounds up to whole pages. Lengths of a break are not rounded, but end where the
/// break ended.
fn page_end(start: u64, length: u64) -> u64 {
    let end = start.saturating_add(length);
    if start.is_multiple_of(PAGE) {
        end.checked_next_multiple_of(PAGE).unwrap_or(end)
    } else {
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 0x10_0000;

    fn record(step: MappingStep, thread: u32, address: u64, length: u64) -> MappingRecord {
        MappingRecord {
            step: step as u32,
            thread,
            address,
            length,
            site: 1,
            ..MappingRecord::default()
        }
    }

    fn left(steps: &[(MappingStep, u64, u64)]) -> (u64, usize) {
        let mut ranges = Ranges::default();
        for (step, address, length) in steps {
            ranges.apply(&record(*step, 7, *address, *length));
        }
        (ranges.live().map(|mapped| mapped.bytes).sum(), ranges.live().count())
    }

    use MappingStep::{Added, Removed, Removing, Restored};

    #[test]
    fn whole_and_partial_unmaps() {
        assert_eq!(
            left(&[(Added, A, 4 * PAGE), (Removing, A, 4 * PAGE), (Removed, 0, 0)]),
            (0, 0)
        );
        assert_eq!(left(&[(Added, A, 4 * PAGE), (Removing, A, PAGE)]), (3 * PAGE, 1));
        assert_eq!(
            left(&[(Added, A, 4 * PAGE), (Removing, A + 3 * PAGE, PAGE)]),
            (3 * PAGE, 1)
        );
        // From the middle: two stretches are left of one block.
        assert_eq!(left(&[(Added, A, 4 * PAGE), (Removing, A + PAGE, PAGE)]), (3 * PAGE, 1));
    }

    #[test]
    fn lengths_round_up_to_pages() {
        assert_eq!(left(&[(Added, A, 5000), (Removing, A, 5000)]), (0, 0));
        assert_eq!(left(&[(Added, A, 5000), (Removing, A, 1)]), (5000 - PAGE, 1));
    }

    #[test]
    fn an_unmap_across_two_mappings() {
        let both = [
            (Added, A, 2 * PAGE),
            (Added, A + 2 * PAGE, 2 * PAGE),
            (Removing, A + PAGE, 2 * PAGE),
        ];
        assert_eq!(left(&both), (2 * PAGE, 2));
    }

    #[test]
    fn a_failed_unmap_changes_nothing() {
        let steps = [(Added, A, 4 * PAGE), (Removing, A + PAGE, PAGE), (Restored, 0, 0)];
        assert_eq!(left(&steps), (4 * PAGE, 1));
        assert_eq!(
            left(&[(Added, A, PAGE), (Removing, A, PAGE), (Restored, 0, 0)]),
            (PAGE, 1)
        );
    }

    #[test]
    fn a_mapping_over_another_replaces_it() {
        assert_eq!(left(&[(Added, A, 4 * PAGE), (Added, A + PAGE, PAGE)]), (4 * PAGE, 2));
        assert_eq!(left(&[(Added, A, PAGE), (Added, A, 2 * PAGE)]), (2 * PAGE, 1));
    }

    #[test]
    fn what_was_never_mapped_can_be_unmapped() {
        assert_eq!(left(&[(Removing, A, PAGE), (Removed, 0, 0)]), (0, 0));
    }

    #[test]
    fn a_break_goes_up_and_down_by_bytes() {
        let odd = A + 0x123;
        assert_eq!(
            left(&[(Added, odd, 1000), (Removing, odd + 400, 600), (Removed, 0, 0)]),
            (400, 1)
        );
    }
}
