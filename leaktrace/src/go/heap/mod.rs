//! Go's heap by stack, by samples: one object of each span that the runtime hands out to be filled.
//!
//! `samples.rs` keeps the samples as the kernel side tells of spans, `weights.rs` knows for how many objects each stands,
//! `estimate.rs` what that says of all: they are pure. `liveness.rs` asks the marks of the
//! process's own garbage collector which of them are live. The process is never stopped, and nothing of it is changed.

mod estimate;
mod liveness;
mod samples;
mod span;
mod weights;

pub use estimate::Estimate;
pub use liveness::Judge;
pub use samples::{HandedOut, Samples, SiteEstimate, Verdict};
pub use span::Span;

/// State of a span that holds objects (`runtime.mSpanInUse`).
pub const IN_USE: u8 = 1;
/// Bytes of a page of the heap.
pub const PAGE: u64 = 8192;
