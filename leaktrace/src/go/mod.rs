//! The Go runtime, read from outside: what Go's linker left in the file, and what the runtime keeps in memory.
//!
//! Go programs are stripped as a habit, and the runtime cannot work without its tables: so these are what is used, not
//! symbols. Everything here is the target's, and may be damaged or made to deceive: reads are bounded, and what does
//! not fit together is refused.

pub mod bytes;
mod moduledata;
pub mod pclntab;
mod program;
mod words;

pub use moduledata::ModuleData;
pub use program::Program;

#[cfg(test)]
pub(crate) mod test_programs;
#[cfg(test)]
mod tests;
