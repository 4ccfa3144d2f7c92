//! The object with the programs, and its tables, created by aya.

use aya::{Ebpf, EbpfError, EbpfLoader, maps::MapError, programs::ProgramError};

use super::{KernelError, unwind::UnwindLimits};

/// The kernel side as built; see `build.rs`.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/leaktrace"));

/// How much the tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Live blocks.
    pub live: u32,
    /// Sites, the one for overflow included.
    pub sites: u32,
    /// Unwinding tables.
    pub unwind: UnwindLimits,
}

/// Creates the tables.
pub fn create(limits: Limits) -> Result<Ebpf, KernelError> {
    EbpfLoader::new()
        // Nothing is relocated against the kernel's types, so they need not be read.
        .btf(None)
        .map_max_entries("LIVE", limits.live)
        .map_max_entries("SITE_INDEX", limits.sites)
        .map_max_entries("SITES", limits.sites)
        .map_max_entries("UNWIND_ROWS", limits.unwind.elements())
        .map_max_entries("UNWIND_PAGES", limits.unwind.pages)
        .map_max_entries("UNWIND_RULES", limits.unwind.rules)
        .load(OBJECT)
        .map_err(|error| explain(&error))
}

/// What a failure to create the tables means to the user.
fn explain(error: &EbpfError) -> KernelError {
    let io_error = match error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => Some(io_error),
        EbpfError::MapError(MapError::SyscallError(e)) | EbpfError::ProgramError(ProgramError::SyscallError(e)) => {
            Some(&e.io_error)
        }
        _ => None,
    };
    match io_error.and_then(std::io::Error::raw_os_error) {
        Some(libc::EPERM | libc::EACCES) => KernelError::NotPermitted,
        Some(libc::ENOMEM | libc::E2BIG) => KernelError::NoMemory,
        _ => KernelError::Unsupported(one_line(error)),
    }
}

/// An error with its causes, on one line.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}
