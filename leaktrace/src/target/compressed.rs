//! Contents of sections that may be compressed, as debug information often is.

use std::fs::File;
use std::io;

use object::LittleEndian;
use object::elf::{self, CompressionHeader64};
use object::pod::from_bytes;
use object::read::{CompressedData, CompressionFormat};

use super::headers::{ElfHeaders, Section, malformed};

const ENDIAN: LittleEndian = LittleEndian;

impl ElfHeaders {
    /// How many bytes a section has when it is not compressed, as the file claims.
    pub fn full_size(file: &File, section: &Section) -> io::Result<u64> {
        if !is_compressed(section) {
            return Ok(section.sh_size.get(ENDIAN));
        }
        let size = size_of::<CompressionHeader64<LittleEndian>>() as u64;
        let bytes = super::files::read_at(file, section.sh_offset.get(ENDIAN), size, size)?;
        Ok(parse(&bytes)?.0.ch_size.get(ENDIAN))
    }

    /// Contents of a section, uncompressed; refused if more than `limit` bytes, compressed or not.
    pub fn full_contents(file: &File, section: &Section, limit: u64) -> io::Result<Vec<u8>> {
        let contents = Self::contents(file, section, limit)?;
        if !is_compressed(section) {
            return Ok(contents);
        }
        let (header, data) = parse(&contents)?;
        let uncompressed_size = header.ch_size.get(ENDIAN);
        if uncompressed_size > limit {
            return Err(malformed("a compressed section that would grow too large"));
        }
        let format = match header.ch_type.get(ENDIAN) {
            elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
            elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
            _ => return Err(malformed("a section compressed in an unknown way")),
        };
        let data = CompressedData {
            format,
            data,
            uncompressed_size,
        };
        Ok(data
            .decompress()
            .map_err(|_| malformed("damaged compressed data"))?
            .into_owned())
    }
}

/// Whether a section says that it is compressed.
pub fn is_compressed(section: &Section) -> bool {
    section.sh_flags.get(ENDIAN).0 & elf::SHF_COMPRESSED.0 != 0
}

fn parse(contents: &[u8]) -> io::Result<(&CompressionHeader64<LittleEndian>, &[u8])> {
    from_bytes(contents).map_err(|()| malformed("a compressed section cut short"))
}
