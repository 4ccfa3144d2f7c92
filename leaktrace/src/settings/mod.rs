//! What the flags mean: texts from the command line turned into validated values.
//!
//! Pure: reads no file, no clock and no environment.

mod goroutines;
mod serve;
pub mod size;
mod trace;

pub use goroutines::GoroutinesSettings;
pub use serve::ServeSettings;
pub use trace::{Subject, TraceSettings, process_id};

/// The command line does not make sense; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}; see leaktrace --help")]
pub struct UsageError(pub anyhow::Error);
