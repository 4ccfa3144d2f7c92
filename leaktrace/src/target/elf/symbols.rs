//! The two symbol tables of an image, searched for a few names in one pass.

use std::collections::HashMap;

use object::elf::{
    R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, Rela64, SHN_UNDEF, SHT_DYNSYM, SHT_RELA, SHT_SYMTAB, STB_LOCAL, STT_FUNC,
    STT_GNU_IFUNC, STT_OBJECT, SectionType, Sym64, SymbolType, Versym,
};
use object::read::elf::SectionHeader;
use object::{LittleEndian, ReadRef};

use super::{ByName, ENDIAN, Function, Image};

/// What was found of the names asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// Functions that can be probed.
    pub found: ByName<Function>,
    /// Names that are defined, but not as functions that can be probed.
    pub refused: ByName<Refusal>,
}

/// Why a name that an image defines cannot be probed.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The symbol names a resolver: which function it chooses is decided in the process.
    #[error("chosen at load time (STT_GNU_IFUNC): the symbol is the resolver, not the function")]
    Indirect,
    /// The symbol's address is in no executable part of the file.
    #[error("not in an executable part of the file")]
    NotCode,
}

/// A function that is called through a slot which the loader fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name, without a version.
    pub name: String,
    /// Its virtual address, where the image defines it itself; another image's may take its place.
    pub defined_at: Option<u64>,
}

/// How good a definition is; a better one of the same name wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Not public.
    Local,
    /// An old version, kept for programs linked long ago.
    OldVersion,
    /// From the full table, which strip takes away.
    Full,
    /// From the dynamic table: what the loader binds to.
    Dynamic,
}

/// Imports with longer names are of no interest.
const LONGEST_IMPORT: usize = 256;

struct Table<'data> {
    symbols: &'data [Sym64<LittleEndian>],
    names: &'data [u8],
    versions: &'data [Versym<LittleEndian>],
    rank: Rank,
}

pub(super) fn functions<'data, R: ReadRef<'data>>(image: &Image<'data, R>, names: &[&str]) -> Functions {
    functions_even_local(image, names, |_| false)
}

pub(super) fn functions_even_local<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    names: &[&str],
    is_unmistakable: fn(&str) -> bool,
) -> Functions {
    let mut functions = Functions::default();
    for (name, symbol) in search(image, names, &[STT_FUNC, STT_GNU_IFUNC], is_unmistakable) {
        match as_function(image, symbol) {
            Ok(function) => drop(functions.found.insert(name, function)),
            Err(refusal) => drop(functions.refused.insert(name, refusal)),
        }
    }
    functions
}

pub(super) fn variable<'data, R: ReadRef<'data>>(image: &Image<'data, R>, name: &str) -> Option<u64> {
    search(image, &[name], &[STT_OBJECT], |_| false)
        .remove(name)
        .map(|symbol| symbol.st_value.get(ENDIAN))
}

/// Of relocations by symbol, those that fill a slot with a function's address.
pub(super) fn imports<'data, R: ReadRef<'data>>(image: &Image<'data, R>) -> HashMap<u64, Import> {
    let Some(dynamic) = table(image, SHT_DYNSYM, Rank::Dynamic) else {
        return HashMap::new();
    };
    let sections = image
        .sections
        .iter()
        .filter(|section| section.sh_type(ENDIAN) == SHT_RELA);
    let relocations = sections
        .filter_map(|section| {
            section
                .data_as_array::<Rela64<LittleEndian>, _>(ENDIAN, image.data)
                .ok()
        })
        .flatten()
        .filter(|relocation| {
            let kind = relocation.r_type(ENDIAN, false);
            kind == R_X86_64_JUMP_SLOT || kind == R_X86_64_GLOB_DAT
        });
    let import = |relocation: &Rela64<LittleEndian>| {
        let index = relocation.r_sym(ENDIAN, false) as usize;
        let symbol = dynamic.symbols.get(index)?;
        let (name, _) = dynamic.name(symbol, LONGEST_IMPORT)?;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        let is_defined = symbol.st_shndx.get(ENDIAN) != SHN_UNDEF;
        let defined_at = is_defined.then(|| symbol.st_value.get(ENDIAN));
        Some((relocation.r_offset.get(ENDIAN), Import { name, defined_at }))
    };
    relocations.filter_map(import).collect()
}

fn as_function<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    symbol: &Sym64<LittleEndian>,
) -> Result<Function, Refusal> {
    if symbol.st_info.st_type() == STT_GNU_IFUNC {
        return Err(Refusal::Indirect);
    }
    let address = symbol.st_value.get(ENDIAN);
    let file_offset = image.file_offset(address).ok_or(Refusal::NotCode)?;
    Ok(Function {
        address,
        file_offset,
        size: symbol.st_size.get(ENDIAN),
    })
}

pub(super) fn span<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    starts: &[&str],
    outside: &str,
) -> Option<(u64, u64)> {
    let table = table(image, SHT_SYMTAB, Rank::Full)?;
    let mut span: Option<(u64, u64)> = None;
    let mut out = None;
    for symbol in table.symbols {
        if symbol.st_info.st_type() != STT_FUNC || symbol.st_shndx.get(ENDIAN) == SHN_UNDEF {
            continue;
        }
        let Some((name, _)) = table.name(symbol, LONGEST_IMPORT) else {
            continue;
        };
        let start = symbol.st_value.get(ENDIAN);
        if name == outside.as_bytes() {
            out = Some(start);
        }
        // Parts that are seldom run lie apart, those of all files together.
        let is_part = name.ends_with(b".cold");
        if !is_part && starts.iter().any(|with| name.starts_with(with.as_bytes())) {
            let end = start.saturating_add(symbol.st_size.get(ENDIAN));
            span = Some(span.map_or((start, end), |(from, to)| (from.min(start), to.max(end))));
        }
    }
    span.filter(|&(from, to)| out.is_none_or(|out| out < from || out >= to))
}

/// The best definition of each name, of the types given.
fn search<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    names: &[&str],
    types: &[SymbolType],
    is_unmistakable: fn(&str) -> bool,
) -> HashMap<String, &'data Sym64<LittleEndian>> {
    let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let wanted: HashMap<&[u8], &str> = names.iter().map(|name| (name.as_bytes(), *name)).collect();
    let mut best: HashMap<&str, (Rank, &Sym64<LittleEndian>)> = HashMap::new();
    for table in tables(image) {
        for (index, symbol) in table.symbols.iter().enumerate() {
            if !types.contains(&symbol.st_info.st_type()) || symbol.st_shndx.get(ENDIAN) == SHN_UNDEF {
                continue;
            }
            let Some((text, old)) = table.name(symbol, longest) else {
                continue;
            };
            let Some(&name) = wanted.get(text) else { continue };
            let is_local = symbol.st_info.st_bind() == STB_LOCAL;
            if is_local && !is_unmistakable(name) {
                continue;
            }
            let rank = if is_local {
                Rank::Local
            } else if old || table.is_hidden(index) {
                Rank::OldVersion
            } else {
                table.rank
            };
            let entry = best.entry(name).or_insert((rank, symbol));
            if rank > entry.0 {
                *entry = (rank, symbol);
            }
        }
    }
    best.into_iter()
        .map(|(name, (_, symbol))| (name.to_owned(), symbol))
        .collect()
}

impl<'data> Table<'data> {
    /// The symbol's name without its version, and whether it names an old version (`free@GLIBC_2.0`, not `free@@…`);
    /// none when it is longer than the names looked for.
    fn name(&self, symbol: &Sym64<LittleEndian>, longest: usize) -> Option<(&'data [u8], bool)> {
        let start = usize::try_from(symbol.st_name.get(ENDIAN)).ok()?;
        let rest = self.names.get(start..)?;
        let end = rest
            .iter()
            .take(longest + 1)
            .position(|&byte| byte == 0 || byte == b'@')?;
        let (name, rest) = rest.split_at_checked(end)?;
        Some((name, rest.first() == Some(&b'@') && rest.get(1) != Some(&b'@')))
    }

    fn is_hidden(&self, index: usize) -> bool {
        self.versions
            .get(index)
            .is_some_and(|version| version.0.get(ENDIAN).is_hidden())
    }
}

/// The tables that can be read; a broken one is passed over, as the other often suffices.
fn tables<'data, R: ReadRef<'data>>(image: &Image<'data, R>) -> Vec<Table<'data>> {
    let versions = image.sections.gnu_versym(ENDIAN, image.data).ok().flatten();
    let dynamic = table(image, SHT_DYNSYM, Rank::Dynamic).map(|table| Table {
        versions: versions.map_or(&[], |(versions, _)| versions),
        ..table
    });
    dynamic
        .into_iter()
        .chain(table(image, SHT_SYMTAB, Rank::Full))
        .collect()
}

fn table<'data, R: ReadRef<'data>>(image: &Image<'data, R>, kind: SectionType, rank: Rank) -> Option<Table<'data>> {
    let section = image.sections.iter().find(|section| section.sh_type(ENDIAN) == kind)?;
    let symbols = section.data_as_array(ENDIAN, image.data).ok()?;
    let names = image.sections.section(section.link(ENDIAN)).ok()?;
    // Whole, and not name by name: a cached reader would keep each name as an entry of its own.
    let names = names.data(ENDIAN, image.data).ok()?;
    Some(Table {
        symbols,
        names,
        versions: &[],
        rank,
    })
}
