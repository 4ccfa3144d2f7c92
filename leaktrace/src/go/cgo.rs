//! Programs with C in them: the runtime maps its memory through C's `mmap` there, and what it maps is its own. Pure.

use iced_x86::{Decoder, DecoderOptions, FlowControl};

use super::locate::{instructions, load};
use super::pclntab::Table;
use super::words::Words;

/// Functions of the runtime that call into C to map and unmap memory.
const CALLERS: [&str; 2] = ["runtime.callCgoMmap", "runtime.callCgoMunmap"];
/// Longest C function that is believed to be what they call: a few dozen bytes, as a rule.
const MAX_CODE: u64 = 512;

/// The C functions through which the runtime maps memory: from the first byte to the end of the return, as the file counts
/// addresses. None in programs without C.
pub fn mapping_code(table: &Table, words: &Words<'_>) -> Vec<(u64, u64)> {
    let functions = CALLERS.iter().filter_map(|caller| {
        let code = instructions(table, words, caller)?;
        let start = words.word(code.iter().find_map(|each| load(each, 8))?)?;
        Some((start, end(words, start)?))
    });
    functions.collect()
}

/// The end of the first return of the function at `start`.
fn end(words: &Words<'_>, start: u64) -> Option<u64> {
    let code = words.bytes(start, MAX_CODE)?;
    let mut decoder = Decoder::with_ip(64, &code, start, DecoderOptions::NONE);
    let last = decoder.iter().find(|each| each.flow_control() == FlowControl::Return)?;
    Some(last.next_ip())
}
