//! leaktrace as a library: the rooms of the pipeline, in the order in which data flows through them.
//!
//! `target → probes → kernel → session → profile → symbols → analysis → report`. See `ARCHITECTURE.md`.

pub mod analysis;
#[cfg(test)]
mod architecture;
pub mod cli;
pub mod generate;
pub mod go;
pub mod inspect;
pub mod kernel;
pub mod probes;
pub mod profile;
pub mod report;
pub mod serve;
pub mod session;
pub mod settings;
pub mod symbols;
pub mod target;
pub mod units;
pub mod unwind;
