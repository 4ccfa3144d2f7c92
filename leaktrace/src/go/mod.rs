//! The Go runtime, read from outside: what Go's linker left in the file, and what the runtime keeps in memory.
//!
//! Go programs are stripped as a habit, and the runtime cannot work without its tables: so these are what is used, not
//! symbols. Everything here is the target's, and may be damaged or made to deceive: reads are bounded, and what does
//! not fit together is refused.

mod buildinfo;
pub mod bytes;
mod cgo;
mod count;
mod debug_info;
mod goroutines;
pub mod heap;
pub mod layout;
mod layout_found;
mod locate;
mod memory;
mod memory_parts;
mod moduledata;
mod moment;
mod own_profile;
pub mod pclntab;
mod probe_sites;
mod program;
mod rate;
pub mod reach;
mod runtime;
mod stack;
mod words;

pub use buildinfo::BuildInfo;
pub use count::Counter;
pub use goroutines::{Goroutine, Snapshot, State};
pub use layout::Source as LayoutSource;
pub use memory_parts::memory_parts;
pub use moduledata::ModuleData;
pub use moment::{Moment, Pause};
pub use own_profile::{Sampled, SampledSite};
pub use probe_sites::{HeapProbes, NoProbe};
pub use program::Program;
pub use rate::{Rate, RateError};
pub use runtime::{GoError, Runtime};
pub use stack::Chains;

use crate::target::printable;

/// A function's name as Go prints it, safe to show.
pub fn shown(name: &[u8]) -> String {
    printable(pclntab::shown(&String::from_utf8_lossy(name)).as_bytes())
}

#[cfg(test)]
pub(crate) mod test_programs;
#[cfg(test)]
pub(crate) mod test_told;
#[cfg(test)]
mod tests;
