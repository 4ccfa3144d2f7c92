//! What an inspection finds, as plain data. Its JSON form is the contract [`SCHEMA`].

use std::collections::BTreeMap;

use serde::Serialize;

use crate::symbols::source::NameSource;

/// The schema of an inspection as JSON.
pub const SCHEMA: &str = "leaktrace.inspect/1";

/// What a trace of one process would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The process.
    pub process: ProcessSeen,
    /// Why a trace would be refused; nothing where it would not.
    pub refused: Option<String>,
    /// The allocators found.
    pub allocators: Vec<AllocatorFound>,
    /// The probes that would be placed.
    pub probes: Vec<ProbePlanned>,
    /// What would not be seen, and why; and what could not be looked at.
    pub notes: Vec<String>,
    /// The files whose code is mapped.
    pub files: Vec<CodeFile>,
    /// Code that is in no file.
    pub other_code: Vec<OtherCode>,
    /// Sums.
    pub totals: Totals,
    /// The Go runtime; nothing where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go: Option<GoSeen>,
}

/// The Go runtime of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GoSeen {
    /// `go1.27.3`; nothing if it could not be looked at.
    pub version: Option<String>,
    /// Experiments that it was built with, where they differ from the version's own.
    pub experiments: Vec<String>,
    /// `exe`, `pie` and so on; nothing if it does not say.
    pub build_mode: Option<String>,
    /// Whether it can call C: what that allocates is traced as in any other program.
    pub cgo: bool,
    /// Whether it has no symbols. They are not needed.
    pub stripped: bool,
    /// The file that it is in.
    pub file: Option<String>,
    /// Where the layout of its structures is known from: `debug_info`, `version` or `nearest_version`.
    pub layout_from: Option<&'static str>,
    /// That nearest version.
    pub layout_of: Option<String>,
    /// Where things are, hexadecimal: variables as the process counts addresses, probes as the file does. Nothing for
    /// what was not found.
    pub places: BTreeMap<&'static str, Option<String>>,
    /// What leaktrace can tell of it.
    pub parts: Vec<GoPart>,
}

/// Something that leaktrace tells of Go programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GoPart {
    /// What.
    pub name: &'static str,
    /// Whether it will work, as far as can be told without doing it.
    pub works: bool,
    /// Why not.
    pub why: Option<String>,
}

/// The process looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessSeen {
    /// Its id, as the host sees it.
    pub pid: u32,
    /// Its command line.
    pub command: String,
    /// Path of its program as it sees it.
    pub exe: String,
    /// Build id of its program, hexadecimal.
    pub build_id: Option<String>,
    /// `c`, `c++`, `rust`, `go` or `unknown`: a guess.
    pub language: &'static str,
    /// How many threads it has; nothing if it has ended.
    pub threads: Option<u32>,
}

/// An allocator in the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllocatorFound {
    /// Its name.
    pub name: String,
    /// Whether its blocks would be traced.
    pub traced: bool,
}

/// A probe that would be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbePlanned {
    /// The function.
    pub function: String,
    /// Path of its module as the process sees it.
    pub module: String,
    /// Offset in the module's file of the instruction that is replaced while the trace runs.
    pub offset: u64,
    /// That instruction; nothing if it could not be read.
    pub instruction: Option<String>,
    /// Whether the kernel emulates it (a long `nop` from Linux 6.16), rather than single-stepping it at a higher cost.
    pub emulated: bool,
    /// Whether the return is probed besides the entry.
    pub returns: bool,
}

/// A file whose code is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeFile {
    /// Path as the process sees it.
    pub path: String,
    /// Build id, hexadecimal.
    pub build_id: Option<String>,
    /// Whether its name is gone.
    pub deleted: bool,
    /// How stacks through it would be walked.
    pub unwinding: Unwinding,
    /// Where its names would come from; nothing where the file could not be opened.
    pub names: Option<NameSource>,
}

/// How stacks through a module would be walked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Unwinding {
    /// By tables made from its unwinding information.
    Tables {
        /// Rows.
        rows: u64,
        /// Bytes of kernel memory that they take; rules are shared and not part of it.
        bytes: u64,
        /// Nanoseconds that one thread took to build them.
        build_ns: u64,
        /// Entries of the file that are broken, and left out.
        skipped: u64,
        /// Whether code that the tables leave out keeps frame pointers, and is followed by them: Go.
        frame_pointers: bool,
    },
    /// By frame pointers, which the code keeps: Go.
    FramePointers,
    /// By frame pointers, as a guess: frames of code without them may be missing.
    Guess {
        /// Why not by tables.
        why: String,
    },
}

/// Code that is in no file: made by a JIT compiler, or the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherCode {
    /// `[vdso]` and the like; `[anon]` for memory without a name.
    pub name: String,
    /// How many mappings.
    pub mappings: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How stacks through it would be walked.
    pub unwinding: Unwinding,
}

/// Sums over the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Rows of all tables.
    pub rows: u64,
    /// Distinct rules, shared by all files.
    pub rules: u64,
    /// Bytes of kernel memory that rows, pages and rules take.
    pub table_bytes: u64,
    /// Nanoseconds that building all tables took, on `threads` threads.
    pub build_ns: u64,
    /// Threads that built them.
    pub threads: u64,
    /// Nanoseconds that reading the memory map and opening the files took.
    pub map_ns: u64,
    /// Nanoseconds that planning the probes took.
    pub plan_ns: u64,
}
