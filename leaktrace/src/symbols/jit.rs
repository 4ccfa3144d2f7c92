//! Names of code that the program has written itself, from its perf map.
//!
//! The file grows while the program runs, and is written anew by some (Java's `Compiler.perfmap`). It is opened when first
//! seen and held, so that a program that has ended and a file that was removed still give names, and read on from where
//! the last reading ended, a bounded part at a time. What it says is the program's own word: it names nothing but memory
//! that the program fills itself, and never a file's code.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::demangle::demangle;
use super::perf_map::PerfMap;
use crate::target::perf_map::NoPerfMap;
use crate::target::{AddressSpace, Mapping, PerfMapFile, Place, holds_generated};

/// What a frame that was named by a perf map has for a module.
pub const MODULE: &str = "[perf map]";
/// Most bytes read at once.
const PART: usize = 1 << 20;
/// Most bytes read between two reports, at each turn.
const PER_TURN: u64 = 4 << 20;
/// Most bytes read for a report.
const PER_REPORT: u64 = 128 << 20;
/// How much of what was read last is looked at again, to see whether the file was written anew.
const OVERLAP: usize = 64;

/// The names of one process's code.
#[derive(Debug, Default)]
pub struct JitNames {
    /// Known from when the process was last looked at.
    place: Option<PerfMapFile>,
    held: Option<Held>,
    map: PerfMap,
    refused: bool,
    unread: u64,
}

/// A perf map, held open.
#[derive(Debug)]
struct Held {
    file: File,
    identity: (u64, u64),
    /// How far it was read.
    offset: u64,
    /// The last bytes before that.
    last: Vec<u8>,
}

/// What of a perf map was not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unused {
    /// Files that are not to be believed.
    pub files: u64,
    /// Lines that were no entries.
    pub lines: u64,
    /// Entries without room.
    pub entries: u64,
    /// Bytes not read.
    pub bytes: u64,
}

impl JitNames {
    /// Looks for the file, and reads a little on.
    pub fn follow(&mut self, space: &AddressSpace) {
        self.read_on(space, PER_TURN);
    }

    /// Reads all that is there, for a report.
    pub fn catch_up(&mut self, space: &AddressSpace) {
        self.read_on(space, PER_REPORT);
    }

    /// The name of the code at `address`, which lies in `place`. Only what is asked for is demangled: that of a short
    /// name can take long.
    pub fn name_at(&self, place: &Place, address: u64) -> Option<String> {
        let name = is_generated(place).then(|| self.map.name_at(address)).flatten();
        name.map(demangle)
    }

    /// What was not used.
    pub fn unused(&self) -> Unused {
        Unused {
            files: u64::from(self.refused),
            lines: self.map.malformed,
            entries: self.map.left_out,
            bytes: self.unread,
        }
    }

    fn read_on(&mut self, space: &AddressSpace, limit: u64) {
        // Users change, and with them whose file is believed.
        if let Ok(place) = PerfMapFile::of(space) {
            self.place = Some(place);
        }
        let generates = |mapping: &Mapping| mapping.executable && mapping.is_generated();
        if !space.mappings().iter().any(generates) {
            return;
        }
        self.look(space);
        if let Some(held) = &mut self.held {
            self.unread = held.read_on(&mut self.map, limit);
        }
    }

    /// Takes the file that is there now; one that is gone is still held.
    fn look(&mut self, space: &AddressSpace) {
        let found = self.place.as_ref().map(|place| place.open(space));
        self.refused = matches!(found, Some(Err(NoPerfMap::Refused)));
        let Some(Ok(file)) = found else { return };
        let Ok(metadata) = file.metadata() else { return };
        let identity = (metadata.dev(), metadata.ino());
        if self.held.as_ref().is_none_or(|held| held.identity != identity) {
            self.map.restart();
            self.held = Some(Held {
                file,
                identity,
                offset: 0,
                last: Vec::new(),
            });
        }
    }
}

/// Whether a place is in memory that the program has filled itself.
pub fn is_generated(place: &Place) -> bool {
    place.module.is_none() && holds_generated(place.name.as_bytes())
}

impl Held {
    /// Feeds at most `limit` bytes to `map`, and says how many are left.
    fn read_on(&mut self, map: &mut PerfMap, limit: u64) -> u64 {
        if !self.is_continued() {
            self.offset = 0;
            self.last.clear();
            map.restart();
        }
        let mut part = vec![0; PART];
        let mut left = limit;
        while left > 0 {
            let most = part.len().min(left as usize);
            let room = part.get_mut(..most).unwrap_or_default();
            let read = self.file.read_at(room, self.offset).unwrap_or(0);
            let Some(text) = part.get(..read).filter(|text| !text.is_empty()) else {
                break;
            };
            map.feed(text);
            self.remember(text);
            left = left.saturating_sub(read as u64);
        }
        self.size().saturating_sub(self.offset)
    }

    fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Whether what was read last is still there.
    fn is_continued(&self) -> bool {
        let mut now = vec![0; self.last.len()];
        let from = self.offset.saturating_sub(now.len() as u64);
        self.file.read_exact_at(&mut now, from).is_ok() && now == self.last
    }

    fn remember(&mut self, text: &[u8]) {
        self.offset = self.offset.saturating_add(text.len() as u64);
        self.last
            .extend_from_slice(text.get(text.len().saturating_sub(OVERLAP)..).unwrap_or_default());
        let surplus = self.last.len().saturating_sub(OVERLAP);
        self.last.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn held(path: &std::path::Path) -> Held {
        Held {
            file: File::open(path).unwrap(),
            identity: (0, 0),
            offset: 0,
            last: Vec::new(),
        }
    }

    #[test]
    fn reads_on_where_it_ended_and_anew_what_was_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("perf-1.map");
        std::fs::write(&path, "1000 10 first\n2000 1").unwrap();
        let (mut map, mut held) = (PerfMap::default(), held(&path));
        assert_eq!(held.read_on(&mut map, 1 << 20), 0);
        assert_eq!((map.name_at(0x1000), map.name_at(0x2000)), (Some("first"), None));
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"0 second\n").unwrap();
        held.read_on(&mut map, 1 << 20);
        assert_eq!(map.name_at(0x2000), Some("second"));
        for text in ["1000 10 a\n", "1000 10 longer than before by a good deal\n2000 10 b\n"] {
            std::fs::write(&path, text).unwrap();
            held.read_on(&mut map, 1 << 20);
            let name = text.lines().next().unwrap().split_once(" 10 ").unwrap().1;
            assert_eq!(map.name_at(0x1000), Some(name));
        }
        std::fs::remove_file(&path).unwrap();
        held.read_on(&mut map, 1 << 20);
        assert_eq!((map.name_at(0x2000), map.malformed), (Some("b"), 0));
    }

    #[test]
    fn a_huge_file_is_read_a_part_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("perf-1.map");
        let size = 1 << 40;
        File::create(&path).unwrap().set_len(size).unwrap();
        let (mut map, mut held) = (PerfMap::default(), held(&path));
        let started = std::time::Instant::now();
        assert_eq!(held.read_on(&mut map, PER_TURN), size - PER_TURN);
        assert_eq!(held.read_on(&mut map, PER_TURN), size - 2 * PER_TURN);
        assert!(started.elapsed().as_secs() < 10);
    }

    #[test]
    fn nothing_but_memory_that_the_program_fills_is_named() {
        let mut names = JitNames::default();
        names
            .map
            .feed(b"1000 800 f\n1800 800 _ZN3foo3barEi\x1b\n2000 10 _ZN3foo3barEi\n");
        let place = |name: &str| Place {
            module: None,
            offset: 0,
            name: name.into(),
        };
        for name in ["[anon]", "[anon:JSC]", "/memfd:doublemapper", "/dev/zero"] {
            assert_eq!(names.name_at(&place(name), 0x1000).as_deref(), Some("f"), "{name}");
        }
        for name in ["[vdso]", "[stack]", "[heap]", "/usr/lib/libc.so.6", "[uprobes]"] {
            assert_eq!(names.name_at(&place(name), 0x1000), None, "{name}");
        }
        let shown = |address| names.name_at(&place("[anon]"), address);
        assert_eq!(shown(0x1800).as_deref(), Some("_ZN3foo3barEi\\u{1b}"));
        assert_eq!(shown(0x2000).as_deref(), Some("foo::bar(int)"));
    }
}
