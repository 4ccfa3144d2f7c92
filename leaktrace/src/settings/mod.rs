//! What the flags mean: texts from the command line turned into validated values.
//!
//! Pure: reads no file, no clock and no environment.

pub mod size;
