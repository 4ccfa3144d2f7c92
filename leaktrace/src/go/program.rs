//! A Go program's file: its function table, and the linker's description of it.

use std::fs::File;

use object::LittleEndian;

use super::moduledata::ModuleData;
use super::pclntab::{Header, Table};
use super::words::Words;
use crate::target::ElfHeaders;
use crate::target::headers::Section;

const ENDIAN: LittleEndian = LittleEndian;
/// Most bytes of a function table: ten times that of the largest programs.
const MAX_TABLE: u64 = 512 << 20;
/// Most bytes of the data of functions.
const MAX_DATA: u64 = 128 << 20;
/// Sections that are the table, and one into which C's linker puts it among other things.
const SECTIONS: [&[u8]; 2] = [b".gopclntab", b".data.rel.ro.gopclntab"];
const MIXED: &[u8] = b".data.rel.ro";
/// How tables are aligned there.
const ALIGNMENT: usize = 8;

/// What Go's linker left in a file.
#[derive(Debug)]
pub struct Program {
    /// Functions, files and lines.
    pub table: Table,
    /// Where its parts are; none if the description was not found.
    pub module: Option<ModuleData>,
}

impl Program {
    /// Reads what Go's linker left in `file`, taking at most `budget` bytes. None if it is not a Go program of Go 1.18
    /// or newer, or too much of it is damaged.
    pub fn read(file: &File, headers: &ElfHeaders, budget: u64) -> Option<Self> {
        let (address, bytes) = table(file, headers, MAX_TABLE.min(budget))?;
        let header = Header::parse(&bytes)?;
        let words = Words::read(file, headers);
        let module = ModuleData::find(&words, address, &header);
        let text = module.as_ref().map_or(header.text, |module| module.text.0);
        let left = budget.saturating_sub(bytes.len() as u64).min(MAX_DATA);
        let candidates = module.iter().flat_map(|module| module.function_data(&words));
        let data = candidates.filter_map(|start| data(file, headers, start, left));
        let table = with_fitting(bytes, text, data)?;
        Some(Self { table, module })
    }

    /// Whether a file says that Go's linker made it.
    pub fn is_marked(headers: &ElfHeaders) -> bool {
        [&b".go.buildinfo"[..], b".note.go.buildid", b".gopclntab"]
            .iter()
            .any(|name| headers.section(name).is_some())
    }
}

/// The table with the first of several data that fits it, or with none.
fn with_fitting(bytes: Vec<u8>, text: u64, data: impl Iterator<Item = Vec<u8>>) -> Option<Table> {
    if text == 0 {
        return None;
    }
    let mut table = Table::new(bytes, text)?;
    for data in data {
        if table.take_data(data) {
            break;
        }
    }
    Some(table)
}

/// Address and contents of the function table.
fn table(file: &File, headers: &ElfHeaders, limit: u64) -> Option<(u64, Vec<u8>)> {
    let contents = |section: &Section| {
        let bytes = ElfHeaders::contents(file, section, limit).ok()?;
        Some((section.sh_addr.get(ENDIAN), bytes))
    };
    if let Some(section) = SECTIONS.iter().find_map(|name| headers.section(name)) {
        return contents(section);
    }
    if !Program::is_marked(headers) {
        return None;
    }
    let (start, bytes) = contents(headers.section(MIXED)?)?;
    let begins = |at: &usize| Header::parse(bytes.get(*at..).unwrap_or_default()).is_some();
    let at = (0..bytes.len())
        .step_by(ALIGNMENT)
        .filter(|&at| Header::may_begin(bytes.get(at..).unwrap_or_default()));
    let at = at.take(64).find(begins)?;
    Some((start.checked_add(at as u64)?, bytes.get(at..)?.to_vec()))
}

/// What stands from `start` to the end of its section.
fn data(file: &File, headers: &ElfHeaders, start: u64, limit: u64) -> Option<Vec<u8>> {
    let section = headers.sections.iter().find(|section| {
        let inside = start.checked_sub(section.sh_addr.get(ENDIAN));
        section.sh_addr.get(ENDIAN) != 0 && inside.is_some_and(|inside| inside < section.sh_size.get(ENDIAN))
    })?;
    let inside = start - section.sh_addr.get(ENDIAN);
    let size = (section.sh_size.get(ENDIAN) - inside).min(limit);
    let offset = section.sh_offset.get(ENDIAN).checked_add(inside)?;
    crate::target::files::read_at(file, offset, size, limit).ok()
}
