//! How much of each mapping is in memory: `/proc/PID/smaps`, and `/proc/PID/pagemap` page by page. The parser is pure.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;

use super::files::read_start;
use super::mappings::{Mapping, parse_line};
use super::space::AddressSpace;

/// Most bytes of `/proc/PID/smaps` that are read: some 130,000 mappings, twice the kernel's usual limit.
const MAX_BYTES: u64 = 128 << 20;
/// Most bytes of one of its lines: paths have 4096 at most, and what the kernel escapes four for one.
const MAX_LINE: u64 = 32 << 10;
/// Most threads whose stacks are looked for.
const MAX_THREADS: usize = 1 << 15;
/// Most bytes of what the kernel says of a thread's system call.
const MAX_CALL: u64 = 512;
/// The bit of an entry that says that the page is in memory.
const PRESENT: u64 = 1 << 63;
/// Bytes of an entry.
const ENTRY: u64 = 8;

/// A mapping, and how much of it is in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// The mapping.
    pub mapping: Mapping,
    /// Bytes of it that are in memory.
    pub bytes: u64,
}

impl AddressSpace {
    /// The mappings of this moment and how much of each is in memory, by address. The kernel walks the process's page
    /// tables for it, a few milliseconds for each gigabyte.
    ///
    /// # Errors
    /// The process is gone, may not be looked into, or has more mappings than are read.
    pub fn resident(&self) -> io::Result<Vec<Resident>> {
        let file = File::open(self.directory().join("smaps"))?;
        parse(BufReader::with_capacity(1 << 16, file.take(MAX_BYTES)))
    }

    /// Where the stacks of threads are that wait in the kernel: an address in each. Of a thread that runs nothing is
    /// told.
    pub fn stack_pointers(&self) -> Vec<u64> {
        let tasks = std::fs::read_dir(self.directory().join("task"));
        let tasks = tasks.into_iter().flatten().flatten().take(MAX_THREADS);
        let calls = tasks.filter_map(|task| read_start(&task.path().join("syscall"), MAX_CALL).ok());
        calls.filter_map(|call| stack_pointer(&call)).collect()
    }

    /// Which pages are in memory, page by page.
    ///
    /// # Errors
    /// The process is gone, or may not be looked into.
    pub fn page_map(&self) -> io::Result<PageMap> {
        Ok(PageMap {
            file: File::open(self.directory().join("pagemap"))?,
            page: page_size(),
        })
    }
}

/// Which pages of a process are in memory.
#[derive(Debug)]
pub struct PageMap {
    file: File,
    /// Bytes of a page.
    pub page: u64,
}

impl PageMap {
    /// For each page from that of `start` to that before `end`, whether it is in memory.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn present(&self, start: u64, end: u64) -> io::Result<Vec<bool>> {
        let (first, last) = (start / self.page, end / self.page);
        let mut entries = vec![0; (last.saturating_sub(first) * ENTRY) as usize];
        self.file.read_exact_at(&mut entries, first * ENTRY)?;
        let is_present = |entry: &[u8; 8]| u64::from_le_bytes(*entry) & PRESENT != 0;
        Ok(entries.as_chunks().0.iter().map(is_present).collect())
    }
}

fn page_size() -> u64 {
    // SAFETY: `sysconf` takes no pointers.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as u64
}

fn parse(mut lines: impl BufRead) -> io::Result<Vec<Resident>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/smaps is malformed, or too long");
    let mut found: Vec<Resident> = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(found);
        }
        // The last one is cut off where too much was there to read.
        let text = line.strip_suffix(b"\n").ok_or_else(invalid)?;
        // Names of values begin with a capital, addresses never do.
        if !text.first().is_some_and(u8::is_ascii_uppercase) {
            found.push(Resident {
                mapping: parse_line(text).ok_or_else(invalid)?,
                bytes: 0,
            });
        } else if let Some(value) = text.strip_prefix(b"Rss:") {
            let last = found.last_mut().ok_or_else(invalid)?;
            last.bytes = kibibytes(value).ok_or_else(invalid)?;
        }
    }
}

fn kibibytes(value: &[u8]) -> Option<u64> {
    let number = value.trim_ascii().strip_suffix(b" kB")?;
    let number: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    number.checked_mul(1024)
}

/// Of `0 0x3 … 0x7ffd17700888 0x7fa93e4212ad` the last but one.
fn stack_pointer(call: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(call).ok()?;
    let word = text.split_ascii_whitespace().rev().nth(1)?;
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &[u8] = b"\
c000000000-c000400000 rw-p 00000000 00:00 0                              [anon: Go: heap]\n\
Size:               4096 kB\n\
Rss:                1204 kB\n\
Pss:                1204 kB\n\
VmFlags: rd wr mr mw me ac\n\
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\n\
Rss:                  16 kB\n";

    #[test]
    fn what_is_in_memory_is_read_of_each_mapping() {
        let read = parse(SAMPLE).unwrap();
        let told: Vec<_> = read.iter().map(|one| (one.mapping.start, one.bytes)).collect();
        assert_eq!(told, [(0xc0_0000_0000, 1204 << 10), (0x7ffd_0000_0000, 16 << 10)]);
        assert_eq!(read[0].mapping.path.as_os_str(), "[anon: Go: heap]");
    }

    #[test]
    fn what_is_no_such_list_is_refused() {
        for text in [
            &b"Rss: 12 kB\n"[..],
            b"nonsense\n",
            &SAMPLE[..SAMPLE.len() - 1],
            b"c000000000-c000400000 rw-p 00000000 00:00 0 \nRss: 99999999999999999999 kB\n",
        ] {
            assert!(parse(text).is_err());
        }
        assert_eq!(parse(&b""[..]).unwrap(), []);
    }

    #[test]
    fn stacks_are_found_of_threads_that_wait() {
        assert_eq!(
            stack_pointer(b"0 0x3 0x0 0x7ffd17700888 0x7fa93e4212ad\n"),
            Some(0x7ffd_1770_0888)
        );
        assert_eq!(
            stack_pointer(b"-1 0x7ffd17700888 0x7fa93e4212ad\n"),
            Some(0x7ffd_1770_0888)
        );
        assert_eq!((stack_pointer(b"running\n"), stack_pointer(b"\xff 0x1")), (None, None));
    }

    #[test]
    fn our_own_memory_is_told_page_by_page() {
        let space = AddressSpace::read(std::process::id()).unwrap();
        let page = page_size() as usize;
        let layout = std::alloc::Layout::from_size_align(64 * page, page).unwrap();
        // SAFETY: the layout is not empty; what is written lies within, and it is given back with the same layout.
        let touched = unsafe {
            let memory = std::alloc::alloc(layout);
            assert!(!memory.is_null());
            for number in [0, 3, 63] {
                memory.add(number * page).write_volatile(1);
            }
            let start = memory as u64;
            let present = space.page_map().unwrap().present(start, start + 64 * page as u64);
            std::alloc::dealloc(memory, layout);
            present.unwrap()
        };
        assert_eq!(touched.len(), 64);
        assert!([0, 3, 63].iter().all(|&number: &usize| touched[number]));
        let all: u64 = space.resident().unwrap().iter().map(|one| one.bytes).sum();
        assert!(all > 1 << 20, "{all}");
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(text.as_slice());
            let _ = stack_pointer(&text);
        }
    }
}
