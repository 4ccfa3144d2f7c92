//! Tables against gimli, `step` against framehop, and both against damaged files.

mod captured;
mod frames;
mod hostile;
mod made;
mod oracle;
mod process;
mod rows;

/// Eight bytes that a made-up memory has at an address: high enough to lie above every made-up stack pointer.
fn word_at(address: u64) -> u64 {
    let mixed = address.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    0x7F00_0000_0000 | (mixed >> 24 & 0xFF_FFFF_FFF8)
}
