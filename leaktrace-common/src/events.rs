//! Records in the ring buffer. Each starts with a `u32` tag.

use crate::plain;

/// Most frames kept of a stack.
pub const MAX_FRAMES: usize = 127;

/// Tag of a [`StackRecord`].
pub const TAG_STACK: u32 = 1;
/// Tag of a [`MappingRecord`].
pub const TAG_MAPPING: u32 = 2;
/// Tag of a [`ProcessRecord`].
pub const TAG_PROCESS: u32 = 3;

/// How the walk of a stack ended. The discriminants are stored in [`StackRecord::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum StackEnd {
    /// Reached the outermost frame.
    Whole = 0,
    /// Code without unwinding information.
    Gap = 1,
    /// A rule that the walker does not know.
    Unsupported = 2,
    /// Memory that could not be read.
    Fault = 3,
    /// More than [`MAX_FRAMES`] frames.
    TooDeep = 4,
    /// Walked by frame pointers: it ended, but frames of code without them may be missing.
    Guessed = 5,
    /// Code was being unmapped while it was walked: the tables may have been those of other code.
    Unsettled = 6,
    /// Code that is in none of the mappings known: it was mapped only just before.
    NewCode = 7,
}

impl StackEnd {
    /// The end stored as `raw`; an unknown number reads as `Unsupported`.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Whole,
            1 => Self::Gap,
            3 => Self::Fault,
            4 => Self::TooDeep,
            5 => Self::Guessed,
            6 => Self::Unsettled,
            7 => Self::NewCode,
            _ => Self::Unsupported,
        }
    }
}

/// A stack seen for the first time.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StackRecord {
    /// [`TAG_STACK`].
    pub tag: u32,
    /// Process id in the initial namespace.
    pub process: u32,
    /// Index into the site table.
    pub site: u32,
    /// A [`StackEnd`].
    pub end: u32,
    /// Index of the probe whose call this is.
    pub probe: u32,
    /// Number of frames.
    pub frame_count: u32,
    /// Hash of process, frames and end.
    pub hash: u64,
    /// How often code had been unmapped when the walk began: [`crate::sites::SessionState::code_removed`].
    pub code_removed: u64,
    /// Return addresses, innermost first: the first is in the function that called the allocator.
    pub frames: [u64; MAX_FRAMES],
}
plain!(StackRecord, 40 + 8 * MAX_FRAMES);

/// A change to the process's own mappings or break, in the order in which they happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MappingRecord {
    /// [`TAG_MAPPING`].
    pub tag: u32,
    /// Process id in the initial namespace.
    pub process: u32,
    /// Thread id in the initial namespace.
    pub thread: u32,
    /// A [`MappingStep`].
    pub step: u32,
    /// Start of the range.
    pub address: u64,
    /// Requested length in bytes.
    pub length: u64,
    /// Index into the site table; only for [`MappingStep::Added`].
    pub site: u32,
    /// Label of the cohort.
    pub cohort: u32,
}
plain!(MappingRecord, 40);

/// What happened to a range. Stored in [`MappingRecord::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MappingStep {
    /// The range is now owned by the site.
    Added = 1,
    /// A thread is about to take the range away.
    Removing = 2,
    /// The thread's last `Removing` failed: the range is there again.
    Restored = 3,
    /// The thread's last `Removing` succeeded.
    Removed = 4,
}

impl MappingStep {
    /// The step stored as `raw`, if it is one.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Added,
            2 => Self::Removing,
            3 => Self::Restored,
            4 => Self::Removed,
            _ => return None,
        })
    }
}

/// Something happened to a traced process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessRecord {
    /// [`TAG_PROCESS`].
    pub tag: u32,
    /// Process id in the initial namespace.
    pub process: u32,
    /// Thread id in the initial namespace.
    pub thread: u32,
    /// A [`ProcessStep`].
    pub step: u32,
}
plain!(ProcessRecord, 16);

/// What happened to a process. Stored in [`ProcessRecord::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ProcessStep {
    /// It replaced its program.
    Executed = 1,
    /// Its last thread ended.
    Exited = 2,
    /// Its main thread ended by itself, while others run on.
    MainThreadEnded = 3,
    /// Its loader has mapped or unmapped code.
    CodeChanged = 4,
}
