use std::collections::HashMap;
use std::path::Path;

use gimli::{AttributeValue, Dwarf, EndianSlice, LittleEndian};
use object::{Object as _, ObjectSection as _};

use super::super::test_programs::{SOURCE, Toolchain};
use super::*;

type Fields = HashMap<String, usize>;

/// Fields, and the size, of the runtime's structures, as the debug information of a program has them.
fn structures(program: &Path) -> HashMap<String, Fields> {
    let data = std::fs::read(program).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let section = |id: gimli::SectionId| -> Result<_, gimli::Error> {
        let section = file.section_by_name(id.name());
        let contents = section.map(|section| section.uncompressed_data().unwrap().into_owned());
        Ok(contents.unwrap_or_default())
    };
    let sections = gimli::DwarfSections::load(section).unwrap();
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let mut found = HashMap::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().unwrap() {
        let unit = dwarf.unit(header).unwrap();
        let mut tree = unit.entries_tree(None).unwrap();
        let mut children = tree.root().unwrap().children();
        while let Some(node) = children.next().unwrap() {
            if node.entry().tag() == gimli::DW_TAG_structure_type {
                let name = text(&dwarf, &unit, node.entry(), gimli::DW_AT_name);
                let size = number(node.entry(), gimli::DW_AT_byte_size);
                let mut fields = Fields::from([("size".to_owned(), size.unwrap_or(0))]);
                let mut members = node.children();
                while let Some(member) = members.next().unwrap() {
                    let offset = number(member.entry(), gimli::DW_AT_data_member_location);
                    let name = text(&dwarf, &unit, member.entry(), gimli::DW_AT_name);
                    fields.extend(offset.map(|offset| (name, offset)));
                }
                found.insert(name, fields);
            }
        }
    }
    found
}

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a, 'b> = gimli::DebuggingInformationEntry<Reader<'a>>;

fn text(dwarf: &Dwarf<Reader<'_>>, unit: &gimli::Unit<Reader<'_>>, entry: &Entry<'_, '_>, name: gimli::DwAt) -> String {
    let value = entry.attr_value(name);
    let text = value.and_then(|value| dwarf.attr_string(unit, value).ok());
    text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

fn number(entry: &Entry<'_, '_>, name: gimli::DwAt) -> Option<usize> {
    entry.attr_value(name).and_then(|value| match value {
        AttributeValue::Udata(number) => Some(number as usize),
        other => other.udata_value().map(|number| number as usize),
    })
}

/// Every number in `layouts.json` comes from such debug information, and is compared with it again.
#[test]
fn layouts_are_those_of_the_debug_information() {
    let versions: serde_json::Value = serde_json::from_str(include_str!("layouts.json")).unwrap();
    for go in Toolchain::all_there() {
        let version = go.version_number();
        let Some(layout) = versions.get(&version) else {
            panic!("no layout of Go {version}");
        };
        let found = structures(&go.build(&[], SOURCE));
        let structures = layout.as_object().unwrap().iter();
        // The kinds are constants, which debug information does not have.
        for (structure, fields) in structures.filter(|(name, _)| *name != "kinds") {
            let real = &found[&format!("runtime.{structure}")];
            for (field, offset) in fields.as_object().unwrap() {
                let Some(offset) = offset.as_u64() else { continue };
                assert_eq!(real[field] as u64, offset, "Go {version}: {structure}.{field}");
            }
        }
        let has_frame_pointer = found["runtime.g"].contains_key("syscallbp");
        assert_eq!(layout["g"].get("syscallbp").is_some(), has_frame_pointer, "{version}");
    }
}

#[test]
fn unknown_versions_have_the_nearest_layout_and_say_so() {
    let known: Vec<u32> = Layout::known().collect();
    assert_eq!((known.first(), known.last()), (Some(&19), Some(&27)));
    assert_eq!(Layout::of(Some(24)).unwrap().1, Source::Known);
    for (minor, nearest) in [(Some(18), 19), (Some(31), 27), (None, 27)] {
        assert_eq!(Layout::of(minor).unwrap().1, Source::Nearest(nearest), "{minor:?}");
    }
}
