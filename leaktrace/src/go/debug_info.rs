//! The runtime's structures as the program's own debug information has them: where it is there, it is right for this
//! very program, whatever its version.
//!
//! Only what is wanted is kept, and reading ends when all of it was found. Go's compiler puts types into units of the
//! package they belong to, and its linker those of the runtime into the last unit of that name.

use std::collections::HashMap;
use std::fs::File;
use std::rc::Rc;

use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugInfo, DebugStr, EndianSlice, EntriesRaw, LittleEndian, UnitHeader,
    UnitOffset,
};

use crate::target::ElfHeaders;

/// Most bytes of a section, uncompressed: a program of 100 MB has a quarter of that.
const MAX_SECTION: u64 = 128 << 20;
/// The package whose structures these are.
const PACKAGE: &[u8] = b"runtime";
/// What names in it begin with.
const PREFIX: &[u8] = b"runtime.";
/// Most members of a structure, and most structures of one name.
const MAX_MEMBERS: usize = 4096;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type Entries<'a, 'b> = EntriesRaw<'b, Bytes<'a>>;

/// Where a member is, and how many bytes it has, if that is easily told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the beginning of the structure.
    pub offset: u64,
    /// Its size, if it is a number or a pointer.
    pub size: Option<u64>,
}

/// A structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// Its size in bytes.
    pub size: u64,
    /// Its members by name.
    pub members: HashMap<String, Member>,
}

/// Structures and constants of the runtime, by name without the package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Structures.
    pub structures: HashMap<String, Structure>,
    /// Constants.
    pub constants: HashMap<String, u64>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Names of structures.
    pub structures: &'a [&'a str],
    /// Names of constants.
    pub constants: &'a [&'a str],
}

impl Described {
    /// Reads what is wanted from the debug information of a program. None if it has none, or that is too large, or
    /// damaged.
    pub fn read(file: &File, headers: &ElfHeaders, wanted: Wanted<'_>) -> Option<Self> {
        let section = |name: &[u8]| {
            let section = headers.section(name)?;
            ElfHeaders::full_contents(file, section, MAX_SECTION).ok()
        };
        let abbreviations = section(b".debug_abbrev")?;
        let info = section(b".debug_info")?;
        // Go's own linker puts all text where it is used.
        let strings = section(b".debug_str").unwrap_or_default();
        Self::parse(&info, &abbreviations, &strings, wanted)
    }

    fn parse(info: &[u8], abbreviations: &[u8], strings: &[u8], wanted: Wanted<'_>) -> Option<Self> {
        let mut reader = Reader {
            abbreviations: DebugAbbrev::new(abbreviations, LittleEndian),
            strings: DebugStr::from(EndianSlice::new(strings, LittleEndian)),
            known: None,
        };
        let mut units = Vec::new();
        let mut headers = DebugInfo::new(info, LittleEndian).units();
        while let Some(header) = headers.next().ok()? {
            if reader.is_of_package(&header) {
                units.push(header);
            }
        }
        let mut found = Self::default();
        for unit in units.iter().rev() {
            reader.read_unit(unit, wanted, &mut found)?;
            if found.has_all(wanted) {
                break;
            }
        }
        Some(found)
    }

    fn has_all(&self, wanted: Wanted<'_>) -> bool {
        wanted.structures.iter().all(|name| self.structures.contains_key(*name))
            && wanted.constants.iter().all(|name| self.constants.contains_key(*name))
    }
}

struct Reader<'a> {
    abbreviations: DebugAbbrev<Bytes<'a>>,
    strings: DebugStr<Bytes<'a>>,
    /// The abbreviations read last, by their place: all units of Go's linker have the same.
    known: Option<(usize, Rc<Abbreviations>)>,
}

/// The attributes that matter.
#[derive(Default)]
struct Entry<'a> {
    name: &'a [u8],
    size: Option<u64>,
    offset: Option<u64>,
    value: Option<u64>,
    kind: Option<UnitOffset>,
}

impl<'a> Reader<'a> {
    fn abbreviations(&mut self, unit: &UnitHeader<Bytes<'a>>) -> Option<Rc<Abbreviations>> {
        let place = unit.debug_abbrev_offset().0;
        match &self.known {
            Some((known, abbreviations)) if *known == place => return Some(abbreviations.clone()),
            _ => {}
        }
        let read = Rc::new(unit.abbreviations(&self.abbreviations).ok()?);
        self.known = Some((place, read.clone()));
        Some(read)
    }

    fn is_of_package(&mut self, unit: &UnitHeader<Bytes<'a>>) -> bool {
        self.name_of(unit) == Some(PACKAGE)
    }

    fn name_of(&mut self, unit: &UnitHeader<Bytes<'a>>) -> Option<&'a [u8]> {
        let abbreviations = self.abbreviations(unit)?;
        let mut entries = unit.entries_raw(&abbreviations, None).ok()?;
        let abbreviation = entries.read_abbreviation().ok()??;
        Some(self.entry(unit, &mut entries, abbreviation)?.name)
    }

    /// Reads what is wanted and new in a unit. None if it is damaged.
    fn read_unit(&mut self, unit: &UnitHeader<Bytes<'a>>, wanted: Wanted<'_>, found: &mut Described) -> Option<()> {
        let abbreviations = self.abbreviations(unit)?;
        let mut entries = unit.entries_raw(&abbreviations, None).ok()?;
        while !entries.is_empty() && !found.has_all(wanted) {
            let Some(abbreviation) = entries.read_abbreviation().ok()? else {
                continue;
            };
            let is_wanted = matches!(
                abbreviation.tag(),
                gimli::DW_TAG_structure_type | gimli::DW_TAG_constant
            );
            if !is_wanted {
                entries.skip_attributes(abbreviation.attributes()).ok()?;
                continue;
            }
            let entry = self.entry(unit, &mut entries, abbreviation)?;
            let name = entry
                .name
                .strip_prefix(PREFIX)
                .and_then(|name| std::str::from_utf8(name).ok());
            let Some(name) = name else { continue };
            if abbreviation.tag() == gimli::DW_TAG_constant && wanted.constants.contains(&name) {
                found
                    .constants
                    .extend(entry.value.map(|value| (name.to_owned(), value)));
            } else if abbreviation.has_children()
                && wanted.structures.contains(&name)
                && !found.structures.contains_key(name)
            {
                let structure = self.structure(unit, &abbreviations, &mut entries, entry.size?)?;
                found.structures.insert(name.to_owned(), structure);
            }
        }
        Some(())
    }

    /// Reads the members of a structure, behind whose own entry `entries` is.
    fn structure(
        &self,
        unit: &UnitHeader<Bytes<'a>>,
        abbreviations: &Abbreviations,
        entries: &mut Entries<'a, '_>,
        size: u64,
    ) -> Option<Structure> {
        let (depth, mut members) = (entries.next_depth(), HashMap::new());
        while !entries.is_empty() && entries.next_depth() >= depth && members.len() < MAX_MEMBERS {
            let Some(abbreviation) = entries.read_abbreviation().ok()? else {
                continue;
            };
            let entry = self.entry(unit, entries, abbreviation)?;
            if let (gimli::DW_TAG_member, Some(offset)) = (abbreviation.tag(), entry.offset) {
                let size = entry.kind.and_then(|kind| self.size_of(unit, abbreviations, kind));
                members.insert(
                    String::from_utf8_lossy(entry.name).into_owned(),
                    Member { offset, size },
                );
            }
        }
        Some(Structure { size, members })
    }

    /// Size of a type that says it itself.
    fn size_of(&self, unit: &UnitHeader<Bytes<'a>>, abbreviations: &Abbreviations, at: UnitOffset) -> Option<u64> {
        let mut entries = unit.entries_raw(abbreviations, Some(at)).ok()?;
        let abbreviation = entries.read_abbreviation().ok()??;
        self.entry(unit, &mut entries, abbreviation)?.size
    }

    fn entry(
        &self,
        unit: &UnitHeader<Bytes<'a>>,
        entries: &mut Entries<'a, '_>,
        abbreviation: &gimli::Abbreviation,
    ) -> Option<Entry<'a>> {
        let mut entry = Entry::default();
        for &spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(spec).ok()?;
            match attribute.name() {
                gimli::DW_AT_name => entry.name = self.text(attribute.value()).unwrap_or_default(),
                gimli::DW_AT_byte_size => entry.size = attribute.udata_value(),
                gimli::DW_AT_data_member_location => entry.offset = attribute.udata_value(),
                gimli::DW_AT_const_value => entry.value = attribute.udata_value(),
                gimli::DW_AT_type => entry.kind = place(unit, attribute.value()),
                _ => {}
            }
        }
        Some(entry)
    }

    fn text(&self, value: AttributeValue<Bytes<'a>>) -> Option<&'a [u8]> {
        match value {
            AttributeValue::String(text) => Some(text.slice()),
            AttributeValue::DebugStrRef(at) => Some(self.strings.get_str(at).ok()?.slice()),
            _ => None,
        }
    }
}

/// Where in its unit a type is.
fn place(unit: &UnitHeader<Bytes<'_>>, value: AttributeValue<Bytes<'_>>) -> Option<UnitOffset> {
    match value {
        AttributeValue::UnitRef(at) => Some(at),
        AttributeValue::DebugInfoRef(at) => at.to_unit_offset(unit),
        _ => None,
    }
}
