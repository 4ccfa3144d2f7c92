//! Rows of functions in whatever order they come, put in the order of their addresses.

use std::{collections::HashMap, ops::Range};

use leaktrace_common::unwind::Rule;

use super::{
    rows::{Row, Table},
    sections::CodeSegment,
};

/// Space between functions that is taken for padding: shorter than the alignment of functions.
const PADDING: u32 = 16;

/// Entries of the memory of recent rules; a power of two.
const RECENT: usize = 1024;

/// Collects the functions of a module.
pub struct Collector {
    /// Address that offsets count from.
    base: u64,
    code: Range<u64>,
    functions: Vec<Function>,
    rows: Vec<Row>,
    rules: Rules,
    /// Entries that were broken.
    pub skipped: usize,
}

/// A function's addresses, as offsets, and its rows: those from `first_row` to that of the next function collected.
#[derive(Clone, Copy)]
struct Function {
    start: u32,
    end: u32,
    first_row: u32,
    rows_end: u32,
}

impl Collector {
    /// A collector for functions in `code`, which ends less than 4 GiB after `base`.
    pub fn new(base: u64, code: Range<u64>) -> Self {
        Self {
            base,
            code,
            functions: Vec::new(),
            rows: Vec::new(),
            rules: Rules::new(),
            skipped: 0,
        }
    }

    /// A function begins; answers where it ends, if its rows are wanted.
    pub fn function(&mut self, start: u64, length: u64) -> Option<u64> {
        // Linkers leave the entries of discarded functions behind with address 0, or with no length.
        if start == 0 || length == 0 {
            return None;
        }
        if !self.code.contains(&start) {
            self.skipped += 1;
            return None;
        }
        let end = start.saturating_add(length).min(self.code.end);
        let rows = self.rows.len() as u32;
        self.functions.push(Function {
            start: self.offset(start),
            end: self.offset(end),
            first_row: rows,
            rows_end: rows,
        });
        Some(end)
    }

    /// From `address` on, within the last function, `rule` holds. Addresses do not decrease.
    pub fn row(&mut self, address: u64, rule: Rule) {
        let offset = self.offset(address.min(self.code.end));
        let rule = self.rules.number(rule);
        let Some(function) = self.functions.last_mut().filter(|function| offset < function.end) else {
            return;
        };
        push(&mut self.rows, function.first_row as usize, Row { offset, rule });
        function.rows_end = self.rows.len() as u32;
    }

    fn offset(&self, address: u64) -> u32 {
        address.saturating_sub(self.base) as u32
    }

    /// The rows in order.
    ///
    /// Where functions overlap, the one that starts last holds, to its end, as in the binary search that exception
    /// handling does; of those that start at one address, the first collected.
    pub fn finish(mut self, code: Vec<CodeSegment>) -> Table {
        self.functions.sort_by_key(|function| function.start);
        self.functions.dedup_by_key(|function| function.start);
        let mut ordered = Vec::with_capacity(self.rows.len());
        let gap = self.rules.number(Rule::GAP);
        for (index, function) in self.functions.iter().enumerate() {
            let next = self.functions.get(index + 1).map(|next| next.start);
            let end = next.map_or(function.end, |next| next.min(function.end));
            let rows = function.first_row as usize..function.rows_end as usize;
            for row in self.rows.get(rows).unwrap_or_default() {
                if row.offset < end {
                    push(&mut ordered, 0, *row);
                }
            }
            if next.is_none_or(|next| next - end >= PADDING) {
                push(&mut ordered, 0, Row { offset: end, rule: gap });
            }
        }
        Table {
            base: self.base,
            rows: ordered,
            rules: self.rules.all,
            skipped: self.skipped,
            code,
        }
    }
}

/// Adds a row to those from `first` on, unless it says nothing new.
fn push(rows: &mut Vec<Row>, first: usize, row: Row) {
    if rows.len() > first {
        if rows.last().is_some_and(|last| last.offset == row.offset) {
            rows.pop();
        }
        if rows.len() > first && rows.last().is_some_and(|last| last.rule == row.rule) {
            return;
        }
    }
    rows.push(row);
}

/// The distinct rules of a module, by number.
struct Rules {
    all: Vec<Rule>,
    numbers: HashMap<Rule, u32>,
    /// Numbers found last, by a cheap hash: most rows have one of a few dozen rules.
    recent: Vec<u32>,
}

impl Rules {
    /// Only with the gap, so that number 0 is always there.
    fn new() -> Self {
        Self {
            all: vec![Rule::GAP],
            numbers: HashMap::from([(Rule::GAP, 0)]),
            recent: vec![0; RECENT],
        }
    }

    fn number(&mut self, rule: Rule) -> u32 {
        let slot = cheap_hash(&rule) & (RECENT - 1);
        let recent = self.recent.get(slot).copied().unwrap_or_default();
        if self.all.get(recent as usize) == Some(&rule) {
            return recent;
        }
        let next = self.all.len() as u32;
        let number = *self.numbers.entry(rule).or_insert(next);
        if number == next {
            self.all.push(rule);
        }
        if let Some(recent) = self.recent.get_mut(slot) {
            *recent = number;
        }
        number
    }
}

fn cheap_hash(rule: &Rule) -> usize {
    let kinds = u32::from(rule.cfa) << 8 | u32::from(rule.frame_pointer);
    let mixed = (kinds ^ (rule.cfa_offset as u32).rotate_left(16) ^ (rule.frame_pointer_offset as u32).rotate_left(8))
        .wrapping_mul(0x9E37_79B1);
    (mixed >> 16) as usize
}
