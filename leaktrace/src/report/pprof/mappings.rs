//! Modules as pprof's mappings: ranges of memory that hold the addresses of all frames. Pure.

use std::collections::HashMap;

use super::proto;
use super::table::Table;
use crate::profile::{Frame, Stack, TargetInfo};
use crate::report::label;

const PAGE: u64 = 4096;

/// A module loaded at one place.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    module: String,
    build_id: Option<String>,
    /// Distance from the addresses in the file to those in memory.
    bias: u64,
}

impl Key {
    fn of(frame: &Frame) -> Self {
        Self {
            module: frame.module.clone(),
            build_id: frame.build_id.clone(),
            bias: frame.address.wrapping_sub(frame.offset),
        }
    }
}

/// What the frames of a module show of it.
#[expect(clippy::struct_excessive_bools, reason = "the format asks each question on its own")]
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Lowest and highest address, if there is a frame.
    range: Option<(u64, u64)>,
    functions: bool,
    files: bool,
    lines: bool,
    inlined: bool,
}

/// Every module with a frame, the main executable first even without one.
pub(super) struct Mappings {
    ids: HashMap<Key, u64>,
    modules: Vec<(Key, Seen)>,
}

/// The address by which tools find the call: return addresses point behind it, sometimes into the next line or function.
pub(super) fn call_address(frame: &Frame) -> u64 {
    frame.address.saturating_sub(1)
}

impl Mappings {
    pub(super) fn of<'a>(target: &TargetInfo, stacks: impl Iterator<Item = &'a Stack> + Clone) -> Self {
        let mut mappings = Self {
            ids: HashMap::new(),
            modules: Vec::new(),
        };
        let frames = stacks
            .flat_map(|stack| &stack.frames)
            .filter(|frame| !frame.module.is_empty());
        let main = frames.clone().find(|frame| frame.module == target.exe).map(Key::of);
        mappings.add(main.unwrap_or_else(|| Key {
            module: target.exe.clone(),
            build_id: target.build_id.clone(),
            bias: 0,
        }));
        frames.for_each(|frame| mappings.see(frame));
        mappings
    }

    fn add(&mut self, key: Key) -> usize {
        let next = self.modules.len() as u64 + 1;
        let id = *self.ids.entry(key).or_insert_with_key(|key| {
            self.modules.push((key.clone(), Seen::default()));
            next
        });
        id as usize - 1
    }

    fn see(&mut self, frame: &Frame) {
        let index = self.add(Key::of(frame));
        let Some((_, seen)) = self.modules.get_mut(index) else {
            return;
        };
        let address = call_address(frame);
        let (low, high) = seen.range.unwrap_or((address, address));
        seen.range = Some((low.min(address), high.max(address)));
        seen.functions |= frame.name().is_some();
        seen.files |= frame.file.is_some();
        seen.lines |= frame.line.is_some();
        seen.inlined |= frame.inlined;
    }

    /// The id of a frame's mapping; 0 when its module is not known.
    pub(super) fn id(&self, frame: &Frame) -> u64 {
        self.ids.get(&Key::of(frame)).copied().unwrap_or(0)
    }

    /// The mappings, by id.
    pub(super) fn messages(&self, strings: &mut Table<String>) -> Vec<proto::Mapping> {
        let mapping = |(index, (key, seen)): (usize, &(Key, Seen))| message(index as u64 + 1, key, *seen, strings);
        self.modules.iter().enumerate().map(mapping).collect()
    }
}

fn message(id: u64, key: &Key, seen: Seen, strings: &mut Table<String>) -> proto::Mapping {
    let (start, limit) = seen.range.map_or((0, 0), |range| extent(key.bias, range));
    let mut text = |text: &str| strings.index(label::one_line(text).into_owned()) as i64;
    proto::Mapping {
        id,
        memory_start: start,
        memory_limit: limit,
        file_offset: start.wrapping_sub(key.bias),
        filename: text(&key.module),
        build_id: text(key.build_id.as_deref().unwrap_or_default()),
        has_functions: seen.functions,
        has_filenames: seen.files,
        has_line_numbers: seen.lines,
        has_inline_frames: seen.inlined,
    }
}

/// From where the file's first byte would be to the page after the last known address. Where the file counts from no
/// such place (an executable with fixed addresses, code without a file), from the page of the first known address.
fn extent(bias: u64, (low, high): (u64, u64)) -> (u64, u64) {
    let start = if bias == 0 || bias > low {
        low - low % PAGE
    } else {
        bias
    };
    (start, (high - high % PAGE).saturating_add(PAGE))
}
