//! One ELF image: where its functions and variables are, and the code of a function.
//!
//! Images come from processes that are not trusted, so no size in them is believed: each is checked against the file
//! by the reader, and the work is bounded. Reads through any [`ReadRef`], so that with `object::ReadCache` only what
//! is looked at is read. Reads nothing else.

mod symbols;

use std::collections::{BTreeMap, HashMap};

use object::elf::{
    DF_1_PIE, DT_FLAGS_1, DT_NEEDED, DT_SONAME, ELFCLASS32, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_EXEC, FileHeader64,
    PF_X, PT_LOAD, ProgramHeader64, SHT_DYNAMIC, SHT_DYNSYM, SHT_GNU_VERSYM, SHT_RELA, SHT_STRTAB, SHT_SYMTAB,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::{LittleEndian, ReadRef};

pub use symbols::{Functions, Import, Refusal};

/// The byte order of every image read here: x86-64 has one.
const ENDIAN: LittleEndian = LittleEndian;
/// No function of an allocator is longer; code beyond is not read.
const MAX_FUNCTION_BYTES: u64 = 64 * 1024;
/// The longest x86 instruction.
const MAX_INSTRUCTION_BYTES: u64 = 15;
/// Of the file header.
const HEADER_BYTES: u64 = 64;
/// More headers than this are not a program's.
const MAX_HEADERS: u32 = 1 << 17;
/// The largest symbol table that is read: ten times a browser's.
const MAX_TABLE_BYTES: u64 = 1 << 29;
/// Longest path of a loader, and most libraries asked for, that are read.
const MAX_INTERPRETER_BYTES: u64 = 4096;
const MAX_NEEDED: usize = 4096;
/// Most entries of the dynamic table that are looked at.
const MAX_DYNAMIC: usize = 1 << 16;

type Header = FileHeader64<LittleEndian>;

/// Why a file cannot be read as the image of a traced program.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ElfError {
    /// Not an ELF file.
    #[error("not an ELF file")]
    NotElf,
    /// A 32-bit image.
    #[error("a 32-bit program: only 64-bit x86-64 programs can be traced")]
    Class32,
    /// Built for another processor; the number is the ELF machine.
    #[error("built for another processor (ELF machine {0}): only x86-64 programs can be traced")]
    Machine(u16),
    /// The file ends before what its header promises.
    #[error("the ELF file is truncated")]
    Truncated,
    /// The file contradicts itself.
    #[error("the ELF file is malformed: {0}")]
    Malformed(String),
}

impl From<object::Error> for ElfError {
    fn from(error: object::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Where one function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Function {
    /// Virtual address in the image, before relocation.
    pub address: u64,
    /// Offset of its first byte in the file, as uprobes count.
    pub file_offset: u64,
    /// Bytes of code, as the symbol says; 0 when it does not say.
    pub size: u64,
}

/// A parsed 64-bit x86-64 image.
#[derive(Debug)]
pub struct Image<'data, R: ReadRef<'data> = &'data [u8]> {
    data: R,
    segments: &'data [ProgramHeader64<LittleEndian>],
    sections: SectionTable<'data, Header, R>,
    /// Whether it says itself where it is loaded.
    fixed: bool,
}

impl<'data, R: ReadRef<'data>> Image<'data, R> {
    /// Reads the headers of an image.
    ///
    /// # Errors
    /// When it is no ELF file, is not for 64-bit x86-64, ends too early, or contradicts itself.
    pub fn parse(data: R) -> Result<Self, ElfError> {
        check_identity(data)?;
        let header = Header::parse(data)?;
        check_length(header, data)?;
        let sections = header.sections(ENDIAN, data)?;
        check_tables(&sections)?;
        Ok(Self {
            data,
            segments: header.program_headers(ENDIAN, data)?,
            sections,
            fixed: header.e_type(ENDIAN) == ET_EXEC,
        })
    }

    /// The functions among `names` that this image defines, with those it defines in a way that cannot be probed.
    ///
    /// Both symbol tables are searched; of a name defined in several versions, the default one is taken. Local symbols
    /// are passed over: a program's private `free` is not the allocator's.
    pub fn functions(&self, names: &[&str]) -> Functions {
        symbols::functions(self, names)
    }

    /// The same, where local symbols of these names count too if `is_unmistakable` says so.
    pub fn functions_even_local(&self, names: &[&str], is_unmistakable: fn(&str) -> bool) -> Functions {
        symbols::functions_even_local(self, names, is_unmistakable)
    }

    /// The virtual addresses `(start, end)` from the first to the last function whose name begins with one of `starts`;
    /// none when `outside` lies among them.
    pub fn span(&self, starts: &[&str], outside: &str) -> Option<(u64, u64)> {
        symbols::span(self, starts, outside)
    }

    /// The virtual address of the variable `name`, when this image defines it.
    pub fn variable(&self, name: &str) -> Option<u64> {
        symbols::variable(self, name)
    }

    /// The code of `function`: shorter than its size where that is over 64 KiB or the file holds no more, and one
    /// instruction's length where the size is not known.
    pub fn bytes(&self, function: &Function) -> &'data [u8] {
        let Some(segment) = self.code_segment(function.address) else {
            return &[];
        };
        let left = segment.p_filesz.get(ENDIAN) - (function.address - segment.p_vaddr.get(ENDIAN));
        let size = if function.size == 0 {
            MAX_INSTRUCTION_BYTES
        } else {
            function.size
        };
        let size = size.min(left).min(MAX_FUNCTION_BYTES);
        self.data.read_bytes_at(function.file_offset, size).unwrap_or_default()
    }

    /// The virtual addresses `(start, end)` that executable segments span.
    pub fn code_range(&self) -> Option<(u64, u64)> {
        let spans = || self.segments.iter().filter(|segment| is_code(segment)).map(memory_span);
        let start = spans().map(|(start, _)| start).min()?;
        let end = spans().map(|(_, end)| end).max()?;
        Some((start, end))
    }

    /// The libraries this image asks for, in its order.
    pub fn needed(&self) -> Vec<String> {
        let Ok(table) = self.sections.dynamic_table(ENDIAN, self.data) else {
            return Vec::new();
        };
        let entries = table.iter().filter(|entry| entry.tag == DT_NEEDED).take(MAX_NEEDED);
        entries
            .filter_map(|entry| table.string(entry).ok())
            .map(lossy)
            .collect()
    }

    /// The name by which others ask for this library, where it has one.
    pub fn own_name(&self) -> Option<String> {
        let table = self.sections.dynamic_table(ENDIAN, self.data).ok()?;
        let entry = table.iter().take(MAX_DYNAMIC).find(|entry| entry.tag == DT_SONAME)?;
        table.string(entry).ok().map(lossy)
    }

    /// Whether this image is a program, and not a library.
    pub fn is_program(&self) -> bool {
        if self.fixed {
            return true;
        }
        let Ok(table) = self.sections.dynamic_table(ENDIAN, self.data) else {
            return false;
        };
        let mut entries = table.iter().take(MAX_DYNAMIC);
        entries.any(|entry| entry.tag == DT_FLAGS_1 && entry.val & DF_1_PIE.0 != 0)
    }

    /// The loader this image names; none for a static program, and for most libraries.
    pub fn interpreter(&self) -> Option<String> {
        let mut short = self
            .segments
            .iter()
            .filter(|segment| segment.p_filesz.get(ENDIAN) <= MAX_INTERPRETER_BYTES);
        let found = short.find_map(|segment| segment.interpreter(ENDIAN, self.data).ok().flatten());
        found.map(lossy)
    }

    /// The code from `address` on, no more than `most` bytes; empty where there is none.
    pub fn code(&self, address: u64, most: u64) -> &'data [u8] {
        let Some(segment) = self.code_segment(address) else {
            return &[];
        };
        let left = segment.p_filesz.get(ENDIAN) - (address - segment.p_vaddr.get(ENDIAN));
        let offset = self.file_offset(address);
        let bytes = offset.and_then(|offset| self.data.read_bytes_at(offset, left.min(most)).ok());
        bytes.unwrap_or_default()
    }

    /// What the loader writes into its slots for functions, by the virtual address of the slot: the name of a function,
    /// and its address where this image defines it.
    pub fn imports(&self) -> HashMap<u64, Import> {
        symbols::imports(self)
    }

    /// Where `address` lies in the file, if it is code.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        let segment = self.code_segment(address)?;
        (address - segment.p_vaddr.get(ENDIAN)).checked_add(segment.p_offset.get(ENDIAN))
    }

    fn code_segment(&self, address: u64) -> Option<&'data ProgramHeader64<LittleEndian>> {
        self.segments.iter().find(|segment| {
            let inside = address.checked_sub(segment.p_vaddr.get(ENDIAN));
            is_code(segment) && inside.is_some_and(|inside| inside < segment.p_filesz.get(ENDIAN))
        })
    }
}

fn is_code(segment: &ProgramHeader64<LittleEndian>) -> bool {
    segment.p_type.get(ENDIAN) == PT_LOAD && segment.p_flags.get(ENDIAN).contains(PF_X)
}

fn memory_span(segment: &ProgramHeader64<LittleEndian>) -> (u64, u64) {
    let start = segment.p_vaddr.get(ENDIAN);
    (start, start.saturating_add(segment.p_memsz.get(ENDIAN)))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Says what is wrong with a file that is not for us, before the parser says only that something is.
fn check_identity<'data, R: ReadRef<'data>>(data: R) -> Result<(), ElfError> {
    let length = data.len().map_err(|()| ElfError::Truncated)?;
    let start = data
        .read_bytes_at(0, length.min(HEADER_BYTES))
        .map_err(|()| ElfError::Truncated)?;
    if !start.starts_with(&ELFMAG) {
        return Err(ElfError::NotElf);
    }
    let &[_, _, _, _, class, order, ..] = start else {
        return Err(ElfError::Truncated);
    };
    if class == ELFCLASS32.0 {
        return Err(ElfError::Class32);
    }
    let machine = start.get(18..20).ok_or(ElfError::Truncated)?;
    let little = order == ELFDATA2LSB.0;
    let machine = machine.iter().rev().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
    let machine = if little { machine } else { machine.swap_bytes() };
    match (little && machine == EM_X86_64.0, length < HEADER_BYTES) {
        (false, _) => Err(ElfError::Machine(machine)),
        (true, true) => Err(ElfError::Truncated),
        (true, false) => Ok(()),
    }
}

/// Whether the tables that the header names lie within the file.
fn check_length<'data, R: ReadRef<'data>>(header: &Header, data: R) -> Result<(), ElfError> {
    let length = data.len().map_err(|()| ElfError::Truncated)?;
    let end = |offset: u64, count: u16, size: u16| offset.saturating_add(u64::from(count) * u64::from(size));
    let programs = end(
        header.e_phoff(ENDIAN),
        header.e_phnum(ENDIAN),
        header.e_phentsize(ENDIAN),
    );
    let sections = end(
        header.e_shoff(ENDIAN),
        header.e_shnum(ENDIAN),
        header.e_shentsize(ENDIAN),
    );
    if programs.max(sections) > length {
        return Err(ElfError::Truncated);
    }
    let count = header.phnum(ENDIAN, data)?.max(header.shnum(ENDIAN, data)?);
    if count > MAX_HEADERS {
        Err(ElfError::Malformed(format!("{count} headers")))
    } else {
        Ok(())
    }
}

/// Refuses tables that only a file made to exhaust memory has (a sparse file may claim any size).
fn check_tables<'data, R: ReadRef<'data>>(sections: &SectionTable<'data, Header, R>) -> Result<(), ElfError> {
    let read = |kind| {
        matches!(
            kind,
            SHT_DYNSYM | SHT_SYMTAB | SHT_STRTAB | SHT_DYNAMIC | SHT_GNU_VERSYM | SHT_RELA
        )
    };
    let sizes = sections
        .iter()
        .filter(|section| read(section.sh_type(ENDIAN)))
        .map(|section| section.sh_size(ENDIAN));
    match sizes.max().filter(|&size| size > MAX_TABLE_BYTES) {
        Some(size) => Err(ElfError::Malformed(format!("a symbol table of {size} bytes"))),
        None => Ok(()),
    }
}

/// Names and what was found of them.
type ByName<T> = BTreeMap<String, T>;

#[cfg(test)]
mod tests;
