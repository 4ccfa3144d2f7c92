//! Tables in the form of the kernel side: rows of four bytes in pages, and rules shared by all modules of a session.

use std::collections::HashMap;

use leaktrace_common::unwind::{PAGE_BITS, Rule, UnwindKind, UnwindMapping, row, row_low, row_rule};

use super::{rows::Table, sections::CodeSegment};

/// Number of [`Rule::UNSUPPORTED`] in every interner.
const UNSUPPORTED: u16 = 1;

/// Size of a page of memory in bytes on x86-64.
const SYSTEM_PAGE: u64 = 4096;

/// The distinct rules of a session, by number. Number 0 is [`Rule::GAP`].
#[derive(Clone, Debug)]
pub struct RuleInterner {
    rules: Vec<Rule>,
    numbers: HashMap<Rule, u16>,
    refused: usize,
}

/// A module in the form of [`leaktrace_common::unwind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedModule {
    /// Virtual address within the file at which the first page begins; added to the load bias, it gives
    /// [`UnwindMapping::bias`](leaktrace_common::unwind::UnwindMapping::bias).
    pub first_address: u64,
    /// Rows of all pages. Each page begins with a row for its first byte.
    pub rows: Vec<u32>,
    /// For each page its first row, and at the end the number of rows.
    pub pages: Vec<u32>,
    /// Entries of the file that were broken.
    pub skipped: usize,
    /// The executable segments.
    pub code: Vec<CodeSegment>,
}

impl Default for RuleInterner {
    fn default() -> Self {
        Self {
            rules: vec![Rule::GAP, Rule::UNSUPPORTED],
            numbers: HashMap::from([(Rule::GAP, 0), (Rule::UNSUPPORTED, UNSUPPORTED)]),
            refused: 0,
        }
    }
}

impl RuleInterner {
    /// All rules so far; the index is what rows name. It only ever grows.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Rules that found no number left. Their rows are [`Rule::UNSUPPORTED`]: stacks end there and say so.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Packs a module's table.
    pub fn pack(&mut self, table: &Table) -> PackedModule {
        let numbers: Vec<u16> = table.rules.iter().map(|rule| self.number(*rule)).collect();
        let mut rows = Vec::with_capacity(table.rows.len() + table.rows.len() / 64);
        let mut pages = Vec::new();
        let mut current = 0;
        for entry in &table.rows {
            let (page, low) = (entry.offset >> PAGE_BITS, entry.offset as u16);
            while pages.len() <= page as usize {
                pages.push(rows.len() as u32);
                if pages.len() <= page as usize || low != 0 {
                    rows.push(row(0, current));
                }
            }
            current = numbers.get(entry.rule as usize).copied().unwrap_or(UNSUPPORTED);
            rows.push(row(low, current));
        }
        pages.push(rows.len() as u32);
        PackedModule {
            first_address: table.base,
            rows,
            pages,
            skipped: table.skipped,
            code: table.code.clone(),
        }
    }

    fn number(&mut self, rule: Rule) -> u16 {
        if let Some(number) = self.numbers.get(&rule) {
            return *number;
        }
        let Ok(number) = u16::try_from(self.rules.len()) else {
            self.refused += 1;
            return UNSUPPORTED;
        };
        self.rules.push(rule);
        self.numbers.insert(rule, number);
        number
    }
}

impl PackedModule {
    /// Number of pages.
    pub fn page_count(&self) -> u32 {
        self.pages.len().saturating_sub(1) as u32
    }

    /// How an executable mapping of this file is unwound, when its first page is entry `first_page` of the session's
    /// page directory. `start` and `end` are the mapping's addresses, `file_offset` is where in the file it begins;
    /// `None` where the file has no code.
    pub fn mapping(&self, start: u64, end: u64, file_offset: u64, first_page: u32) -> Option<UnwindMapping> {
        Some(UnwindMapping {
            start,
            end,
            bias: self.load_bias(start, file_offset)?.wrapping_add(self.first_address),
            first_page,
            pages: self.page_count(),
            kind: UnwindKind::Tables as u32,
            zero: 0,
        })
    }

    /// What a mapping's addresses differ by from those within the file.
    pub fn load_bias(&self, start: u64, file_offset: u64) -> Option<u64> {
        // Segments are mapped from the beginning of a page, so that the end of the one before may be in it too.
        let begins_before = |segment: &&CodeSegment| segment.file_offset & !(SYSTEM_PAGE - 1) <= file_offset;
        let segment = self
            .code
            .iter()
            .filter(begins_before)
            .max_by_key(|segment| segment.file_offset)?;
        let beyond = file_offset.wrapping_sub(segment.file_offset) as i64;
        if beyond >= segment.size as i64 {
            return None;
        }
        Some(start.wrapping_sub(segment.address).wrapping_sub(beyond as u64))
    }

    /// The rule at a virtual address within the file, found as the kernel side finds it; `rules` are those of the
    /// interner that packed this module.
    pub fn lookup<'r>(&self, rules: &'r [Rule], address: u64) -> &'r Rule {
        self.find(address)
            .and_then(|number| rules.get(usize::from(number)))
            .unwrap_or(&Rule::GAP)
    }

    fn find(&self, address: u64) -> Option<u16> {
        let offset = address.checked_sub(self.first_address)?;
        let page = usize::try_from(offset >> PAGE_BITS).ok()?;
        let (first, end) = (*self.pages.get(page)?, *self.pages.get(page.checked_add(1)?)?);
        let rows = self.rows.get(first as usize..end as usize)?;
        let low = offset as u16;
        let after = rows.partition_point(|row| row_low(*row) <= low);
        Some(row_rule(*rows.get(after.checked_sub(1)?)?))
    }
}
