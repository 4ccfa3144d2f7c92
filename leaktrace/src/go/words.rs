//! What stands in the memory of a program when it starts: its file, with the loader's work done. Virtual addresses are
//! those of the file.

use std::fs::File;

use object::LittleEndian;
use object::elf::{self, Rela64};
use object::pod::slice_from_all_bytes;

use super::bytes::u64_at;
use crate::target::ElfHeaders;
use crate::target::files::read_at;
use crate::target::headers::Section;

const ENDIAN: LittleEndian = LittleEndian;
/// Most bytes read of all relocations: eight million.
const MAX_RELOCATIONS: u64 = 192 << 20;
/// Most bytes searched for a word.
const MAX_SEARCHED: u64 = 256 << 20;

/// The initial memory of a program.
pub struct Words<'a> {
    file: &'a File,
    headers: &'a ElfHeaders,
    /// Place and value of each word that is an address, by place; only position-independent programs have them.
    relocated: Vec<(u64, u64)>,
}

impl<'a> Words<'a> {
    /// Reads what the loader will do.
    pub fn read(file: &'a File, headers: &'a ElfHeaders) -> Self {
        let mut left = MAX_RELOCATIONS;
        let mut relocated = Vec::new();
        for section in headers.sections.iter().filter(|section| is_relocations(section)) {
            let Ok(contents) = ElfHeaders::contents(file, section, left) else {
                continue;
            };
            left -= contents.len() as u64;
            relocated.extend(addresses(&contents));
        }
        relocated.sort_unstable();
        Self {
            file,
            headers,
            relocated,
        }
    }

    /// The word at `address`.
    pub fn word(&self, address: u64) -> Option<u64> {
        let found = self.relocated.binary_search_by_key(&address, |&(place, _)| place);
        match found {
            Ok(index) => self.relocated.get(index).map(|&(_, value)| value),
            Err(_) => u64_at(&self.bytes(address, 8)?, 0),
        }
    }

    /// `size` bytes of the file that lie at `address`; relocations are not applied.
    pub fn bytes(&self, address: u64, size: u64) -> Option<Vec<u8>> {
        let segment = self.headers.segments.iter().find(|segment| {
            let inside = address.checked_sub(segment.p_vaddr.get(ENDIAN));
            let end = inside.and_then(|inside| inside.checked_add(size));
            segment.p_type.get(ENDIAN) == elf::PT_LOAD && end.is_some_and(|end| end <= segment.p_filesz.get(ENDIAN))
        })?;
        let offset = address - segment.p_vaddr.get(ENDIAN) + segment.p_offset.get(ENDIAN);
        read_at(self.file, offset, size, size).ok()
    }

    /// Every writable place, a multiple of eight, where the word `value` stands.
    pub fn places_of(&self, value: u64) -> Vec<u64> {
        let relocated = self.relocated.iter().filter(|(_, found)| *found == value);
        let mut places: Vec<u64> = relocated.map(|&(place, _)| place).collect();
        let (mut left, wanted) = (MAX_SEARCHED, value.to_le_bytes());
        for section in self.headers.sections.iter().filter(|section| is_data(section)) {
            let Ok(contents) = ElfHeaders::contents(self.file, section, left) else {
                continue;
            };
            left -= contents.len() as u64;
            let start = section.sh_addr.get(ENDIAN);
            let found = memchr::memmem::find_iter(&contents, &wanted).map(|at| start.wrapping_add(at as u64));
            places.extend(found.filter(|place| place.is_multiple_of(8)));
        }
        places
    }
}

fn is_relocations(section: &Section) -> bool {
    section.sh_type.get(ENDIAN) == elf::SHT_RELA && section.sh_flags.get(ENDIAN).0 & elf::SHF_ALLOC.0 != 0
}

fn is_data(section: &Section) -> bool {
    section.sh_type.get(ENDIAN) == elf::SHT_PROGBITS && section.sh_flags.get(ENDIAN).0 & elf::SHF_WRITE.0 != 0
}

/// Place and value of the words that the loader sets to an address of the program itself.
fn addresses(contents: &[u8]) -> Vec<(u64, u64)> {
    let relocations: &[Rela64<LittleEndian>] = slice_from_all_bytes(contents).unwrap_or_default();
    let own = relocations
        .iter()
        .filter(|relocation| relocation.r_info.get(ENDIAN) & 0xffff_ffff == u64::from(elf::R_X86_64_RELATIVE.0));
    let pair = |relocation: &Rela64<LittleEndian>| {
        let value = relocation.r_addend.get(ENDIAN).cast_unsigned();
        (relocation.r_offset.get(ENDIAN), value)
    };
    own.map(pair).collect()
}
