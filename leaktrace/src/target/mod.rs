//! The process that is looked at: what it is, what it has mapped, and the files behind that.
//!
//! Reads `/proc` and files of the target; attaches nothing and changes nothing. Everything read here is under the
//! target's control, so every read is bounded and only regular files are opened.

mod compressed;
pub mod elf;
pub(crate) mod files;
pub mod headers;
mod language;
pub mod launch;
mod links;
pub mod mappings;
pub mod memory;
pub mod module;
pub mod perf_map;
mod printable;
pub mod process;
pub mod resident;
pub mod space;
#[cfg(test)]
pub(crate) mod test_programs;

pub use compressed::is_compressed;
pub use files::Root;
pub use headers::ElfHeaders;
pub use mappings::{Mapping, holds_generated, read_mappings};
pub use module::Module;
pub use perf_map::PerfMapFile;
pub use printable::printable;
pub use process::{Process, Program, Seccomp, TargetError};
pub use space::{AddressSpace, Era, Place};
