//! The text of a perf map: what a JIT compiler calls the code that it has written. Pure.
//!
//! Lines of `START SIZE NAME`, the numbers hexadecimal, as `perf` reads them. Code is written over and over at the same
//! addresses: a later line takes them from earlier ones. The text is someone else's, so all that is kept of it is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Most ranges kept.
const MAX_RANGES: usize = 1 << 20;
/// Most bytes of names kept.
const MAX_NAMES: usize = 256 << 20;
/// Most bytes of a line that are looked at.
const MAX_LINE: usize = 4096;

/// Names by address.
#[derive(Debug)]
pub struct PerfMap {
    /// By the first address; ranges do not overlap.
    ranges: BTreeMap<u64, Range>,
    max_ranges: usize,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    name_bytes: usize,
    /// Lines that were no entries.
    pub malformed: u64,
    /// Entries that found no room.
    pub left_out: u64,
}

#[derive(Clone, Debug)]
struct Range {
    end: u64,
    name: Arc<str>,
}

impl Default for PerfMap {
    fn default() -> Self {
        Self {
            ranges: BTreeMap::new(),
            max_ranges: MAX_RANGES,
            partial: Vec::new(),
            name_bytes: 0,
            malformed: 0,
            left_out: 0,
        }
    }
}

impl PerfMap {
    /// Takes in the next part of the text, which may begin and end anywhere.
    pub fn feed(&mut self, mut text: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', text) {
            let (line, rest) = (text.get(..end).unwrap_or_default(), text.get(end + 1..));
            self.extend_line(line);
            self.end_line();
            text = rest.unwrap_or_default();
        }
        self.extend_line(text);
    }

    /// Forgets a line whose end has not come: what follows is the text from its beginning.
    pub fn restart(&mut self) {
        self.partial.clear();
    }

    /// The name of the code at `address`, as the text has it.
    pub fn name_at(&self, address: u64) -> Option<&str> {
        let (_, range) = self.ranges.range(..=address).next_back()?;
        (address < range.end).then_some(&*range.name)
    }

    fn extend_line(&mut self, part: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.partial.len());
        self.partial
            .extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        // Of a line that was cut there are all numbers, and the beginning of the name, or it is no entry.
        match parse(&line) {
            Some((start, end, name)) => self.insert(start, end, name),
            None => self.malformed += u64::from(!line.trim_ascii().is_empty()),
        }
        self.partial = line;
        self.partial.clear();
    }

    fn insert(&mut self, start: u64, end: u64, name: &[u8]) {
        self.cut(start, end);
        let name: Arc<str> = String::from_utf8_lossy(name).into();
        if self.ranges.len() >= self.max_ranges || self.name_bytes + name.len() > MAX_NAMES {
            self.left_out += 1;
            return;
        }
        self.name_bytes += name.len();
        self.ranges.insert(start, Range { end, name });
    }

    /// Keeps what is left of a range behind code that was written into it, if there is room: else every line could add
    /// one.
    fn keep_tail(&mut self, start: u64, tail: Range) {
        if self.ranges.len() < self.max_ranges {
            self.ranges.insert(start, tail);
        } else {
            self.left_out += 1;
        }
    }

    /// Takes `start..end` from the ranges: it is other code now.
    fn cut(&mut self, start: u64, end: u64) {
        if let Some((_, before)) = self.ranges.range_mut(..start).next_back()
            && before.end > start
        {
            let tail = Range {
                end: before.end,
                name: Arc::clone(&before.name),
            };
            before.end = start;
            if tail.end > end {
                self.keep_tail(end, tail);
                return;
            }
        }
        while let Some((&at, _)) = self.ranges.range(start..end).next() {
            let Some(range) = self.ranges.remove(&at) else { return };
            if range.end > end {
                self.ranges.insert(end, range);
            } else if Arc::strong_count(&range.name) == 1 {
                self.name_bytes = self.name_bytes.saturating_sub(range.name.len());
            }
        }
    }
}

/// First address, address after the last, and name. Code without a size covers no address, and is no entry.
fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut fields = line.trim_ascii().splitn(3, |&byte| byte == b' ');
    let start = number(fields.next()?)?;
    let size = number(fields.next()?)?;
    let name = fields.next()?.trim_ascii();
    let end = start.checked_add(size)?;
    (size > 0 && !name.is_empty()).then_some((start, end, name))
}

/// A hexadecimal number; some write `0x` before it, which `perf` takes too.
fn number(digits: &[u8]) -> Option<u64> {
    let digits = digits.strip_prefix(b"0x").unwrap_or(digits);
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn map(text: &str) -> PerfMap {
        let mut map = PerfMap::default();
        map.feed(text.as_bytes());
        map
    }

    #[test]
    fn names_with_spaces_cover_their_addresses_alone() {
        let map = map("1000 20 JS:*make /srv/app.js:3:21\n0x2000 0x10 LFoo;::bar\n");
        assert_eq!(map.name_at(0xfff), None);
        assert_eq!(map.name_at(0x1000), Some("JS:*make /srv/app.js:3:21"));
        assert_eq!(map.name_at(0x101f), Some("JS:*make /srv/app.js:3:21"));
        assert_eq!(map.name_at(0x1020), None);
        assert_eq!(map.name_at(0x2008), Some("LFoo;::bar"));
        assert_eq!((map.malformed, map.left_out), (0, 0));
    }

    #[test]
    fn later_entries_override_earlier_ones() {
        let mut map = map("1000 100 old\n1040 20 new\n");
        let at = |map: &PerfMap, address| map.name_at(address).map(str::to_owned);
        assert_eq!(at(&map, 0x103f).as_deref(), Some("old"));
        assert_eq!(at(&map, 0x1040).as_deref(), Some("new"));
        assert_eq!(at(&map, 0x1060).as_deref(), Some("old"));
        map.feed(b"1020 c0 newest\n");
        assert_eq!(at(&map, 0x101f).as_deref(), Some("old"));
        assert_eq!(at(&map, 0x1050).as_deref(), Some("newest"));
        assert_eq!(at(&map, 0x10e0).as_deref(), Some("old"));
        map.feed(b"0 2000 all\n");
        assert_eq!(map.ranges.len(), 1);
    }

    #[test]
    fn lines_may_come_in_parts() {
        let mut map = PerfMap::default();
        for part in [&b"10"[..], b"00 1", b"0 na", b"me\n2000 10 half"] {
            map.feed(part);
        }
        assert_eq!((map.name_at(0x1000), map.name_at(0x2000)), (Some("name"), None));
        map.restart();
        map.feed(b"3000 10 again\n");
        assert_eq!(map.name_at(0x3000), Some("again"));
        assert_eq!(map.malformed, 0);
    }

    #[test]
    fn what_is_no_entry_is_counted() {
        let map =
            map("words\n1000 10\nx 10 name\n1000 x name\nffffffffffffffff 2 over\n1000 0 none\n1000 10  \n\n\r\n");
        assert_eq!((map.ranges.len(), map.malformed), (0, 7));
    }

    #[test]
    fn endless_lines_and_hostile_names_are_bounded() {
        let mut map = PerfMap::default();
        map.feed(b"1000 10 ");
        for _ in 0..100 {
            map.feed(&[b'x'; 4096]);
        }
        map.feed(b"\n2000 10 \x1b[2J\xff\n");
        assert_eq!(map.name_at(0x1000).map(str::len), Some(MAX_LINE - 8));
        assert_eq!(map.name_at(0x2000), Some("\u{1b}[2J\u{fffd}"));
        map.feed(&vec![b'0'; 10 << 20]);
        map.feed(b"\n");
        assert_eq!(map.malformed, 1);
    }

    #[test]
    fn more_entries_than_there_is_room_for_are_counted() {
        let room = 1000;
        let mut map = PerfMap {
            max_ranges: room,
            ..PerfMap::default()
        };
        for at in 0..room + 10 {
            map.feed(format!("{:x} 8 f\n", at * 16).as_bytes());
        }
        assert_eq!((map.ranges.len(), map.left_out), (room, 10));
        map.feed(b"0 ffffffffff all\n");
        assert_eq!(map.ranges.len(), 1);
        // Each line splits what is there in three.
        for at in 0..room {
            map.feed(format!("{:x} 8 f\n", 16 + at * 16).as_bytes());
        }
        assert_eq!(map.ranges.len(), room);
    }

    proptest! {
        #[test]
        fn equals_a_map_of_every_address(entries in proptest::collection::vec((0..200u64, 1..60u64), 1..40)) {
            let mut map = PerfMap::default();
            let mut truth = HashMap::new();
            for (at, (start, size)) in entries.iter().enumerate() {
                map.feed(format!("{start:x} {size:x} f{at}\n").as_bytes());
                truth.extend((*start..start + size).map(|address| (address, format!("f{at}"))));
            }
            for address in 0..300 {
                prop_assert_eq!(map.name_at(address), truth.get(&address).map(String::as_str));
            }
        }

        #[test]
        fn any_text_does_no_harm(text in proptest::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>()) {
            let (mut whole, mut parts) = (PerfMap::default(), PerfMap::default());
            let at = cut.index(text.len() + 1);
            whole.feed(&text);
            parts.feed(&text[..at]);
            parts.feed(&text[at..]);
            prop_assert_eq!(whole.malformed, parts.malformed);
            prop_assert_eq!(whole.ranges.len(), parts.ranges.len());
        }
    }
}
