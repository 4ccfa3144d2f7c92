//! The unwinding tables in the kernel: filled here, read by the walker.
//!
//! Files are appended and never taken out, so that a walk under way always finds what it started with. Mappings have
//! two halves: one in force, one being filled; the switch is one store.

use aya::Ebpf;
use leaktrace_common::unwind::{MAX_MAPPINGS, ROWS_PER_ELEMENT, Rule, UnwindMapping};

use super::{KernelError, shared::Shared};

/// Most rows that are made room for at once: 128 MiB.
const MOST_ROWS: u64 = 32 << 20;

/// Room in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnwindLimits {
    /// Rows of all files.
    pub rows: u32,
    /// Pages of 64 KiB of code of all files.
    pub pages: u32,
    /// Rules of the session.
    pub rules: u32,
}

impl UnwindLimits {
    /// Four million rows (16 MiB), 4 GiB of code, and as many rules as a row can name.
    pub const DEFAULT: Self = Self {
        rows: 4 << 20,
        pages: 1 << 16,
        rules: 1 << 16,
    };

    /// Room for files with so many bytes of unwinding information besides what comes later. A row takes at least three
    /// bytes there; what a file says beyond any real one's size is not believed.
    pub fn fitting(bytes: u64) -> Self {
        let wanted = Self::DEFAULT.rows / 2 + (bytes / 3).min(MOST_ROWS) as u32;
        Self {
            rows: wanted.max(Self::DEFAULT.rows),
            ..Self::DEFAULT
        }
    }

    /// Elements of the row table.
    pub fn elements(self) -> u32 {
        self.rows.div_ceil(ROWS_PER_ELEMENT as u32)
    }
}

/// Where a file's pages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacedPages {
    /// Entry of the page directory.
    pub first_page: u32,
    /// Number of pages.
    pub pages: u32,
}

/// The tables, in shared memory.
pub struct UnwindTables {
    limits: UnwindLimits,
    rows: Shared<[u32; ROWS_PER_ELEMENT]>,
    pages: Shared<u32>,
    rules: Shared<Rule>,
    mappings: Shared<UnwindMapping>,
    used_rows: u32,
    used_pages: u32,
    used_rules: u32,
    second_half: bool,
}

impl UnwindTables {
    /// Maps the tables.
    pub fn map(ebpf: &Ebpf, limits: UnwindLimits) -> Result<Self, KernelError> {
        Ok(Self {
            limits,
            rows: Shared::open(ebpf, "UNWIND_ROWS", limits.elements())?,
            pages: Shared::open(ebpf, "UNWIND_PAGES", limits.pages)?,
            rules: Shared::open(ebpf, "UNWIND_RULES", limits.rules)?,
            mappings: Shared::open(ebpf, "UNWIND_MAPPINGS", 2 * MAX_MAPPINGS)?,
            used_rows: 0,
            used_pages: 0,
            used_rules: 0,
            second_half: false,
        })
    }

    /// Appends a file: its rows, and the first row of each of its pages counted from its own first, with one entry
    /// more for the end. Nothing when there is no room.
    pub fn add(&mut self, rows: &[u32], pages: &[u32]) -> Option<PlacedPages> {
        let (first_row, first_page) = (self.used_rows, self.used_pages);
        let rows_end = first_row.checked_add(u32::try_from(rows.len()).ok()?)?;
        let pages_end = first_page.checked_add(u32::try_from(pages.len()).ok()?)?;
        if rows_end > self.limits.rows || pages_end > self.limits.pages || pages.len() < 2 {
            return None;
        }
        for (index, row) in (first_row..).zip(rows) {
            self.set_row(index, *row);
        }
        for (index, page) in (first_page..).zip(pages) {
            store(&self.pages, index, page + first_row);
        }
        (self.used_rows, self.used_pages) = (rows_end, pages_end);
        Some(PlacedPages {
            first_page,
            pages: pages.len() as u32 - 1,
        })
    }

    /// Takes over the rules that are new in `rules`, the session's list so far.
    pub fn set_rules(&mut self, rules: &[Rule]) {
        for (index, rule) in (0..).zip(rules).skip(self.used_rules as usize) {
            store(&self.rules, index, *rule);
        }
        self.used_rules = rules.len() as u32;
    }

    /// Fills the half that is not in force, and gives what the session's state must say to put it in force.
    /// Mappings beyond the room are left out; how many is said.
    pub fn fill_mappings(&mut self, mappings: &[UnwindMapping]) -> (u64, usize) {
        self.second_half = !self.second_half;
        let first = if self.second_half { MAX_MAPPINGS } else { 0 };
        let kept = mappings.len().min(MAX_MAPPINGS as usize);
        for (index, mapping) in (first..).zip(&mappings[..kept]) {
            store(&self.mappings, index, *mapping);
        }
        (u64::from(first) | (kept as u64) << 32, mappings.len() - kept)
    }

    /// Bytes of the tables in use.
    pub fn used_bytes(&self) -> u64 {
        u64::from(self.used_rows) * 4 + u64::from(self.used_pages) * 8 + u64::from(self.used_rules) * 16
    }

    fn set_row(&self, index: u32, row: u32) {
        if let Some(element) = self.rows.get(index / ROWS_PER_ELEMENT as u32) {
            // SAFETY: within the element, and no walk reads a row before its page is there.
            unsafe {
                element
                    .cast::<u32>()
                    .add(index as usize % ROWS_PER_ELEMENT)
                    .write_volatile(row);
            };
        }
    }
}

fn store<T>(table: &Shared<T>, index: u32, value: T) {
    if let Some(entry) = table.get(index) {
        // SAFETY: a valid, aligned pointer into shared memory, which no walk reads before the switch.
        unsafe { entry.write_volatile(value) };
    }
}
