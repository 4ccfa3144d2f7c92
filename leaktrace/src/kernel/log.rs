//! The kernel side's debug lines, on standard error when asked for. They tell of what is rare and odd.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use super::{KernelError, object::one_line};

/// Name of the variable by which the kernel side knows which lines are wanted.
pub const LEVEL: &str = aya_log::LEVEL;

/// The number of a level, as that variable counts: 0 for none, 4 for debug lines.
pub fn level(verbose: bool) -> u8 {
    if verbose { log::Level::Debug as u8 } else { 0 }
}

/// Reads the lines.
pub struct Lines(EbpfLogger<Stderr>);

impl Lines {
    /// Takes the lines' buffer from `ebpf`.
    pub fn of(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let logger = EbpfLogger::init_with_logger(ebpf, Stderr);
        Ok(Self(logger.map_err(|e| KernelError::Table(one_line(&e)))?))
    }

    /// Prints what has come since.
    pub fn print(&mut self) {
        self.0.flush();
    }
}

/// Prints every line that it is given: the kernel side has chosen.
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        eprintln!("leaktrace: kernel side: {}", record.args());
    }

    fn flush(&self) {}
}
