//! Goroutines of a Go process: plain data, and its JSON form, the contract `leaktrace.goroutines/1`. Fields are only ever
//! added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Frame, Stack, TargetInfo, Tool, Window};

/// The schema this version writes.
pub const SCHEMA: &str = "leaktrace.goroutines/1";

/// The goroutines of a process at the end of a window of time, and how they came to be so many.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Goroutines {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Who wrote it.
    pub tool: Tool,
    /// Whose they are.
    pub target: TargetInfo,
    /// What runs them.
    pub go: GoProgram,
    /// When.
    pub window: Window,
    /// How many there are, without those that the runtime has for itself.
    pub count: u64,
    /// How many there were at the beginning.
    pub first_count: u64,
    /// What `runtime.NumGoroutine` would say: it leaves out the runtime's own also while they run functions of the program.
    pub num_goroutine: u64,
    /// How many the runtime has for itself.
    pub system: u64,
    /// How many are in each state, or wait for each reason, as Go prints them.
    pub states: BTreeMap<String, u64>,
    /// How many run each function, by name.
    pub starts: BTreeMap<String, u64>,
    /// By the `go` statement that made them; the most first.
    pub sites: Vec<CreationSite>,
    /// By what they are doing; the most first.
    pub stacks: Vec<GoroutineStack>,
    /// How many there were over time.
    pub timeline: Vec<GoroutineCount>,
    /// What was found out about goroutines that wait for ever, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaks: Option<Leaks>,
    /// What could not be told, by reason; no entry for what did not happen.
    pub lost: BTreeMap<String, u64>,
    /// How far each return address of the stacks is from the beginning of its function. Not part of the contract.
    #[serde(skip)]
    pub offsets: BTreeMap<u64, u64>,
}

/// The Go program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoProgram {
    /// `go1.27.3`.
    pub version: String,
    /// Experiments that it was built with, where they differ from the version's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub experiments: Vec<String>,
    /// `exe`, `pie` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_mode: Option<String>,
    /// The version whose layout is used, where the program's own is not known: the checks against the process have been
    /// passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout_of: Option<String>,
    /// Where the layout of the runtime's structures is known from: `debug_info` (the program's own), `version`, or
    /// `nearest_version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout_from: Option<String>,
}

/// A `go` statement, and the goroutines that it made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreationSite {
    /// Tells it from others, also at another moment of the same process: sixteen hexadecimal digits.
    pub id: String,
    /// Where it is, innermost call first; empty if the runtime itself made them.
    pub created_by: Vec<Frame>,
    /// The function that they run.
    pub start: String,
    /// Where that begins. Not part of the contract.
    #[serde(skip)]
    pub start_address: u64,
    /// How many there are.
    pub count: u64,
    /// How many there were at the beginning.
    pub first_count: u64,
    /// How many of them are proven to wait for ever.
    #[serde(default)]
    pub leaked: u64,
    /// How many are in each state.
    pub states: BTreeMap<String, u64>,
    /// The least time that the one has waited which has waited longest: since a garbage collection first saw it wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_wait_ns: Option<u64>,
}

/// Goroutines that were made by one statement and do the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GoroutineStack {
    /// How many.
    pub count: u64,
    /// What they are doing.
    pub state: String,
    /// Which of the sites made them, counted from 0.
    pub site: usize,
    /// How many of them are proven to wait for ever.
    #[serde(default)]
    pub leaked: u64,
    /// What some of those wait for: `channel 0xc000012345`, `semaphore 0xc000012345`, or `nothing`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_on: Vec<String>,
    /// As for a site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_wait_ns: Option<u64>,
    /// Where they are; no frames of one that is running.
    pub stack: Stack,
    /// Each of them. Not part of the contract.
    #[serde(skip)]
    pub each: Vec<Single>,
}

/// One goroutine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Single {
    /// Its number, as in Go's own traces.
    pub id: u64,
    /// The number of the one that made it; 0 where that is not known.
    pub parent: u64,
    /// The least time that it has waited: since a garbage collection first saw it wait.
    pub waited_ns: Option<u64>,
    /// Whether it is proven to wait for ever.
    pub leaked: bool,
}

/// Goroutines that nothing can wake: neither a variable nor a goroutine that can go on leads to what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaks {
    /// How many were found so in both of two looks: proven. There may be more.
    pub proven: u64,
    /// How many wait for channels, mutexes or wait groups, and so could be judged.
    pub examined: u64,
    /// Bytes of the heap that were looked through.
    pub heap_bytes: u64,
    /// Bytes of heap, variables and stacks that could not be read: what they lead to is not known.
    pub unreadable_bytes: u64,
}

/// How many goroutines there were at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoroutineCount {
    /// Nanoseconds since the start of the window.
    pub at_ns: u64,
    /// How many, without the runtime's own.
    pub count: u64,
}
