//! What a profile says of a Go program: its heap as leaktrace estimates it, and what the runtime says of itself.

use serde::{Deserialize, Serialize};

use super::{Stack, goroutines::GoProgram};

/// Whose heap a site's blocks are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Heap {
    /// That of a native allocator: every block is seen, and the numbers are exact.
    #[default]
    Native,
    /// That of Go's runtime: objects are sampled, and the numbers are estimates.
    Go,
}

impl Heap {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
    pub(super) fn is_native(&self) -> bool {
        *self == Self::Native
    }
}

/// What there is to say of a site of Go's heap besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoSite {
    /// Objects sampled since the attach: what the allocated numbers go by.
    pub samples: u64,
    /// Those of them that are live: what the live numbers go by.
    pub live_samples: u64,
    /// Bytes of objects too young to be judged, an estimate: fewer than two collections have begun since they were
    /// allocated. They are part of the live bytes as far as older objects of the site have turned out to be live.
    pub young_bytes: u64,
    /// Objects of those.
    pub young_count: u64,
}

/// The Go part of a profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GoHeap {
    /// The program.
    pub program: GoProgram,
    /// Objects sampled since the attach.
    pub samples: u64,
    /// Those of them that are live.
    pub live_samples: u64,
    /// Bytes allocated since the attach: an estimate, as all that is not said to be the runtime's own.
    pub allocated_bytes: u64,
    /// Objects allocated since the attach.
    pub allocated_count: u64,
    /// Bytes of those that are live.
    pub live_bytes: u64,
    /// Objects of those.
    pub live_count: u64,
    /// Bytes of objects too young to be judged.
    pub young_bytes: u64,
    /// Objects of those.
    pub young_count: u64,
    /// Bytes of objects that were judged and are not live.
    #[serde(default)]
    pub garbage_bytes: u64,
    /// As in a site, for the live bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_error: Option<f64>,
    /// Collections that have ended since the attach, as the runtime counts them.
    pub collections: u64,
    /// Bytes allocated since the attach, as the runtime counts them; none where that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_bytes: Option<u64>,
    /// The runtime at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<GoMoment>,
    /// Go's own heap profile, where the program has it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_profile: Option<OwnProfile>,
    /// Where the resident memory of the process is; the parts add up to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<MemoryPart>,
}

/// What the Go runtime says of itself at one moment: its own numbers, no estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoMoment {
    /// Bytes of the heap that were live at the last collection, and all that was allocated since.
    pub heap_live_bytes: u64,
    /// Bytes at which the next collection is to be done.
    pub heap_goal_bytes: u64,
    /// Collections since the program began.
    pub collections: u64,
    /// Nanoseconds for which collections stopped the program, since it began.
    pub pause_ns: u64,
    /// Goroutines, as `runtime.NumGoroutine` counts them; none where they were not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goroutines: Option<u64>,
}

/// A part of the resident memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPart {
    /// What it is, in a few words.
    pub what: String,
    /// Resident bytes.
    pub bytes: u64,
}

/// Go's own heap profile: since the process began, sampled at the program's rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnProfile {
    /// Mean bytes between two samples (`runtime.MemProfileRate`).
    pub rate: u64,
    /// Its sites, by live bytes, largest first.
    pub sites: Vec<OwnSite>,
}

/// A site of Go's own heap profile, as of the last collection but one; scaled up to all objects, as Go's own tools do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnSite {
    /// Bytes in use.
    pub live_bytes: u64,
    /// Objects in use.
    pub live_count: u64,
    /// Bytes allocated since the program began.
    pub allocated_bytes: u64,
    /// Objects allocated since the program began.
    pub allocated_count: u64,
    /// Objects sampled.
    pub samples: u64,
    /// Where they were allocated.
    pub stack: Stack,
}

/// What holds blocks of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The root: a variable, a goroutine's stack, a finalizer.
    pub root: String,
    /// The way from the root to the block: types or sites where they are known, else sizes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// How many of the blocks looked for it holds.
    pub held: u64,
    /// How many were looked for.
    pub of: u64,
}
