//! The profile: plain data that everything after the session works on, and its JSON form.
//!
//! This is the contract `leaktrace.profile/1`: fields are only ever added. Opens no file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod ending;
#[cfg(test)]
pub(crate) mod fixture;
mod go;
pub mod goroutines;
mod read;

pub use self::ending::{CutStacks, Ending, cut_stacks};
pub use self::go::{GoHeap, GoMoment, GoSite, Heap, Holder, MemoryPart, OwnProfile, OwnSite};
pub use self::read::{ReadError, read};

/// The schema this version writes, and the only one it reads.
pub const SCHEMA: &str = "leaktrace.profile/1";

/// The reason in [`Accounting::lost`] that stands for the whole trace: its handlers did nothing, to be measured.
pub const NOT_RECORDED: &str = "not_recorded";
/// Name of the loss of what may have happened after the main thread ended while others ran on.
pub const MAIN_THREAD_GONE: &str = "main_thread_gone";
/// Name of the note on a program that took another's place in the process traced: it had begun before it was traced.
pub const BEGAN_UNTRACED: &str = "began_untraced";

/// What a trace found: one process, one window of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Who wrote it.
    pub tool: Tool,
    /// What was traced.
    pub target: TargetInfo,
    /// When.
    pub window: Window,
    /// Totals, and everything lost.
    pub accounting: Accounting,
    /// Sites, by live bytes, largest first.
    pub sites: Vec<Site>,
    /// Totals over time.
    #[serde(default)]
    pub timeline: Vec<TimelinePoint>,
    /// What was found of the Go runtime, of a Go program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go: Option<GoHeap>,
}

/// The program that wrote a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// `leaktrace`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The traced process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// Process ids as the host sees them.
    pub pids: Vec<u32>,
    /// The command line, words joined by spaces.
    pub command: String,
    /// Path of the executable as the process sees it.
    pub exe: String,
    /// Build id of the executable, hexadecimal.
    pub build_id: Option<String>,
    /// `c`, `c++`, `rust`, `go` or `unknown`.
    pub language: String,
    /// Names of the allocators traced.
    pub allocators: Vec<String>,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// How the process ended, if it ended during the trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It returned or called `exit` with this status.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
    /// It ended; how is not known to us (we are not its parent).
    Ended,
}

/// The window of time that a profile covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Nanoseconds since 1970.
    pub start_unix_ns: u64,
    /// Nanoseconds since 1970.
    pub end_unix_ns: u64,
    /// Nanoseconds of the monotonic clock.
    pub duration_ns: u64,
}

/// Totals of the whole window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    /// Blocks allocated.
    pub allocations: u64,
    /// Blocks freed that were allocated in the window.
    pub frees: u64,
    /// Bytes of the allocations.
    pub allocated_bytes: u64,
    /// Bytes of the frees.
    pub freed_bytes: u64,
    /// Bytes outstanding.
    pub live_bytes: u64,
    /// Blocks outstanding.
    pub live_count: u64,
    /// Mean sampling interval in bytes; 1 when every allocation is seen.
    pub sample_bytes: u64,
    /// What was lost, refused or cut short, by reason; no entry for what did not happen.
    pub lost: BTreeMap<String, u64>,
    /// What was counted and is no loss: frees of blocks from before the attach, failed calls and the like.
    #[serde(default)]
    pub notes: BTreeMap<String, u64>,
    /// Whether nothing was lost.
    pub complete: bool,
    /// Different stacks that allocated.
    #[serde(default)]
    pub stacks: u64,
    /// Those of them that were unwound to their end.
    #[serde(default)]
    pub whole_stacks: u64,
    /// Blocks allocated on stacks that were unwound to their end; `None` where that was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_allocations: Option<u64>,
    /// Stacks that were not, by [`Ending::word`]; no entry for what did not happen.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cut_stacks: BTreeMap<String, CutStacks>,
}

/// One stack that allocates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Stable within a profile: sixteen hexadecimal digits.
    pub id: String,
    /// Bytes outstanding.
    pub live_bytes: u64,
    /// Blocks outstanding.
    pub live_count: u64,
    /// Bytes allocated in the window.
    pub allocated_bytes: u64,
    /// Blocks allocated in the window.
    pub allocated_count: u64,
    /// Age of the oldest live block, to the resolution of a cohort.
    pub oldest_age_ns: u64,
    /// Growth of the live bytes per second over the window; always finite, 0 where it could not be computed.
    #[serde(serialize_with = "finite")]
    pub growth_bytes_per_s: f64,
    /// Half the width of the interval around each of the site's numbers in which the truth lies in nine cases of ten,
    /// relative to the number; when they are estimates.
    #[serde(default, skip_serializing_if = "is_not_finite")]
    pub estimate_error: Option<f64>,
    /// What leaktrace concludes.
    #[serde(default)]
    pub verdict: Verdict,
    /// Why, in one sentence without a full stop.
    #[serde(default)]
    pub why: String,
    /// Whether anything still points to the blocks.
    #[serde(default)]
    pub reach: Reach,
    /// What points to them: the largest of `holders`, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// All that was found to point to them, by the number of blocks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
    /// Whose heap the blocks are on.
    #[serde(default, skip_serializing_if = "Heap::is_native")]
    pub heap: Heap,
    /// What else there is to say of a site of Go's heap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go: Option<GoSite>,
    /// Where the blocks were allocated.
    pub stack: Stack,
}

/// What leaktrace concludes of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Proven or as good as proven.
    Leak,
    /// Live bytes grow, steadily so far.
    Growing,
    /// Live bytes do not grow.
    Stable,
    /// Nearly everything allocated is freed again.
    Churn,
    /// Too little is known; or a verdict of a version newer than this one.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Whether anything still points to a site's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Nothing reachable points to them.
    Lost,
    /// Something does.
    Reachable,
    /// Not looked at; or an answer of a version newer than this one.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A stack, from the allocating call outwards, allocator frames left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Whether it was unwound to its end.
    pub whole: bool,
    /// How it ended; ask [`Stack::ending`], which does not trust this.
    #[serde(default, skip_serializing_if = "Ending::is_unknown")]
    pub end: Ending,
    /// Frames, innermost first.
    pub frames: Vec<Frame>,
}

/// One function call on a stack. An inlined call shares its address with the frame after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Address in the process: a return address.
    pub address: u64,
    /// Path of the module as the process sees it; `[vdso]`, `[anon]` and the like where there is no file, and
    /// `[perf map]` where a JIT compiler's perf map names the function.
    pub module: String,
    /// The module's build id, hexadecimal.
    pub build_id: Option<String>,
    /// Demangled name.
    pub function: Option<String>,
    /// Offset of the address within the module, as its file counts virtual addresses; a perf map counts as the process
    /// does.
    pub offset: u64,
    /// Source file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Source line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Whether this call was inlined into the next frame.
    #[serde(default)]
    pub inlined: bool,
}

/// Totals at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelinePoint {
    /// Nanoseconds since the start of the window.
    pub at_ns: u64,
    /// Bytes outstanding.
    pub live_bytes: u64,
    /// Blocks outstanding.
    pub live_count: u64,
    /// Resident memory of the process in bytes; 0 when it could not be read.
    pub resident_bytes: u64,
    /// What the Go runtime says of itself, of a Go program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go: Option<GoMoment>,
}

impl Frame {
    /// The demangled name, if there is one that is not blank.
    pub fn name(&self) -> Option<&str> {
        self.function.as_deref().map(str::trim).filter(|name| !name.is_empty())
    }

    /// The last part of the module's path: `libc.so.6`.
    pub fn module_name(&self) -> &str {
        let module = self.module.trim();
        module.rsplit('/').find(|part| !part.is_empty()).unwrap_or("[unknown]")
    }
}

/// JSON has no infinity, and `null` would not read back as a number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn finite<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(if value.is_finite() { *value } else { 0.0 })
}

#[expect(clippy::ref_option, reason = "serde hands references")]
fn is_not_finite(value: &Option<f64>) -> bool {
    value.is_none_or(|value| !value.is_finite())
}
