//! The linker's description of a program (`runtime.moduledata`): where code, data and types begin and end.

use super::pclntab::Header;
use super::words::Words;

/// Of the description, where the addresses of names stand: right behind that of the table itself.
const NAMES: u64 = 8;
/// The offsets that the addresses of the functions' data had: Go 1.18 and 1.19, Go 1.20 to 1.26, Go 1.27.
const FUNCTION_DATA: [u64; 3] = [304, 320, 344];

/// Where the parts of a program are: virtual addresses of its file. These offsets have been the same since Go 1.18.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleData {
    /// Where the description itself is.
    pub address: u64,
    /// Go's code.
    pub text: (u64, u64),
    /// Variables without pointers that have a value from the start.
    pub noptrdata: (u64, u64),
    /// Variables that have a value from the start.
    pub data: (u64, u64),
    /// Variables that are zero at the start.
    pub bss: (u64, u64),
    /// Variables without pointers that are zero at the start.
    pub noptrbss: (u64, u64),
}

impl ModuleData {
    /// Finds the description of the program whose function table is at `table`.
    pub fn find(words: &Words<'_>, table: u64, header: &Header) -> Option<Self> {
        let names = table.checked_add(header.names as u64)?;
        let places = words.places_of(table);
        let address = places
            .into_iter()
            .find(|&place| words.word(place.wrapping_add(NAMES)) == Some(names))?;
        let field = |offset: u64| words.word(address.checked_add(offset)?);
        let range = |offset| {
            let (start, end) = (field(offset)?, field(offset + 8)?);
            (start <= end).then_some((start, end))
        };
        Some(Self {
            address,
            text: range(176)?,
            noptrdata: range(192)?,
            data: range(208)?,
            bss: range(224)?,
            noptrbss: range(240)?,
        })
    }

    /// Where the data of functions may begin: which it is depends on the version.
    pub fn function_data<'a>(&self, words: &'a Words<'_>) -> impl Iterator<Item = u64> + 'a {
        let address = self.address;
        FUNCTION_DATA
            .iter()
            .filter_map(move |offset| words.word(address.checked_add(*offset)?))
            .filter(|&data| data != 0)
    }
}
