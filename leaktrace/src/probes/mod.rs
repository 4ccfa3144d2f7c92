//! Which functions are probed, and where: the catalogue of allocators (data) and the plan made from it.
//!
//! Pure: reads no process, no file and no clock. The caller hands in parsed images.

pub mod catalogue;
pub mod decode;
pub mod exits;
pub mod plan;
