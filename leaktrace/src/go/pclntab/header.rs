//! The head of the table: which layout it has, and where its parts are.

use super::super::bytes::{u32_at, u64_at};

/// What begins a table that this room can read: two magic numbers, instructions of one byte, pointers of eight.
const HEADS: [([u8; 8], Layout); 2] = [
    (
        [0xf0, 0xff, 0xff, 0xff, 0, 0, 1, 8],
        Layout {
            function: 40,
            inlined: 20,
            inlined_name: 12,
            inlined_parent: 16,
        },
    ),
    (
        [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8],
        Layout {
            function: 44,
            inlined: 16,
            inlined_name: 4,
            inlined_parent: 8,
        },
    ),
];

/// Sizes and offsets, in bytes, that differ between versions: the first since Go 1.18, the second since Go 1.20.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What of a function (`_func`) stands before its lists of tables.
    pub function: usize,
    /// An inlined call.
    pub inlined: usize,
    /// In it, the name.
    pub inlined_name: usize,
    /// In it, the instruction that stands for the place of the call.
    pub inlined_parent: usize,
}

/// Where the parts of a table are, from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its layout.
    pub layout: Layout,
    /// How many functions it has.
    pub functions: usize,
    /// Where the code begins, as far as the header says so: 0 from Go 1.26 on.
    pub text: u64,
    /// Names of functions.
    pub names: usize,
    /// For each compilation unit, where the names of its files are.
    pub units: usize,
    /// Names of files.
    pub files: usize,
    /// Values by instruction.
    pub values: usize,
    /// The functions.
    pub entries: usize,
}

impl Header {
    /// Bytes of a header.
    pub const SIZE: usize = 72;

    /// Reads the head of a table; none if it is none, or of another version, or promises more than there is.
    pub fn parse(table: &[u8]) -> Option<Self> {
        let (_, layout) = HEADS.iter().find(|(head, _)| table.starts_with(head))?;
        let offset = |field: usize| {
            let offset = usize::try_from(u64_at(table, 8 + 8 * field)?).ok()?;
            (offset <= table.len()).then_some(offset)
        };
        let functions = offset(0)?;
        let header = Self {
            layout: *layout,
            functions,
            text: u64_at(table, 24)?,
            names: offset(3)?,
            units: offset(4)?,
            files: offset(5)?,
            values: offset(6)?,
            entries: offset(7)?,
        };
        // The list of functions ends with where the last one ends.
        let last = header.entries.checked_add(functions.checked_mul(8)?)?;
        (functions > 0 && u32_at(table, last).is_some()).then_some(header)
    }

    /// Whether a table of a known layout may begin here.
    pub fn may_begin(bytes: &[u8]) -> bool {
        HEADS.iter().any(|(head, _)| bytes.starts_with(head))
    }
}
