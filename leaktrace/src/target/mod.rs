//! The traced process as seen from outside: its ELF images, and starting it held.

pub mod elf;
pub mod launch;
