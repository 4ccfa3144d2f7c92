//! A private copy of what symbolizing needs of an ELF file.
//!
//! The symbolizer maps what it reads, follows links to other files and takes sizes at their word. So it never gets
//! a file of the target: it gets a sealed copy in memory, in which only sections with names and lines are left,
//! uncompressed, with every size checked. A library that is overwritten in place during a trace, as `cp` does it,
//! would end leaktrace with a bus error otherwise.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::elf;
use object::pod::{bytes_of, bytes_of_slice};
use object::{LittleEndian, U32, U64};

use crate::target::files::{fd_path, read_at};
use crate::target::headers::{Header, Section};
use crate::target::{ElfHeaders, is_compressed};

const ENDIAN: LittleEndian = LittleEndian;
/// Most bytes of symbols of one file, where that is all that is copied.
const MAX_SYMBOLS: u64 = 512 << 20;
/// Sections with symbols.
const SYMBOLS: &[&[u8]] = &[b".symtab", b".strtab", b".dynsym", b".dynstr", b".shstrtab"];
/// Sections with functions and lines.
const DEBUG: &[&[u8]] = &[
    b".debug_abbrev",
    b".debug_addr",
    b".debug_aranges",
    b".debug_info",
    b".debug_line",
    b".debug_line_str",
    b".debug_ranges",
    b".debug_rnglists",
    b".debug_str",
    b".debug_str_offsets",
    b".debug_types",
];
/// Leads to another debug file: only followed from a file of the host.
const ALTERNATE: &[u8] = b".gnu_debugaltlink";

/// A private copy of an ELF file's names and lines.
#[derive(Debug)]
pub struct Image {
    memory: File,
    /// Whether it has functions and lines, not only symbols.
    pub has_debug: bool,
    /// Whether the file has functions and lines that were left out: too large, or damaged.
    pub debug_refused: bool,
    /// Whether it was made from a file of the host, whose links may be followed.
    pub trusted: bool,
}

impl Image {
    /// Copies what is needed of `file`. `budget` is the number of bytes that copies may still take, and is lowered
    /// by what this one took; where it does not suffice for debug information, the image has symbols only.
    ///
    /// # Errors
    /// The file cannot be read, is malformed or no longer has the build id `expected`: then it was overwritten.
    pub fn copy(file: &File, expected: Option<&str>, trusted: bool, budget: &mut u64) -> io::Result<Self> {
        let headers = ElfHeaders::read(file)?;
        if headers.build_id(file).as_deref() != expected {
            return Err(malformed("the file is no longer the one that was mapped"));
        }
        let offers_debug = has_debug(&headers);
        if offers_debug && let Ok((memory, size)) = copy_sections(file, &headers, true, trusted, *budget) {
            *budget = budget.saturating_sub(size);
            return Ok(Self {
                memory,
                has_debug: true,
                debug_refused: false,
                trusted,
            });
        }
        let (memory, size) = copy_sections(file, &headers, false, trusted, MAX_SYMBOLS.min(*budget))?;
        *budget = budget.saturating_sub(size);
        Ok(Self {
            memory,
            has_debug: false,
            debug_refused: offers_debug,
            trusted,
        })
    }

    /// An image that holds nothing but one table of symbols, for the file that `headers` are of. `symbols` are its
    /// entries, as they are in `.symtab`, `names` what they refer to.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn of_symbols(headers: &ElfHeaders, symbols: &[u8], names: &[u8]) -> io::Result<Self> {
        const NAMES: &[u8] = b"\0.symtab\0.strtab\0.shstrtab\0";
        let mut memory = new_memory(headers)?;
        let mut sections = vec![new_section(0, elf::SHT_NULL)];
        for (contents, name, kind) in [
            (symbols, 1, elf::SHT_SYMTAB),
            (names, 9, elf::SHT_STRTAB),
            (NAMES, 17, elf::SHT_STRTAB),
        ] {
            let mut section = new_section(name, kind);
            section.sh_offset.set(ENDIAN, align(&mut memory)?);
            section.sh_size.set(ENDIAN, contents.len() as u64);
            memory.write_all(contents)?;
            sections.push(section);
        }
        if let Some(table) = sections.get_mut(1) {
            table.sh_link.set(ENDIAN, 2);
            table
                .sh_entsize
                .set(ENDIAN, size_of::<elf::Sym64<LittleEndian>>() as u64);
        }
        let mut header = headers.header;
        header.e_shstrndx.set(ENDIAN, elf::SymbolSection(3));
        finish(&mut memory, header, &sections)?;
        Ok(Self {
            memory,
            has_debug: false,
            debug_refused: false,
            trusted: false,
        })
    }

    /// Where the copy can be opened, while the image lives.
    pub fn path(&self) -> PathBuf {
        fd_path(self.memory.as_raw_fd())
    }
}

/// Whether a file has functions and lines of its own.
pub fn has_debug(headers: &ElfHeaders) -> bool {
    headers.section(b".debug_info").is_some()
}

/// A sealed copy, and how many bytes of sections it holds. Sections keep their index: they refer to each other by it.
fn copy_sections(
    file: &File,
    headers: &ElfHeaders,
    debug: bool,
    trusted: bool,
    budget: u64,
) -> io::Result<(File, u64)> {
    let mut memory = new_memory(headers)?;
    let mut left = budget;
    let mut taken = Vec::new();
    let mut sections = Vec::with_capacity(headers.sections.len());
    for section in &headers.sections {
        let name = headers.name(section);
        // The second section of a name is never read, but could be there ten thousand times.
        let wanted = is_wanted(name, debug, trusted) && is_in_file(section) && !taken.contains(&name);
        if wanted {
            taken.push(name);
            sections.push(copy_section(file, section, &mut memory, &mut left)?);
        } else {
            sections.push(absent(section));
        }
    }
    finish(&mut memory, headers.header, &sections)?;
    Ok((memory, budget - left))
}

/// A file in memory with room for the header.
fn new_memory(headers: &ElfHeaders) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut memory = File::from(memfd_create("leaktrace-symbols", flags)?);
    memory.write_all(bytes_of(&headers.header))?;
    Ok(memory)
}

/// Adds the section headers, and lets nothing change any more.
fn finish(memory: &mut File, mut header: Header, sections: &[Section]) -> io::Result<()> {
    let table = align(memory)?;
    memory.write_all(bytes_of_slice(sections))?;
    header.e_shoff.set(ENDIAN, table);
    header.e_phoff.set(ENDIAN, 0);
    header.e_phnum.set(ENDIAN, 0);
    header.e_shnum.set(ENDIAN, sections.len() as u16);
    memory.write_all_at(bytes_of(&header), 0)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&*memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

fn is_wanted(name: &[u8], debug: bool, trusted: bool) -> bool {
    SYMBOLS.contains(&name) || debug && (DEBUG.contains(&name) || trusted && name == ALTERNATE)
}

fn is_in_file(section: &Section) -> bool {
    !matches!(section.sh_type.get(ENDIAN), elf::SHT_NOBITS | elf::SHT_NULL)
}

/// A section without contents, whose name is at `name` of the names.
fn new_section(name: u32, kind: elf::SectionType) -> Section {
    let (word, long) = (U32::new(ENDIAN, 0), U64::new(ENDIAN, 0));
    Section {
        sh_name: U32::new(ENDIAN, name),
        sh_type: U32::new(ENDIAN, kind),
        sh_flags: U64::new(ENDIAN, elf::SectionFlags(0)),
        sh_addr: long,
        sh_offset: long,
        sh_size: long,
        sh_link: word,
        sh_info: word,
        sh_addralign: U64::new(ENDIAN, 8),
        sh_entsize: long,
    }
}

/// The section as one without contents.
fn absent(section: &Section) -> Section {
    let mut section = *section;
    section.sh_type.set(ENDIAN, elf::SHT_NULL);
    section.sh_name.set(ENDIAN, 0);
    section.sh_offset.set(ENDIAN, 0);
    section.sh_size.set(ENDIAN, 0);
    section
}

/// Appends the contents of a section to the copy, and gives its header there.
fn copy_section(file: &File, section: &Section, memory: &mut File, left: &mut u64) -> io::Result<Section> {
    let at = align(memory)?;
    let compressed = is_compressed(section);
    let size = if compressed {
        let contents = ElfHeaders::full_contents(file, section, *left)?;
        memory.write_all(&contents)?;
        contents.len() as u64
    } else {
        let size = section.sh_size.get(ENDIAN);
        if size > *left {
            return Err(malformed("a section larger than what may be copied"));
        }
        copy_range(file, section.sh_offset.get(ENDIAN), size, memory)?;
        size
    };
    *left = left.saturating_sub(size);
    let mut copied = *section;
    copied.sh_flags.set(
        ENDIAN,
        elf::SectionFlags(section.sh_flags.get(ENDIAN).0 & !elf::SHF_COMPRESSED.0),
    );
    copied.sh_offset.set(ENDIAN, at);
    copied.sh_size.set(ENDIAN, size);
    Ok(copied)
}

fn copy_range(file: &File, offset: u64, size: u64, memory: &mut File) -> io::Result<()> {
    let (mut at, mut left) = (offset, size);
    while left > 0 {
        let part = left.min(1 << 20);
        let contents = read_at(file, at, part, part)?;
        // A file may have holes of any size, which take no memory in the copy either.
        if contents.iter().all(|&byte| byte == 0) {
            memory.seek_relative(part.cast_signed())?;
        } else {
            memory.write_all(&contents)?;
        }
        at = at
            .checked_add(part)
            .ok_or_else(|| malformed("a section beyond the end of the file"))?;
        left -= part;
    }
    Ok(())
}

/// Fills up to a multiple of 8, which every section's alignment divides, and says where that is.
fn align(memory: &mut File) -> io::Result<u64> {
    let at = memory.stream_position()?;
    let aligned = at.next_multiple_of(8);
    memory.write_all(&[0; 8][..(aligned - at) as usize])?;
    Ok(aligned)
}

pub(super) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;
    use crate::target::test_programs::{compile, run};

    const PROGRAM: &str = "int main(void) { return 0; }";
    const PLENTY: u64 = 1 << 30;

    fn copy(path: &Path, budget: &mut u64) -> io::Result<Image> {
        let file = File::open(path)?;
        let build_id = ElfHeaders::read(&file)?.build_id(&file);
        Image::copy(&file, build_id.as_deref(), false, budget)
    }

    fn section(path: &Path, name: &str) -> Vec<u8> {
        let file = File::open(path).unwrap();
        let headers = ElfHeaders::read(&file).unwrap();
        ElfHeaders::contents(&file, headers.section(name.as_bytes()).unwrap(), PLENTY).unwrap()
    }

    #[test]
    fn holds_names_and_lines_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let program = compile(dir.path(), "program", &["cc", "-g"], PROGRAM);
        let mut budget = PLENTY;
        let image = copy(&program, &mut budget).unwrap();
        assert!(image.has_debug && budget < PLENTY);
        for name in [".symtab", ".strtab", ".debug_info", ".debug_line"] {
            assert_eq!(section(&image.path(), name), section(&program, name), "{name}");
        }
        let headers = ElfHeaders::read(&File::open(image.path()).unwrap()).unwrap();
        assert!(headers.section(b".text").is_none() && headers.segments.is_empty());
        assert!(image.memory.set_len(0).is_err(), "it is sealed");
    }

    #[test]
    fn compressed_sections_are_uncompressed() {
        let dir = tempfile::tempdir().unwrap();
        // Small sections are left as they are.
        let large: String = (0..200)
            .map(|at: u32| "int variable_".to_owned() + &at.to_string() + ";\n")
            .collect();
        let plain = compile(dir.path(), "program", &["cc", "-g"], &(large + PROGRAM));
        for format in ["zlib", "zstd"] {
            let packed = dir.path().join(format);
            let option = format!("--compress-debug-sections={format}");
            if !Command::new("objcopy")
                .arg(option)
                .arg(&plain)
                .arg(&packed)
                .status()
                .unwrap()
                .success()
            {
                eprintln!("skipped: this objcopy has no {format}");
                continue;
            }
            assert_ne!(section(&packed, ".debug_info"), section(&plain, ".debug_info"));
            let image = copy(&packed, &mut PLENTY.clone()).unwrap();
            assert!(image.has_debug);
            assert_eq!(section(&image.path(), ".debug_info"), section(&plain, ".debug_info"));
        }
    }

    #[test]
    fn debug_information_over_the_budget_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let program = compile(dir.path(), "program", &["cc", "-g"], PROGRAM);
        let symbols = [".symtab", ".strtab", ".dynsym", ".dynstr", ".shstrtab"];
        let size: usize = symbols.iter().map(|name| section(&program, name).len()).sum();
        let mut budget = size as u64 + 100;
        let image = copy(&program, &mut budget).unwrap();
        assert_eq!((image.has_debug, image.debug_refused, budget), (false, true, 100));
        assert!(copy(&program, &mut budget).is_err());
        assert_eq!(section(&image.path(), ".symtab"), section(&program, ".symtab"));
    }

    /// The program with `name` made `size` bytes of a hole behind its end.
    fn with_hole(program: &Path, name: &str, size: u64) -> File {
        let mut bytes = std::fs::read(program).unwrap();
        let headers = ElfHeaders::read(&File::open(program).unwrap()).unwrap();
        let index = headers
            .sections
            .iter()
            .position(|section| headers.name(section) == name.as_bytes());
        let at = headers.header.e_shoff.get(ENDIAN) as usize + 64 * index.unwrap();
        let begin = bytes.len().next_multiple_of(8) as u64;
        bytes[at + 24..at + 32].copy_from_slice(&begin.to_le_bytes());
        bytes[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.set_len(begin + size).unwrap();
        file
    }

    #[test]
    fn huge_files_with_holes_take_neither_time_nor_memory() {
        let dir = tempfile::tempdir().unwrap();
        let program = compile(dir.path(), "program", &["cc", "-g", "-Wl,--build-id=none"], PROGRAM);
        let started = std::time::Instant::now();
        let too_large = with_hole(&program, ".symtab", 4 << 30);
        assert!(Image::copy(&too_large, None, false, &mut PLENTY.clone()).is_err());
        let debug = with_hole(&program, ".debug_info", 4 << 30);
        let image = Image::copy(&debug, None, false, &mut PLENTY.clone()).unwrap();
        assert!(image.debug_refused && !image.has_debug);
        let fits = with_hole(&program, ".debug_info", PLENTY / 2);
        let image = Image::copy(&fits, None, false, &mut PLENTY.clone()).unwrap();
        assert!(image.has_debug);
        let taken = std::os::unix::fs::MetadataExt::blocks(&image.memory.metadata().unwrap()) * 512;
        assert!(taken < 1 << 20, "{taken} bytes");
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }

    #[test]
    fn a_file_that_was_overwritten_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let program = compile(dir.path(), "program", &["cc", "-g", "-Wl,--build-id"], PROGRAM);
        let other = compile(
            dir.path(),
            "other",
            &["cc", "-Wl,--build-id"],
            "int main(void) { return 1; }",
        );
        let file = File::open(&program).unwrap();
        let build_id = ElfHeaders::read(&file).unwrap().build_id(&file);
        run(Command::new("cp").arg(&other).arg(&program));
        assert!(Image::copy(&file, build_id.as_deref(), false, &mut PLENTY.clone()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_files_never_panic(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
            static BYTES: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
                let dir = tempfile::tempdir().unwrap();
                let flags = ["cc", "-g", "-gz=zlib"];
                std::fs::read(compile(dir.path(), "program", &flags, PROGRAM)).unwrap()
            });
            let mut bytes = BYTES.clone();
            // Most damage where it hurts: in the headers at both ends.
            for (position, (at, byte)) in damage.iter().enumerate() {
                let length = bytes.len();
                let at = match position % 3 {
                    0 => at.index(64),
                    1 => length - 1 - at.index(3000.min(length)),
                    _ => at.index(length),
                };
                bytes[at] = *byte;
            }
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            if let Ok(headers) = ElfHeaders::read(&file) {
                let build_id = headers.build_id(&file);
                let _ = Image::copy(&file, build_id.as_deref(), false, &mut PLENTY.clone());
            }
        }
    }
}
