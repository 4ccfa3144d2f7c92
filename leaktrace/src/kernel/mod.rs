//! The kernel side, from userspace: the only room that knows aya and bpf(2).
//!
//! [`Tracer`] loads the programs and tables, attaches probes, and reads totals and events. It knows nothing of
//! symbols, reports or time.

mod btf;
mod events;
mod link;
mod log;
mod object;
mod perf;
mod shared;
mod tables;
mod tracer;
mod unwind;

pub use events::{Event, SpanEvent};
pub use object::Limits;
pub use tables::CounterValues;
pub use tracer::{AttachPoint, LoadedProgram, Tracer, Way};
pub use unwind::{PlacedPages, UnwindLimits, UnwindTables};

use std::io;

/// Why the kernel side cannot work. Each message says what, why and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// bpf(2) is refused.
    #[error("not permitted to load BPF programs: run leaktrace as root (sudo leaktrace …)")]
    NotPermitted,
    /// The kernel is too old or built without what is needed.
    #[error(
        "this kernel cannot load leaktrace's programs ({0}): Linux 5.17 or newer with CONFIG_BPF_SYSCALL, \
         CONFIG_UPROBES and CONFIG_DEBUG_INFO_BTF is needed"
    )]
    Unsupported(String),
    /// No memory for the tables.
    #[error("no kernel memory for the tables of leaktrace: lower --max-live or --max-stacks")]
    NoMemory,
    /// A probe could not be placed.
    #[error("cannot place probes in {path}: {source}; the process runs on untouched")]
    Attach {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The process went away.
    #[error("process {0} ended before it could be traced")]
    Gone(u32),
    /// A table could not be read.
    #[error("cannot read leaktrace's own tables: {0}")]
    Table(String),
}
