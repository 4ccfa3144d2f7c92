//! Reading the stack a window at a time: a word costs nearly as much to read as a kibibyte.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use leaktrace_common::unwind::Memory;

const WORDS: usize = 128;
const BYTES: u64 = 8 * WORDS as u64;
const PAGE: u64 = 4096;

/// The part of the stack that was read last.
#[repr(C)]
pub struct Window {
    start: u64,
    /// Bytes that were read.
    length: u64,
    words: [u64; WORDS],
}

impl Window {
    /// Forgets what was read.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Reads from `address` on: a whole window, or up to the end of its page where the next one cannot be read.
    #[inline(never)]
    fn fill(&mut self, address: u64) -> u64 {
        let start = address & !7;
        let to_page_end = (PAGE - (start & (PAGE - 1))) & (2 * BYTES - 1);
        self.length = 0;
        if read(&mut self.words, BYTES as u32, start) {
            self.length = BYTES;
        } else if to_page_end < BYTES && read(&mut self.words, to_page_end as u32, start) {
            self.length = to_page_end;
        }
        self.start = start;
        self.length
    }
}

impl Memory for Window {
    #[inline(always)]
    fn word(&mut self, address: u64) -> Option<u64> {
        let mut offset = address.wrapping_sub(self.start);
        if offset.wrapping_add(8) > self.length || offset > BYTES {
            if self.fill(address) == 0 {
                return None;
            }
            offset = address.wrapping_sub(self.start);
        }
        // SAFETY: the index is masked to the array's length. Stacks are aligned to words; an address that is not reads
        // the word that it lies in.
        Some(unsafe { *self.words.as_ptr().add((offset >> 3) as usize & (WORDS - 1)) })
    }
}

#[inline(always)]
fn read(words: &mut [u64; WORDS], length: u32, address: u64) -> bool {
    // SAFETY: the buffer has the length given at most; the helper checks the address.
    unsafe { bpf_probe_read_user(words.as_mut_ptr().cast::<c_void>(), length, address as *const c_void) == 0 }
}
