//! Where a module's unwinding information is: by section headers, or by program headers alone where those are
//! stripped, or not in memory.

use std::{borrow::Cow, ops::Range};

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};
use object::{
    LittleEndian as Little, ReadRef,
    elf::{self, FileHeader64, ProgramHeader64, SectionHeader64},
    read::{
        CompressedData, CompressionFormat,
        elf::{CompressionHeader as _, FileHeader as _, ProgramHeader as _, SectionHeader as _},
    },
};

use super::{UnwindError, frames::entry_length};

/// Most bytes that a compressed section may grow to.
const MOST_UNCOMPRESSED: u64 = 1 << 28;

/// What a table is made from.
#[derive(Clone, Debug)]
pub struct UnwindSections<'data> {
    /// `.eh_frame`.
    pub eh_frame: Option<FrameSection<'data>>,
    /// `.debug_frame`, uncompressed.
    pub debug_frame: Option<FrameSection<'data>>,
    /// Virtual address of `.text`, or 0; pointers can be relative to it.
    pub text_address: u64,
    /// Virtual address of `.got`, or 0; pointers can be relative to it.
    pub got_address: u64,
    /// The executable segments, in the order of the file. Not empty.
    pub code: Vec<CodeSegment>,
}

/// An executable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeSegment {
    /// Its virtual address.
    pub address: u64,
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Its length in bytes, in memory. Not 0, and ends within 64 bits.
    pub size: u64,
}

impl CodeSegment {
    /// Its virtual addresses.
    pub fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.size)
    }
}

/// A section of unwinding information.
#[derive(Clone, Debug)]
pub struct FrameSection<'data> {
    /// Its virtual address.
    pub address: u64,
    /// Its contents.
    pub bytes: Cow<'data, [u8]>,
}

type Header = FileHeader64<Little>;

/// A section that the Go linker makes, also in stripped files.
pub const GO_SECTION: &[u8] = b".go.buildinfo";

/// Finds the sections of a file, or of an image in memory whose layout is that of its file (the vDSO).
pub fn sections<'data, R: ReadRef<'data>>(data: R) -> Result<UnwindSections<'data>, UnwindError> {
    let header = Header::parse(data).map_err(|_| other_file(data))?;
    if !header.is_little_endian() || header.e_machine(Little) != elf::EM_X86_64 {
        return Err(UnwindError::OtherMachine);
    }
    let segments = header.program_headers(Little, data).map_err(|_| UnwindError::NoCode)?;
    let mut found = UnwindSections {
        eh_frame: None,
        debug_frame: None,
        text_address: 0,
        got_address: 0,
        code: code(segments)?,
    };
    by_section_headers(header, data, &mut found);
    if found.eh_frame.is_none() {
        found.eh_frame = by_program_headers(segments, data);
    }
    if found.eh_frame.is_none() && found.debug_frame.is_none() {
        return Err(UnwindError::NoTables);
    }
    Ok(found)
}

fn other_file<'data, R: ReadRef<'data>>(data: R) -> UnwindError {
    match data.read_bytes_at(0, elf::ELFMAG.len() as u64) {
        Ok(magic) if magic == elf::ELFMAG => UnwindError::OtherMachine,
        _ => UnwindError::NotElf,
    }
}

fn code(segments: &[ProgramHeader64<Little>]) -> Result<Vec<CodeSegment>, UnwindError> {
    let code: Vec<_> = segments
        .iter()
        .filter(|segment| segment.p_type(Little) == elf::PT_LOAD && segment.p_flags(Little).contains(elf::PF_X))
        .map(|segment| CodeSegment {
            address: segment.p_vaddr(Little),
            file_offset: segment.p_offset(Little),
            size: segment.p_memsz(Little),
        })
        .filter(|segment| segment.size != 0 && segment.address.checked_add(segment.size).is_some())
        .collect();
    if code.is_empty() {
        Err(UnwindError::NoCode)
    } else {
        Ok(code)
    }
}

fn by_section_headers<'data, R: ReadRef<'data>>(header: &Header, data: R, found: &mut UnwindSections<'data>) {
    let Ok(table) = header.sections(Little, data) else {
        return;
    };
    let mut is_go = false;
    for section in table.iter() {
        match table.section_name(Little, section) {
            Ok(b".text") => found.text_address = section.sh_addr(Little),
            Ok(b".got") => found.got_address = section.sh_addr(Little),
            Ok(b".eh_frame") => found.eh_frame = contents(section, data),
            Ok(b".debug_frame") => found.debug_frame = contents(section, data),
            Ok(GO_SECTION) => is_go = true,
            _ => {}
        }
    }
    // What Go says there leaves the frame pointer out, by which its code is walked.
    if is_go {
        found.debug_frame = None;
    }
}

/// `None` for a section that is not in the file, as in files of debugging information split off.
fn contents<'data, R: ReadRef<'data>>(section: &SectionHeader64<Little>, data: R) -> Option<FrameSection<'data>> {
    let address = section.sh_addr(Little);
    let bytes = match section.compression(Little, data).ok()? {
        None => Cow::Borrowed(section.data(Little, data).ok()?),
        Some((header, offset, size)) => {
            let format = match header.ch_type(Little) {
                elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
                elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
                _ => return None,
            };
            let uncompressed_size = Some(header.ch_size(Little)).filter(|size| *size <= MOST_UNCOMPRESSED)?;
            let data = data.read_bytes_at(offset, size).ok()?;
            let compressed = CompressedData {
                format,
                data,
                uncompressed_size,
            };
            compressed.decompress().ok()?
        }
    };
    (!bytes.is_empty()).then_some(FrameSection { address, bytes })
}

/// `.eh_frame` by way of `PT_GNU_EH_FRAME`.
fn by_program_headers<'data, R: ReadRef<'data>>(
    segments: &[ProgramHeader64<Little>],
    data: R,
) -> Option<FrameSection<'data>> {
    let segment = segments
        .iter()
        .find(|segment| segment.p_type(Little) == elf::PT_GNU_EH_FRAME)?;
    let header_address = segment.p_vaddr(Little);
    let header = loaded(segments, data, header_address)?;
    let header = header
        .get(..usize::try_from(segment.p_memsz(Little)).ok()?)
        .unwrap_or(header);
    let bases = BaseAddresses::default().set_eh_frame_hdr(header_address);
    let parsed = EhFrameHdr::new(header, LittleEndian).parse(&bases, 8).ok()?;
    let Pointer::Direct(address) = parsed.eh_frame_ptr() else {
        return None;
    };
    let bytes = loaded(segments, data, address)?;
    let mut end = 0;
    if let Some(table) = parsed.table() {
        let mut entries = table.iter(&bases);
        while let Ok(Some((_, Pointer::Direct(entry)))) = entries.next() {
            end = end.max(entry_end(bytes, entry.wrapping_sub(address)));
        }
    }
    // Without a table, the section goes on to its zero length, or to the end of what is loaded.
    let bytes = if end == 0 { terminated(bytes) } else { bytes.get(..end)? };
    Some(FrameSection {
        address,
        bytes: Cow::Borrowed(bytes),
    })
}

fn entry_end(bytes: &[u8], offset: u64) -> usize {
    let end = usize::try_from(offset)
        .ok()
        .and_then(|at| at.checked_add(entry_length(bytes, at)?));
    end.filter(|end| *end <= bytes.len()).unwrap_or(0)
}

fn terminated(bytes: &[u8]) -> &[u8] {
    let mut at = 0;
    while let Some(length) = entry_length(bytes, at).filter(|length| *length > size_of::<u32>()) {
        at = at.saturating_add(length);
    }
    bytes.get(..at).unwrap_or(bytes)
}

/// The bytes of the file from a virtual address to the end of its segment.
fn loaded<'data, R: ReadRef<'data>>(
    segments: &[ProgramHeader64<Little>],
    data: R,
    address: u64,
) -> Option<&'data [u8]> {
    segments
        .iter()
        .filter(|segment| segment.p_type(Little) == elf::PT_LOAD)
        .find_map(|segment| {
            let within = address.checked_sub(segment.p_vaddr(Little))?;
            let length = segment
                .p_filesz(Little)
                .checked_sub(within)
                .filter(|length| *length > 0)?;
            data.read_bytes_at(segment.p_offset(Little).checked_add(within)?, length)
                .ok()
        })
}
