//! Stacks as pprof's locations and functions: one location per address, with every call inlined there. Pure.

use super::mappings::{Mappings, call_address};
use super::proto::{Function, Line, Location};
use super::table::Table;
use crate::profile::{Frame, Stack};
use crate::report::label;

/// A location before it has its id.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    mapping_id: u64,
    address: u64,
    lines: Vec<Line>,
}

/// Name and file, as indices.
type Name = (i64, i64);

/// Locations and functions in the making.
pub(super) struct Locations<'a> {
    mappings: &'a Mappings,
    strings: &'a mut Table<String>,
    places: Table<Place>,
    functions: Table<Name>,
}

impl<'a> Locations<'a> {
    pub(super) fn new(mappings: &'a Mappings, strings: &'a mut Table<String>) -> Self {
        Self {
            mappings,
            strings,
            places: Table::empty(),
            functions: Table::empty(),
        }
    }

    /// Ids of a stack's locations, innermost first. A stack that is not whole, or empty, says so at its end.
    pub(super) fn of_stack(&mut self, stack: &Stack) -> Vec<u64> {
        let calls = stack
            .frames
            .chunk_by(|frame, caller| frame.inlined && frame.address == caller.address);
        let mut ids: Vec<u64> = calls.map(|frames| self.of_call(frames)).collect();
        if !stack.whole {
            ids.push(self.word(label::TRUNCATED));
        } else if stack.frames.is_empty() {
            ids.push(self.word(label::UNKNOWN));
        }
        ids
    }

    /// Locations and functions, by id.
    pub(super) fn finish(self) -> (Vec<Location>, Vec<Function>) {
        let places = self
            .places
            .into_values()
            .into_iter()
            .zip(1..)
            .map(|(place, id)| Location {
                id,
                mapping_id: place.mapping_id,
                address: place.address,
                line: place.lines,
            });
        // Without a system name, no tool tries to demangle the name once more.
        let functions = self.functions.into_values().into_iter().zip(1..);
        let functions = functions.map(|((name, filename), id)| Function {
            id,
            name,
            system_name: 0,
            filename,
        });
        (places.collect(), functions.collect())
    }

    /// One address: inlined calls first, the real one last.
    fn of_call(&mut self, frames: &[Frame]) -> u64 {
        let lines = frames.iter().filter_map(|frame| self.line(frame)).collect();
        let Some(frame) = frames.last() else {
            return self.word(label::UNKNOWN);
        };
        self.place(Place {
            mapping_id: self.mappings.id(frame),
            address: call_address(frame),
            lines,
        })
    }

    /// A frame without a symbol has no line: by its mapping and address a tool with symbols may still name it.
    fn line(&mut self, frame: &Frame) -> Option<Line> {
        let name = label::one_line(frame.name()?).into_owned();
        let file = label::one_line(frame.file.as_deref().unwrap_or_default()).into_owned();
        Some(Line {
            function_id: self.function(name, file),
            line: frame.line.unwrap_or(0).into(),
        })
    }

    fn word(&mut self, word: &str) -> u64 {
        let line = Line {
            function_id: self.function(word.to_owned(), String::new()),
            line: 0,
        };
        self.place(Place {
            mapping_id: 0,
            address: 0,
            lines: vec![line],
        })
    }

    fn function(&mut self, name: String, file: String) -> u64 {
        let name = (self.strings.index(name) as i64, self.strings.index(file) as i64);
        self.functions.index(name) as u64 + 1
    }

    fn place(&mut self, place: Place) -> u64 {
        self.places.index(place) as u64 + 1
    }
}
