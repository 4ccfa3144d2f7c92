//! `leaktrace inspect`: what a trace of a process would do. Reads what a trace would read, and attaches nothing.
//!
//! `gather` looks, [`Inspection`] is what was seen, `text` writes it for people; as JSON it is the contract
//! `leaktrace.inspect/1`, to which fields are only ever added.

mod code;
mod findings;
mod gather;
mod golang;
mod probing;
mod text;

use std::io::{self, Write as _};

use anyhow::Result;

pub use findings::{
    AllocatorFound, CodeFile, GoPart, GoSeen, Inspection, OtherCode, ProbePlanned, ProcessSeen, SCHEMA, Totals,
    Unwinding,
};

use crate::{cli::PlainFormat, report::terminal};

/// Looks at process `pid` and writes what a trace of it would do to standard output.
///
/// # Errors
/// One line: the process cannot be looked into, or standard output is closed.
pub fn run(pid: u32, format: PlainFormat) -> Result<()> {
    let found = gather::gather(pid)?;
    let written = match format {
        PlainFormat::Text => text::text(&found, terminal::width()),
        PlainFormat::Json => serde_json::to_string_pretty(&found)? + "\n",
    };
    io::stdout().write_all(written.as_bytes())?;
    Ok(())
}
