//! `MiniDebugInfo`: the symbols of local functions that some distributions leave in stripped files, in a small ELF file
//! packed by xz into the section `.gnu_debugdata`.
//!
//! It lists what `.dynsym` does not, so both are made one table: a symbol of one of them without a size would else
//! cover the other's functions behind it. Everything is bounded: what is packed, what comes of it, what unpacking needs.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;

use lzma_rust2::XzReader;
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::LittleEndian;
use object::elf::{self, Sym64};
use object::pod::{bytes_of_slice, slice_from_all_bytes};

use super::image::{Image, malformed};
use super::worker::THREAD;
use crate::target::ElfHeaders;
use crate::target::headers::Section;

const ENDIAN: LittleEndian = LittleEndian;
/// The section.
const NAME: &[u8] = b".gnu_debugdata";
/// Most bytes of the section. That of a browser engine, the largest there is, has a few million.
const MAX_PACKED: u64 = 64 << 20;
/// Most bytes of the file in it, which bounds the time too.
const MAX_UNPACKED: u64 = 256 << 20;
/// Most memory that unpacking may take, in KiB: enough for what `xz -9` writes, whose dictionary has 64 MiB.
const MAX_DICTIONARY_KIB: u32 = 80 << 10;

type Symbol = Sym64<LittleEndian>;

/// Whether the file has symbols of this kind, and no better ones.
pub fn is_offered(headers: &ElfHeaders) -> bool {
    headers.section(b".symtab").is_none() && headers.section(NAME).is_some()
}

/// An image of the symbols in `.gnu_debugdata` and `.dynsym` of `file`, whose build id is `expected`. `budget` is
/// lowered by what it takes.
///
/// # Errors
/// The section is damaged, too large, another file's, or was not unpacked within `patience`.
pub fn copy(file: &File, expected: Option<&str>, budget: &mut u64, patience: Duration) -> io::Result<Image> {
    let headers = ElfHeaders::read(file)?;
    let section = headers.section(NAME).ok_or_else(|| malformed("no such section"))?;
    let packed = ElfHeaders::contents(file, section, MAX_PACKED)?;
    let unpacked = unpack_within(packed, MAX_UNPACKED.min(*budget), patience)?;
    let inner = in_memory(&unpacked)?;
    drop(unpacked);
    let inner_headers = ElfHeaders::read(&inner)?;
    let build_id = inner_headers.build_id(&inner);
    if build_id.is_some() && build_id.as_deref() != expected {
        return Err(malformed("symbols of another file"));
    }
    let mut table = SymbolTable::default();
    table.add(&inner, &inner_headers, (b".symtab", b".strtab"))?;
    // A file without exported functions has none.
    if headers.section(b".dynsym").is_some() {
        table.add(file, &headers, (b".dynsym", b".dynstr"))?;
    }
    let size = table.size();
    if size > *budget {
        return Err(malformed("more symbols than may be held"));
    }
    *budget -= size;
    Image::of_symbols(&headers, table.symbols(), &table.names)
}

fn in_memory(contents: &[u8]) -> io::Result<File> {
    let mut memory = File::from(memfd_create("leaktrace-unpacked", MFdFlags::MFD_CLOEXEC)?);
    memory.write_all(contents)?;
    Ok(memory)
}

/// Unpacks in a thread of its own: what panics over the data is caught, what takes too long is not waited for. The
/// thread ends by itself when the limit is reached.
fn unpack_within(packed: Vec<u8>, limit: u64, patience: Duration) -> io::Result<Vec<u8>> {
    super::worker::silence_panics();
    let (unpacked, result) = channel();
    let work = move || {
        let attempt = AssertUnwindSafe(|| unpack(&packed, limit));
        let done = catch_unwind(attempt).unwrap_or_else(|_panic| Err(malformed("damaged packed data")));
        // Nobody waits any more when it took too long.
        let _ = unpacked.send(done);
    };
    Builder::new().name(THREAD.to_owned()).spawn(work)?;
    result
        .recv_timeout(patience)
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "unpacking took too long")))
}

/// Unpacks xz data; refused if it has more than `limit` bytes.
fn unpack(packed: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    XzReader::new_mem_limit(packed, true, MAX_DICTIONARY_KIB)
        .take(limit + 1)
        .read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > limit {
        return Err(malformed("packed data that would grow too large"));
    }
    Ok(unpacked)
}

/// Symbols of several tables in one, with all their names.
#[derive(Default)]
struct SymbolTable {
    symbols: Vec<Symbol>,
    names: Vec<u8>,
}

impl SymbolTable {
    /// Adds the functions that a table of `file` defines. The sections are `(symbols, names)`.
    fn add(&mut self, file: &File, headers: &ElfHeaders, sections: (&[u8], &[u8])) -> io::Result<()> {
        let contents = |name: &[u8]| {
            let section: &Section = headers.section(name).ok_or_else(|| malformed("no symbols"))?;
            ElfHeaders::contents(file, section, MAX_UNPACKED)
        };
        let (symbols, names) = (contents(sections.0)?, contents(sections.1)?);
        let symbols = slice_from_all_bytes::<Symbol>(&symbols).map_err(|()| malformed("symbols cut short"))?;
        let shift = self.names.len() as u32;
        self.names.extend_from_slice(&names);
        // A last name without an end must not run into the next table's.
        self.names.push(0);
        self.symbols
            .extend(symbols.iter().filter(|symbol| is_function(symbol)).map(|symbol| {
                let mut symbol = *symbol;
                let name = symbol.st_name.get(ENDIAN).min(names.len() as u32);
                symbol.st_name.set(ENDIAN, shift + name);
                // The copy has none of the sections that it could name.
                symbol.st_shndx.set(ENDIAN, elf::SHN_ABS);
                symbol
            }));
        Ok(())
    }

    fn symbols(&self) -> &[u8] {
        bytes_of_slice(&self.symbols)
    }

    fn size(&self) -> u64 {
        (self.symbols().len() + self.names.len()) as u64
    }
}

/// Whether it names code that is defined here. Code written in assembler often has no type.
fn is_function(symbol: &Symbol) -> bool {
    let kind = symbol.st_type();
    let is_code = kind == elf::STT_FUNC || kind == elf::STT_GNU_IFUNC || kind == elf::STT_NOTYPE;
    is_code && symbol.st_shndx.get(ENDIAN) != elf::SHN_UNDEF && symbol.st_value.get(ENDIAN) != 0
}

#[cfg(test)]
#[path = "mini_debug_tests.rs"]
mod tests;
