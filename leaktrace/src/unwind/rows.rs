//! A module's rows: from which address on which rule holds.

use gimli::{BaseAddresses, DebugFrame, EhFrame, LittleEndian};
use leaktrace_common::unwind::{PAGE_BITS, Rule};

use super::{
    UnwindError,
    collect::Collector,
    frames,
    sections::{CodeSegment, FrameSection, UnwindSections},
};

/// Most bytes of a section: what bounds the memory that a hostile file can ask for. The largest known
/// have a quarter of it.
const MOST_BYTES: usize = 1 << 28;

/// From an address on, a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Address, from [`Table::base`].
    pub offset: u32,
    /// Index into [`Table::rules`].
    pub rule: u32,
}

/// The rows of a module, with rules of its own numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Virtual address within the file that rows count from, on the border of a page of rows.
    pub base: u64,
    /// In the order of their addresses, none twice, neighbours with different rules. The last one is a gap.
    pub rows: Vec<Row>,
    /// The distinct rules; number 0 is [`Rule::GAP`].
    pub rules: Vec<Rule>,
    /// Entries of the file that were broken, or for code that is not in it.
    pub skipped: usize,
    /// The executable segments.
    pub code: Vec<CodeSegment>,
}

impl Table {
    /// Rows as virtual addresses and rules.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Rule)> {
        self.rows.iter().map(|row| {
            let rule = self.rules.get(row.rule as usize).unwrap_or(&Rule::GAP);
            (self.base + u64::from(row.offset), rule)
        })
    }
}

/// Makes a module's rows. Where both kinds of section are there, `.debug_frame` adds what `.eh_frame` lacks: code
/// built without asynchronous tables, next to a C library that has them.
pub fn build(image: &UnwindSections<'_>) -> Result<Table, UnwindError> {
    let ranges = image.code.iter().map(CodeSegment::range);
    let code = ranges.reduce(|all, range| all.start.min(range.start)..all.end.max(range.end));
    let code = code.ok_or(UnwindError::NoCode)?;
    let base = code.start & !((1 << PAGE_BITS) - 1);
    let sections = [&image.eh_frame, &image.debug_frame];
    let too_long = |section: &FrameSection<'_>| section.bytes.len() > MOST_BYTES;
    if u32::try_from(code.end - base).is_err() || sections.into_iter().flatten().any(too_long) {
        return Err(UnwindError::TooLarge);
    }
    if sections.iter().all(|section| section.is_none()) {
        return Err(UnwindError::NoTables);
    }
    let mut into = Collector::new(base, code);
    if let Some(eh_frame) = &image.eh_frame {
        let bases = BaseAddresses::default()
            .set_eh_frame(eh_frame.address)
            .set_text(image.text_address)
            .set_got(image.got_address);
        let section = EhFrame::new(&eh_frame.bytes, LittleEndian);
        frames::read(&section, &eh_frame.bytes, frames::EH_COMMON, &bases, &mut into);
    }
    if let Some(debug_frame) = &image.debug_frame {
        let section = DebugFrame::new(&debug_frame.bytes, LittleEndian);
        frames::read(
            &section,
            &debug_frame.bytes,
            frames::DEBUG_COMMON,
            &BaseAddresses::default(),
            &mut into,
        );
    }
    Ok(into.finish(image.code.clone()))
}
