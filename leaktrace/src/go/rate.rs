//! The rate at which Go's own heap profile samples, set from outside for a time. The only thing that leaktrace ever writes
//! into a process, and only when asked.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;

use super::bytes::u64_at;
use super::runtime::Runtime;

/// Why the rate is not set.
#[derive(Debug, thiserror::Error)]
pub enum RateError {
    /// The profile was not found.
    #[error("its own heap profile was not found")]
    NotFound,
    /// The linker has left the profile out.
    #[error(
        "its linker has switched its own heap profile off, as nothing in it asks for one; leaktrace's own samples need none"
    )]
    Off,
    /// Its memory cannot be read or written.
    #[error("its memory cannot be written: {0}")]
    Refused(#[from] io::Error),
}

/// The rate as it was. Dropping it puts that back, if it is still the one that was set.
#[derive(Debug)]
pub struct Rate {
    /// Stays that of the program, also when the process replaces it.
    memory: File,
    address: u64,
    before: u64,
    now: u64,
}

impl Rate {
    /// Sets the rate of a process to one sample for `rate` bytes.
    ///
    /// # Errors
    /// There is nothing to be set, or it may not be.
    pub fn set(runtime: &Runtime, rate: u64) -> Result<Self, RateError> {
        let places = runtime.globals.own_profile.ok_or(RateError::NotFound)?;
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{}/mem", runtime.memory.pid))?;
        let mut switch = [0];
        if let Some(address) = places.disabled {
            memory.read_exact_at(&mut switch, address)?;
        }
        if switch != [0] {
            return Err(RateError::Off);
        }
        let before = read(&memory, places.rate)?;
        memory.write_all_at(&rate.to_ne_bytes(), places.rate)?;
        Ok(Self {
            memory,
            address: places.rate,
            before,
            now: rate,
        })
    }

    /// What it was before.
    pub fn before(&self) -> u64 {
        self.before
    }
}

impl Drop for Rate {
    fn drop(&mut self) {
        if read(&self.memory, self.address).is_ok_and(|rate| rate == self.now) {
            // A process that has ended has nothing to be put back.
            let _ = self.memory.write_all_at(&self.before.to_ne_bytes(), self.address);
        }
    }
}

fn read(memory: &File, address: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, address)?;
    u64_at(&bytes, 0).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
