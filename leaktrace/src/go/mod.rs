//! The Go runtime, read from outside: what Go's linker left in the file, and what the runtime keeps in memory.
//!
//! Go programs are stripped as a habit, and the runtime cannot work without its tables: so these are what is used, not
//! symbols. Everything here is the target's, and may be damaged or made to deceive: reads are bounded, and what does
//! not fit together is refused.

mod buildinfo;
pub mod bytes;
mod debug_info;
mod goroutines;
pub mod layout;
mod layout_found;
mod locate;
mod memory;
mod moduledata;
pub mod pclntab;
pub mod probe_sites;
mod program;
pub mod reach;
mod runtime;
mod stack;
mod words;

pub use buildinfo::BuildInfo;
pub use goroutines::{Goroutine, Snapshot, State};
pub use layout::Source as LayoutSource;
pub use moduledata::ModuleData;
pub use program::Program;
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
mod tests;
