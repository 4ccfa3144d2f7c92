//! `/proc/PID/maps`, parsed. The parser is pure.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::files::read_bounded;

/// Most bytes of `/proc/PID/maps` that are read: about a million mappings, sixteen times the kernel's usual limit.
const MAX_BYTES: u64 = 128 << 20;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the flags of the line, independent of each other"
)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Offset of `start` in the file, in bytes.
    pub offset: u64,
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether code in it may run.
    pub executable: bool,
    /// Device of the file, major and minor; 0 and 0 where there is none.
    pub device: (u32, u32),
    /// Inode of the file; 0 where there is none.
    pub inode: u64,
    /// Path as the process sees it, or a name in brackets (`[heap]`, `[vdso]`); empty for anonymous memory.
    pub path: PathBuf,
    /// Whether the file's name is gone.
    pub deleted: bool,
}

impl Mapping {
    /// Whether `address` lies in it.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Whether it is memory that a program fills itself, where a JIT compiler can have its code: anonymous, or a file
    /// that has only ever been in memory.
    pub fn is_generated(&self) -> bool {
        holds_generated(self.path.as_os_str().as_encoded_bytes())
    }

    /// Whether a file is behind it.
    pub fn is_file(&self) -> bool {
        self.inode != 0 && self.path.has_root()
    }
}

/// Whether a mapping called `name` is memory that a program fills itself: see [`Mapping::is_generated`]. A name in
/// `[anon:…]` is one that the program has given.
pub fn holds_generated(name: &[u8]) -> bool {
    name.is_empty()
        || [&b"[anon"[..], b"/memfd:", b"/dev/zero", b"/dev/shm/", b"/SYSV"]
            .iter()
            .any(|start| name.starts_with(start))
}

/// The mappings of a process, by address.
///
/// # Errors
/// The process is gone (also when it is a zombie: it has no memory), it may not be looked into, or the list makes no
/// sense.
pub fn read_mappings(pid: u32) -> io::Result<Vec<Mapping>> {
    read_mappings_at(Path::new(&format!("/proc/{pid}")))
}

/// As [`read_mappings`], for the process whose directory under `/proc` is given.
pub(super) fn read_mappings_at(directory: &Path) -> io::Result<Vec<Mapping>> {
    let text = read_bounded(&directory.join("maps"), MAX_BYTES)?;
    if text.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the process has no memory: it has ended",
        ));
    }
    parse_mappings(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/maps is malformed"))
}

/// Parses the text of `/proc/PID/maps`; `None` if a line is malformed.
pub fn parse_mappings(text: &[u8]) -> Option<Vec<Mapping>> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(parse_line)
        .collect()
}

/// One line of the list; `None` if it is malformed.
pub(super) fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let (start, end) = parse_pair(fields.next()?, b'-')?;
    let flags = fields.next()?;
    let offset = parse_number(fields.next()?, 16)?;
    let (major, minor) = parse_pair(fields.next()?, b':')?;
    let inode = parse_number(fields.next()?, 10)?;
    // The kernel pads with spaces; the name itself may hold spaces, but never begins with one.
    let name = fields.next().unwrap_or_default().trim_ascii_start();
    let (path, deleted) = match name.strip_suffix(b" (deleted)") {
        Some(path) => (path, true),
        None => (name, false),
    };
    let flag = |index: usize, letter: u8| flags.get(index) == Some(&letter);
    (start < end).then(|| Mapping {
        start,
        end,
        offset,
        readable: flag(0, b'r'),
        writable: flag(1, b'w'),
        executable: flag(2, b'x'),
        device: (major as u32, minor as u32),
        inode,
        path: unescape(path),
        deleted,
    })
}

fn parse_pair(field: &[u8], separator: u8) -> Option<(u64, u64)> {
    let at = field.iter().position(|&byte| byte == separator)?;
    Some((
        parse_number(field.get(..at)?, 16)?,
        parse_number(field.get(at + 1..)?, 16)?,
    ))
}

fn parse_number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

/// Of all characters the kernel escapes in this file only the newline, as `\012`: any other backslash is itself.
fn unescape(name: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(br"\012") {
            bytes.push(b'\n');
            rest = after;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &[u8] = b"\
55d0c8a00000-55d0c8a02000 r--p 00001000 fe:01 1234                       /usr/bin/my program\n\
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n\
7f0000001000-7f0000002000 r-xp 00003000 00:2a 18446744073709551615       /tmp/a\\012b\\040c (deleted)\n\
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\n\
7ffd00030000-7ffd00032000 r-xs 00000000 00:01 77                         /memfd:jit (deleted)\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

    #[test]
    fn reads_every_field() {
        let maps = parse_mappings(SAMPLE).unwrap();
        assert_eq!(maps.len(), 6);
        assert_eq!(
            maps[0],
            Mapping {
                start: 0x55d0_c8a0_0000,
                end: 0x55d0_c8a0_2000,
                offset: 0x1000,
                readable: true,
                device: (0xfe, 1),
                inode: 1234,
                path: "/usr/bin/my program".into(),
                ..Mapping::default()
            }
        );
        assert!(maps[1].executable && maps[1].writable && !maps[1].is_file());
        assert_eq!(maps[2].path.as_os_str().as_bytes(), b"/tmp/a\nb\\040c");
        assert!(maps[2].deleted && maps[2].is_file());
        assert_eq!((maps[2].inode, maps[2].device), (u64::MAX, (0, 0x2a)));
        assert_eq!(maps[3].path, Path::new("[stack]"));
        assert!(maps[4].deleted && maps[4].path == Path::new("/memfd:jit"));
        assert!(maps[5].contains(0xffff_ffff_ff60_0000) && !maps[5].contains(maps[5].end));
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "nonsense",
            "10-20 r-xp",
            "20-10 r-xp 0 0:0 0",
            "10-20 r-xp zz 00:00 0",
            "10-1ffffffffffffffff r-xp 0 00:00 0",
            "10 r-xp 0 00:00 0",
        ] {
            assert_eq!(parse_mappings(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn our_own_mappings_hold_our_own_code() {
        let maps = read_mappings(std::process::id()).unwrap();
        let here = our_own_mappings_hold_our_own_code as *const () as u64;
        let mapping = maps.iter().find(|mapping| mapping.contains(here)).unwrap();
        assert!(mapping.executable && mapping.is_file());
        assert_eq!(mapping.path, std::env::current_exe().unwrap());
        assert!(maps.is_sorted_by_key(|mapping| mapping.start));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(read_mappings(pid).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_mappings(&text);
        }

        #[test]
        fn any_name_comes_back(name in "/[^\n]{0,40}[^\n ]", start in 0..u64::MAX / 2, length in 1..u64::MAX / 2) {
            prop_assume!(!name.contains("\\012") && !name.ends_with(" (deleted)"));
            let line = format!("{start:x}-{:x} r-xp 00000000 08:01 7     {name}\n", start + length);
            let maps = parse_mappings(line.as_bytes()).unwrap();
            prop_assert_eq!(maps[0].path.as_os_str().as_bytes(), name.as_bytes());
            prop_assert_eq!((maps[0].start, maps[0].end), (start, start + length));
        }
    }
}
