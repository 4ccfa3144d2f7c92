//! The headers of an ELF file: segments, sections, build id. Read, never mapped: a file that is cut short while it
//! is mapped would end leaktrace with a bus error.

use std::fmt::Write as _;
use std::fs::File;
use std::io;

use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::pod::{Pod, bytes_of, bytes_of_slice, from_bytes, slice_from_all_bytes};
use object::read::elf::{FileHeader as _, NoteIterator};

use super::files::read_at;

const ENDIAN: LittleEndian = LittleEndian;
/// Most bytes of section names.
const MAX_NAMES: u64 = 16 << 20;
/// Most bytes of one note section.
const MAX_NOTES: u64 = 1 << 20;

/// The ELF header of a 64-bit file.
pub type Header = FileHeader64<LittleEndian>;
/// A segment of a 64-bit file.
pub type Segment = ProgramHeader64<LittleEndian>;
/// A section of a 64-bit file.
pub type Section = SectionHeader64<LittleEndian>;

/// The headers of a 64-bit little-endian ELF file.
#[derive(Clone, Debug)]
pub struct ElfHeaders {
    /// The ELF header.
    pub header: Header,
    /// Segments, in the order of the file.
    pub segments: Vec<Segment>,
    /// Sections, by index; empty if the file has none.
    pub sections: Vec<Section>,
    names: Vec<u8>,
}

impl ElfHeaders {
    /// Reads the headers of `file`.
    ///
    /// # Errors
    /// Not a 64-bit little-endian ELF file, or its header or segments cannot be read. Sections that cannot be read
    /// are taken as absent: a process runs without them.
    pub fn read(file: &File) -> io::Result<Self> {
        let bytes = read_at(file, 0, size_of::<Header>() as u64, u64::MAX)?;
        let header = *from_bytes::<Header>(&bytes).map_err(|()| malformed("no ELF header"))?.0;
        if !header.is_supported() || !header.is_class_64() || !header.is_little_endian() {
            return Err(malformed("not a 64-bit little-endian ELF file"));
        }
        let segments = table(
            file,
            header.e_phoff.get(ENDIAN),
            header.e_phnum.get(ENDIAN),
            header.e_phentsize.get(ENDIAN),
        )?;
        let sections = table(
            file,
            header.e_shoff.get(ENDIAN),
            header.e_shnum.get(ENDIAN),
            header.e_shentsize.get(ENDIAN),
        )
        .unwrap_or_default();
        let names = section_names(file, &header, &sections).unwrap_or_default();
        Ok(Self {
            header,
            segments,
            sections,
            names,
        })
    }

    /// Name of a section of this file; empty if it has none.
    pub fn name(&self, section: &Section) -> &[u8] {
        let name = self
            .names
            .get(section.sh_name.get(ENDIAN) as usize..)
            .unwrap_or_default();
        name.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// The section called `name`, if it has contents in the file.
    pub fn section(&self, name: &[u8]) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| section.sh_type.get(ENDIAN) != elf::SHT_NOBITS && self.name(section) == name)
    }

    /// Whether both describe a file laid out alike: the same file, if it was not overwritten.
    pub fn is_same_layout(&self, other: &Self) -> bool {
        let bytes = |headers: &Self| {
            let tables = (bytes_of_slice(&headers.segments), bytes_of_slice(&headers.sections));
            [bytes_of(&headers.header), tables.0, tables.1].concat()
        };
        bytes(self) == bytes(other)
    }

    /// Contents of a section; refused if more than `limit` bytes.
    pub fn contents(file: &File, section: &Section, limit: u64) -> io::Result<Vec<u8>> {
        read_at(file, section.sh_offset.get(ENDIAN), section.sh_size.get(ENDIAN), limit)
    }

    /// Where in the file stands what is loaded to a virtual address.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| {
            let inside = address.checked_sub(segment.p_vaddr.get(ENDIAN));
            segment.p_type.get(ENDIAN) == elf::PT_LOAD
                && inside.is_some_and(|inside| inside < segment.p_filesz.get(ENDIAN))
        })?;
        let inside = address - segment.p_vaddr.get(ENDIAN);
        segment.p_offset.get(ENDIAN).checked_add(inside)
    }

    /// The virtual address of what lies at `offset` of the file and is mapped with or without the right to execute.
    ///
    /// Segments that share a page are both mapped with it, so an offset can lie in two: the one with the rights of
    /// the mapping is meant.
    pub fn virtual_address(&self, offset: u64, executable: bool) -> Option<u64> {
        let mut found = None;
        for segment in self
            .segments
            .iter()
            .filter(|segment| segment.p_type.get(ENDIAN) == elf::PT_LOAD)
        {
            let begin = segment.p_offset.get(ENDIAN);
            let page_begin = begin & !0xfff;
            let end = begin.saturating_add(segment.p_filesz.get(ENDIAN)).saturating_add(0xfff) & !0xfff;
            if !(page_begin..end).contains(&offset) {
                continue;
            }
            let address = segment.p_vaddr.get(ENDIAN).wrapping_add(offset).wrapping_sub(begin);
            let same_rights = (segment.p_flags.get(ENDIAN) & elf::PF_X).0 != 0;
            if same_rights == executable {
                return Some(address);
            }
            found = found.or(Some(address));
        }
        found
    }

    /// The build id in hexadecimal.
    pub fn build_id(&self, file: &File) -> Option<String> {
        let segments = self
            .segments
            .iter()
            .filter(|segment| segment.p_type.get(ENDIAN) == elf::PT_NOTE);
        let in_segments = segments.map(|segment| {
            (
                segment.p_offset.get(ENDIAN),
                segment.p_filesz.get(ENDIAN),
                segment.p_align.get(ENDIAN),
            )
        });
        let sections = self
            .sections
            .iter()
            .filter(|section| section.sh_type.get(ENDIAN) == elf::SHT_NOTE);
        let in_sections = sections.map(|section| {
            (
                section.sh_offset.get(ENDIAN),
                section.sh_size.get(ENDIAN),
                section.sh_addralign.get(ENDIAN),
            )
        });
        // A bound on the work: a real file has a handful.
        in_segments
            .chain(in_sections)
            .take(64)
            .find_map(|(offset, size, align)| {
                let notes = read_at(file, offset, size, MAX_NOTES).ok()?;
                build_id_of_notes(&notes, align)
            })
    }
}

fn build_id_of_notes(notes: &[u8], align: u64) -> Option<String> {
    let mut notes = NoteIterator::<Header>::new(ENDIAN, align, notes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == b"GNU" && note.n_type(ENDIAN) == elf::NT_GNU_BUILD_ID {
            return hexadecimal(note.desc());
        }
    }
    None
}

/// A build id is 8 to 64 bytes long in practice (20 as a rule).
fn hexadecimal(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() || bytes.len() > 64 {
        return None;
    }
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

fn section_names(file: &File, header: &Header, sections: &[Section]) -> io::Result<Vec<u8>> {
    let index = header.e_shstrndx.get(ENDIAN).0;
    match sections.get(usize::from(index)) {
        Some(section) => ElfHeaders::contents(file, section, MAX_NAMES),
        None => Ok(Vec::new()),
    }
}

fn table<T: Pod>(file: &File, offset: u64, count: u16, entry_size: u16) -> io::Result<Vec<T>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if usize::from(entry_size) != size_of::<T>() {
        return Err(malformed("header entries of an unknown size"));
    }
    let bytes = read_at(file, offset, u64::from(count) * u64::from(entry_size), u64::MAX)?;
    Ok(slice_from_all_bytes::<T>(&bytes)
        .map_err(|()| malformed("headers cut short"))?
        .to_vec())
}

pub(super) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn ourselves() -> File {
        File::open("/proc/self/exe").unwrap()
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn reads_our_own_headers() {
        let elf = ElfHeaders::read(&ourselves()).unwrap();
        let text = *elf.section(b".text").unwrap();
        assert!(elf.section(b".no_such_section").is_none());
        assert!(elf.section(b".bss").is_none(), "it has no contents in the file");
        let offset = text.sh_offset.get(ENDIAN);
        assert_eq!(elf.virtual_address(offset, true), Some(text.sh_addr.get(ENDIAN)));
        assert_eq!(elf.virtual_address(1 << 60, true), None);
    }

    #[test]
    fn build_ids_are_read_from_notes() {
        let mut notes = Vec::new();
        for (kind, desc) in [(1u32, [9; 4]), (3, [0xab, 0, 1, 0xff])] {
            notes.extend([4u32, 4, kind].iter().flat_map(|word| word.to_le_bytes()));
            notes.extend(b"GNU\0");
            notes.extend(desc);
        }
        assert_eq!(build_id_of_notes(&notes, 4).as_deref(), Some("ab0001ff"));
        assert_eq!(build_id_of_notes(&notes[..20], 4), None);
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [
            &b""[..],
            b"\x7fELF",
            b"#!/bin/sh\necho a script that is longer than an ELF header is, by far\n",
        ] {
            assert!(ElfHeaders::read(&file_of(bytes)).is_err());
        }
    }

    proptest! {
        #[test]
        fn damaged_headers_never_panic(damage in proptest::collection::vec((0..4096usize, any::<u8>()), 1..24)) {
            let mut bytes = read_at(&ourselves(), 0, 4096, 4096).unwrap();
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            let file = file_of(&bytes);
            if let Ok(elf) = ElfHeaders::read(&file) {
                let _ = elf.build_id(&file);
                let _ = elf.virtual_address(0x1234, true);
                elf.sections.iter().for_each(|section| { let _ = elf.name(section); });
            }
        }
    }
}
