//! The layout of one program: that of its own debug information, else that of its version, else that of the nearest.
//!
//! Debug information is set over what is written down of the version: a structure that it does not describe, because the
//! program does not use it, has the written layout.

use std::fs::File;

use serde_json::{Map, Value, json};

use super::BuildInfo;
use super::debug_info::{Described, Structure, Wanted};
use super::layout::{Layout, Source};
use crate::target::ElfHeaders;

/// Constants that are numbers of something.
const CONSTANTS: &[(&str, &str)] = &[
    ("profile", "_KindSpecialProfile"),
    ("headroom_percent", "memoryLimitHeapGoalHeadroomPercent"),
];
/// Those of them that some versions lack: they are 0 there.
const NEW_CONSTANTS: &[&str] = &["headroom_percent"];
/// Fields that some versions lack, by structure.
const OPTIONAL: &[(&str, &str)] = &[
    ("g", "syscallbp"),
    ("g", "parentGoid"),
    ("memRecordCycle", "alloc_bytes"),
    ("memRecordCycle", "free_bytes"),
];
/// What is no field.
const KINDS: &str = "kinds";
const SIZE: &str = "size";
const WIDE: &str = "wide_counts";

/// A structure that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Its name without the package.
    pub structure: String,
    /// The field that it lacks.
    pub field: String,
}

/// The layout of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the fields are.
    pub layout: Layout,
    /// Where that is known from.
    pub source: Source,
    /// Structures in which a field is missing: what needs them cannot be told.
    pub unfit: Vec<Unfit>,
}

impl Found {
    /// The layout of the program in `file`. None if the layouts that are written down cannot be read.
    pub fn of(info: &BuildInfo, file: &File, headers: &ElfHeaders) -> Option<Self> {
        let minor = info.minor();
        let written = Layout::written(minor)?;
        Self::described(file, headers, &written).or_else(|| {
            let (layout, source) = Layout::of(minor)?;
            Some(Self {
                layout: layout.clone(),
                source,
                unfit: Vec::new(),
            })
        })
    }

    /// That of the debug information; none if it tells nothing of goroutines.
    fn described(file: &File, headers: &ElfHeaders, written: &Value) -> Option<Self> {
        let mut layout = written.as_object()?.clone();
        let structures: Vec<&str> = layout
            .keys()
            .map(String::as_str)
            .filter(|name| *name != KINDS)
            .collect();
        let constants: Vec<&str> = CONSTANTS.iter().map(|(_, name)| *name).collect();
        let wanted = Wanted {
            structures: &structures,
            constants: &constants,
        };
        let described = Described::read(file, headers, wanted)?;
        if !described.structures.contains_key("g") {
            return None;
        }
        let mut unfit = Vec::new();
        for (name, fields) in &mut layout {
            match (described.structures.get(name), fields.as_object_mut()) {
                (Some(structure), Some(fields)) => {
                    let lacking = set_over(fields, name, structure);
                    unfit.extend(lacking.map(|field| Unfit {
                        structure: name.clone(),
                        field,
                    }));
                }
                (None, Some(fields)) if name == KINDS => set_constants(fields, &described),
                _ => {}
            }
        }
        Some(Self {
            layout: serde_json::from_value(Value::Object(layout)).ok()?,
            source: Source::Debug,
            unfit,
        })
    }
}

/// Replaces what is written of a structure. Gives the first field that it lacks.
fn set_over(fields: &mut Map<String, Value>, name: &str, structure: &Structure) -> Option<String> {
    let mut lacking = None;
    fields.retain(|field, value| {
        let is_optional = OPTIONAL.contains(&(name, field));
        match (field.as_str(), structure.members.get(field)) {
            (SIZE, None) => *value = json!(structure.size),
            (WIDE, _) => *value = json!(structure.members.get("nelems").and_then(|member| member.size) == Some(8)),
            // A field called `size` is what is meant where there is one.
            (_, Some(member)) => *value = json!(member.offset),
            (_, None) if is_optional => return false,
            (_, None) => lacking = lacking.take().or_else(|| Some(field.clone())),
        }
        true
    });
    for (_, field) in OPTIONAL.iter().filter(|(structure, _)| *structure == name) {
        if let Some(member) = structure.members.get(*field) {
            fields.insert((*field).to_owned(), json!(member.offset));
        }
    }
    lacking
}

fn set_constants(fields: &mut Map<String, Value>, described: &Described) {
    for (field, constant) in CONSTANTS {
        let value = described.constants.get(*constant).copied();
        let value = value.or_else(|| NEW_CONSTANTS.contains(field).then_some(0));
        if let Some(value) = value {
            fields.insert((*field).to_owned(), json!(value));
        }
    }
}

#[cfg(test)]
#[path = "layout_found_tests.rs"]
mod tests;
