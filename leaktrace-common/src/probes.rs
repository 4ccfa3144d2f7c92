//! Probe specifications as data: one entry of the probe table per probe, found by its attach cookie.

use crate::plain;

/// What a probed function does to memory. The discriminants are stored in [`ProbeSpec::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum CallKind {
    /// Returns a new block (`malloc`, `calloc`, `aligned_alloc`), or stores it (`posix_memalign`).
    Allocate = 1,
    /// Gives a block back (`free`). Needs no return probe.
    Release = 2,
    /// Replaces a block by another (`realloc`, `reallocarray`).
    Resize = 3,
    /// Adds a mapping (`mmap`).
    Map = 4,
    /// Takes a mapping away, wholly or in part (`munmap`).
    Unmap = 5,
    /// Moves or resizes a mapping (`mremap`).
    Remap = 6,
    /// Sets the program break to an address (`brk`).
    SetBreak = 7,
    /// Moves the program break by a signed number of bytes (`sbrk`).
    MoveBreak = 8,
    /// Resizes a block where it is, and returns how large it is then (`xallocx`). The size that was asked for is a
    /// range: the count argument says by how much more than the size argument is welcome.
    ResizeInPlace = 9,
    /// Gives a block back, and may call another function that does (`operator delete`). Needs no return probe.
    ReleaseThrough = 10,
    /// The dynamic loader tells debuggers that it maps or unmaps code.
    CodeChange = 11,
    /// No call, but the `ret` of a function that may throw: the end of a call of it is seen there.
    Leave = 12,
    /// A C++ exception is thrown (`__cxa_throw`): it may end a call that may throw.
    Throw = 13,
    /// No call, but the place in Go's runtime where a span has been handed out to be filled with objects.
    SpanRefilled = 14,
    /// As `SpanRefilled`, for a span that is one large object.
    SpanLarge = 15,
    /// As `SpanRefilled`, where a span is given back.
    SpanUncached = 16,
}

impl CallKind {
    /// The kind stored as `raw`, if it is one.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Allocate,
            2 => Self::Release,
            3 => Self::Resize,
            4 => Self::Map,
            5 => Self::Unmap,
            6 => Self::Remap,
            7 => Self::SetBreak,
            8 => Self::MoveBreak,
            9 => Self::ResizeInPlace,
            10 => Self::ReleaseThrough,
            11 => Self::CodeChange,
            12 => Self::Leave,
            13 => Self::Throw,
            14 => Self::SpanRefilled,
            15 => Self::SpanLarge,
            16 => Self::SpanUncached,
            _ => return None,
        })
    }

    /// Whether it changes mappings or the program break, and hands out no block.
    pub const fn is_mapping(self) -> bool {
        matches!(
            self,
            Self::Map | Self::Unmap | Self::Remap | Self::SetBreak | Self::MoveBreak
        )
    }

    /// Whether the outcome is known only when the call returns.
    pub const fn needs_return(self) -> bool {
        !matches!(
            self,
            Self::Release
                | Self::ReleaseThrough
                | Self::CodeChange
                | Self::Leave
                | Self::Throw
                | Self::SpanRefilled
                | Self::SpanLarge
                | Self::SpanUncached
        )
    }
}

/// How to read one probed function. Arguments are numbered from 1 in the C calling convention; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProbeSpec {
    /// A [`CallKind`].
    pub kind: u32,
    /// Argument with the size, or the length of a mapping, or the increment of a break.
    pub size_arg: u8,
    /// Argument to multiply the size by.
    pub count_arg: u8,
    /// Argument with the old block, or the start of a range.
    pub pointer_arg: u8,
    /// Argument with the address at which the new block is stored; the call's return value is then 0 on success.
    pub out_arg: u8,
    /// 1 for a function that may throw. A return probe would keep the exception from passing through it, so that its
    /// end is seen by probes of kind [`CallKind::Leave`].
    pub may_throw: u32,
    /// Always zero.
    pub zero: u32,
    /// Distance in bytes from the probed instruction to the variable with the current program break, or of
    /// [`CallKind::CodeChange`] to the one that says what the loader does; 0 for none.
    pub break_variable: i64,
}
plain!(ProbeSpec, 24);

impl ProbeSpec {
    /// Whether the end of a call is seen by a return probe.
    pub fn needs_return(&self) -> bool {
        self.may_throw == 0 && CallKind::from_raw(self.kind).is_none_or(CallKind::needs_return)
    }
}

/// Where the code of a process's allocators lies. Mapping calls that return into it are their own (thread stacks,
/// arenas, reservations), and not the program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OwnCode {
    /// Ranges from the first address to the one after the last; those not used are empty.
    pub ranges: [[u64; 2]; OWN_CODE_RANGES],
}
plain!(OwnCode, 16 * OWN_CODE_RANGES);

impl OwnCode {
    /// Whether `address` lies in one of the ranges.
    #[inline(always)]
    pub fn contains(&self, address: u64) -> bool {
        self.ranges
            .iter()
            .any(|&[start, end]| address >= start && address < end)
    }
}

/// Ranges of [`OwnCode`].
pub const OWN_CODE_RANGES: usize = 32;

/// Processes whose [`OwnCode`] is kept.
pub const OWN_CODE_PROCESSES: u32 = 1024;

/// How many probes one session can hold.
pub const MAX_PROBES: u32 = 4096;
