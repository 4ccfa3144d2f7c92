//! leaktrace as a library: the rooms of the pipeline, in the order in which data flows through them.
//!
//! `target → probes → kernel → session → profile → symbols → analysis → report`. See `ARCHITECTURE.md`.

pub mod cli;
pub mod kernel;
pub mod profile;
pub mod unwind;
