//! Go's own table of functions, files and lines (`.gopclntab`), of Go 1.18 and newer. The runtime needs it to grow
//! stacks and to collect garbage, so that it is there in every program, stripped or not. Pure.
//!
//! The layout is that of `runtime/symtab.go` and of `cmd/link`. Nothing in it is trusted: each offset is checked where
//! it is used, and the work of all look-ups together is bounded.

mod header;
mod inline;
mod values;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use header::Header;

use super::bytes::{i32_at, text_at, u32_at};

/// Longest name of a function or file.
const MAX_NAME: usize = 64 << 10;
/// Most steps that all look-ups in a table may make: some seconds. A look-up of a real program makes a thousand.
const FUEL: u64 = 1 << 30;
/// Which list has the place in the inline tree.
const INLINE_INDEX: usize = 2;
/// Which of the function's data is the inline tree.
const INLINE_TREE: usize = 3;

/// Flag of a function: a stack begins with it.
const OUTERMOST: u8 = 1;

/// The table of one program.
#[derive(Debug)]
pub struct Table {
    bytes: Vec<u8>,
    header: Header,
    /// Virtual address at which Go's code begins.
    text: u64,
    /// Data of functions (`go:func.*`), for the inline trees; empty if not known.
    data: Vec<u8>,
    fuel: AtomicU64,
}

/// A function of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Virtual address of its first instruction.
    pub start: u64,
    /// Where the next function begins.
    pub end: u64,
    /// Where the table describes it.
    at: usize,
}

/// A call at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Name of the function, as it stands in the table.
    pub function: &'a [u8],
    /// Its source file.
    pub file: Option<&'a [u8]>,
    /// The line; 1 is the first.
    pub line: Option<u32>,
}

impl Table {
    /// The table in `bytes`, of a program whose Go code begins at `text`. None if there is no table that can be read.
    pub fn new(bytes: Vec<u8>, text: u64) -> Option<Self> {
        Some(Self {
            header: Header::parse(&bytes)?,
            bytes,
            text,
            data: Vec::new(),
            fuel: AtomicU64::new(FUEL),
        })
    }

    /// Takes `data` as the data of its functions if it fits them, so that inlined calls are told.
    pub fn take_data(&mut self, data: Vec<u8>) -> bool {
        self.data = data;
        let fits = inline::fits(self);
        if !fits {
            self.data = Vec::new();
        }
        fits
    }

    /// How many bytes it holds.
    pub fn size(&self) -> u64 {
        (self.bytes.len() + self.data.len()) as u64
    }

    /// Whether inlined calls are told.
    pub fn has_inlining(&self) -> bool {
        !self.data.is_empty()
    }

    /// Whether so much was looked up, in a table made to be slow, that nothing more is.
    pub fn is_exhausted(&self) -> bool {
        self.fuel.load(Relaxed) == 0
    }

    /// All functions, by address.
    pub fn functions(&self) -> impl Iterator<Item = Function> {
        (0..self.header.functions).filter_map(|index| self.function(index))
    }

    /// The function that `address` lies in.
    pub fn find(&self, address: u64) -> Option<Function> {
        let offset = u32::try_from(address.checked_sub(self.text)?).ok()?;
        // As in the runtime, the functions are taken to be in order; in a table where they are not, some other is found
        // and then refused.
        let (mut low, mut high) = (0, self.header.functions);
        while low < high {
            let middle = low.midpoint(high);
            if self.entry(middle)? <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let function = self.function(low.checked_sub(1)?)?;
        (function.start..function.end).contains(&address).then_some(function)
    }

    /// The function called `name`: the first, if there are several.
    pub fn named(&self, name: &str) -> Option<Function> {
        self.functions()
            .find(|function| self.name(function) == Some(name.as_bytes()))
    }

    /// Name of a function.
    pub fn name(&self, function: &Function) -> Option<&[u8]> {
        self.name_at(i32_at(&self.bytes, function.at + 4)?)
    }

    /// How many bytes above the stack pointer a function's return address is, at the instruction at `address`.
    pub fn frame_size(&self, function: &Function, address: u64) -> Option<u64> {
        let list = u32_at(&self.bytes, function.at + 16)?;
        let size = self.value(list, address.checked_sub(function.start)?)?;
        // Of a function that keeps its frame's size to itself, the table says -1.
        u64::try_from(size).ok().filter(|size| size.is_multiple_of(8))
    }

    /// Whether a function is one that nobody calls: a stack that has come to it is whole.
    pub fn is_outermost(&self, function: &Function) -> bool {
        let flags = self.bytes.get(function.at + self.header.layout.function - 3);
        flags.is_some_and(|flags| flags & OUTERMOST != 0)
    }

    /// The calls at `address`, innermost first: all but the last are inlined. Empty if it lies in no function.
    pub fn calls(&self, address: u64) -> Vec<Call<'_>> {
        let Some(function) = self.find(address) else {
            return Vec::new();
        };
        inline::calls(self, &function, address - function.start)
    }

    fn entry(&self, index: usize) -> Option<u32> {
        u32_at(&self.bytes, self.header.entries + 8 * index)
    }

    fn function(&self, index: usize) -> Option<Function> {
        let address = |index| self.text.checked_add(self.entry(index)?.into());
        let description = u32_at(&self.bytes, self.header.entries + 8 * index + 4)?;
        Some(Function {
            start: address(index)?,
            end: address(index + 1)?,
            at: self.header.entries.checked_add(description as usize)?,
        })
    }

    fn name_at(&self, offset: i32) -> Option<&[u8]> {
        let at = self.header.names.checked_add(usize::try_from(offset).ok()?)?;
        text_at(&self.bytes, at, MAX_NAME).filter(|name| !name.is_empty())
    }

    /// File and line of the instruction `distance` bytes into a function.
    fn place(&self, function: &Function, distance: u64) -> (Option<&[u8]>, Option<u32>) {
        let list = |field| u32_at(&self.bytes, function.at + field).and_then(|list| self.value(list, distance));
        let file = list(20).and_then(|file| self.file(function, file));
        let line = list(24).and_then(|line| u32::try_from(line).ok());
        (file, line.filter(|&line| line > 0))
    }

    fn file(&self, function: &Function, file: i32) -> Option<&[u8]> {
        let unit = u32_at(&self.bytes, function.at + 32)? as usize;
        let index = unit.checked_add(usize::try_from(file).ok()?)?;
        let offset = u32_at(&self.bytes, self.header.units.checked_add(index.checked_mul(4)?)?)?;
        let at = self.header.files.checked_add(offset as usize)?;
        text_at(&self.bytes, at, MAX_NAME).filter(|name| !name.is_empty())
    }

    /// The value at an instruction, from the list of values that begins at `list`; 0 stands for no list.
    fn value(&self, list: u32, distance: u64) -> Option<i32> {
        if list == 0 {
            return None;
        }
        let values = self.bytes.get(self.header.values.checked_add(list as usize)?..)?;
        let mut fuel = self.fuel.load(Relaxed);
        let value = values::value_at(values, distance, &mut fuel);
        self.fuel.store(fuel, Relaxed);
        value
    }
}

/// A name of a function as Go prints it: what a generic function was made for is left out.
pub fn shown(name: &str) -> String {
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => {
            let (before, after) = (name.get(..open), name.get(close + 1..));
            format!("{}[...]{}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
