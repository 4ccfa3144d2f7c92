//! The object with the programs, and its tables, created by aya.

use aya::{Ebpf, EbpfError, EbpfLoader, maps::MapError, programs::ProgramError};

use leaktrace_common::blocks::WAYS;

use super::{KernelError, log, unwind::UnwindLimits};

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
    /// Whether Go's heap is traced.
    pub go: bool,
}

/// Bytes of the buffer for records of Go's heap: ten seconds of a program that allocates half a million objects a
/// second; and the least there can be.
const SPANS: u32 = 32 << 20;
const NO_SPANS: u32 = 4096;

/// Most buckets of the near part of the live table: 128 MiB.
const MOST_BUCKETS: u32 = 1 << 19;
/// Fewer live blocks than this need no near part.
const FEW: u32 = 4096;

impl Limits {
    /// Buckets of the near part of the live table: room for a quarter of the live blocks or less, and a power of two.
    /// Its memory, 32 bytes for a block, is taken from the start.
    pub fn buckets(self) -> u32 {
        if self.live < FEW {
            return 0;
        }
        let wanted = self.live / 4 / WAYS as u32;
        (1 << wanted.ilog2()).min(MOST_BUCKETS)
    }

    /// Room in its far part: all that the near part leaves.
    fn far(self) -> u32 {
        self.live - self.buckets() * WAYS as u32
    }
}

/// Creates the tables. `verbose` turns the kernel side's debug lines on.
pub fn create(limits: Limits, verbose: bool) -> Result<Ebpf, KernelError> {
    EbpfLoader::new()
        // Nothing is relocated against the kernel's types, so they need not be read.
        .btf(None)
        .override_global(log::LEVEL, &log::level(verbose), true)
        .map_max_entries("LIVE", limits.far())
        .map_max_entries("NEAR", limits.buckets().max(1))
        .map_max_entries("SITE_INDEX", limits.sites)
        .map_max_entries("SITES", limits.sites)
        .map_max_entries("SPANS", if limits.go { SPANS } else { NO_SPANS })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn live(live: u32) -> Limits {
        Limits {
            live,
            sites: 2,
            unwind: UnwindLimits::DEFAULT,
            go: false,
        }
    }

    #[test]
    fn both_parts_together_hold_what_is_asked_for() {
        for limit in [1, 100, 4095, 4096, 5000, 4_194_304, 12_000_000, 1 << 30] {
            let limits = live(limit);
            assert_eq!(limits.far() + limits.buckets() * WAYS as u32, limit);
            assert!(limits.far() >= limit / 2, "{limit}");
        }
    }

    #[test]
    fn buckets_are_a_power_of_two_or_none() {
        assert_eq!(live(100).buckets(), 0);
        assert_eq!(live(4096).buckets(), 128);
        assert_eq!(live(4_194_304).buckets(), 1 << 17);
        assert_eq!(live(1 << 30).buckets(), MOST_BUCKETS);
        assert!(live(5_000_000).buckets().is_power_of_two());
    }
}
