//! What `go build` wrote into a program about itself: version, experiments, build mode. It is there in stripped programs
//! too. Pure but for [`BuildInfo::read`].

use std::fs::File;

use crate::target::{ElfHeaders, printable};

/// Most bytes of the section.
const MAX_INFO: u64 = 4 << 20;
/// Longest version that is shown.
const MAX_VERSION: usize = 256;
/// What the section begins with; behind it are the size of pointers and flags.
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Where the strings begin, since Go 1.18.
const STRINGS: usize = 32;
/// Flag: the strings are here, and not behind pointers.
const INLINE: u8 = 2;
/// The settings stand between two marks of this many bytes.
const MARK: usize = 16;

/// What a program says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// As `go version` prints it: `go1.27.3`, `devel go1.28-…`; experiments left out.
    pub version: String,
    /// Experiments that it was built with (`GOEXPERIMENT`), where they differ from the version's own.
    pub experiments: Vec<String>,
    /// `exe`, `pie`, `c-shared` and so on; none if it does not say.
    pub build_mode: Option<String>,
}

impl BuildInfo {
    /// Reads what the program in `file` says of itself.
    pub fn read(file: &File, headers: &ElfHeaders) -> Option<Self> {
        let section = headers.section(b".go.buildinfo")?;
        Self::parse(&ElfHeaders::contents(file, section, MAX_INFO).ok()?)
    }

    fn parse(section: &[u8]) -> Option<Self> {
        let flags = *section.strip_prefix(MAGIC)?.get(1)?;
        if flags & INLINE == 0 {
            return None;
        }
        let (version, rest) = string(section.get(STRINGS..)?)?;
        let settings = string(rest).map_or(&[][..], |(settings, _)| settings);
        let settings = settings
            .get(MARK..settings.len().saturating_sub(MARK))
            .unwrap_or_default();
        let version = printable(version.get(..MAX_VERSION).unwrap_or(version));
        let (version, experiments) = match version.split_once(" X:") {
            Some((version, experiments)) => (version, experiments),
            None => (&*version, ""),
        };
        Some(Self {
            version: version.to_owned(),
            experiments: experiments
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            build_mode: setting(settings, b"-buildmode").map(printable),
        })
    }

    /// Whether the garbage collector is the one called Green Tea: since Go 1.26, unless it was turned off; in Go 1.25 if
    /// it was turned on.
    pub fn has_inline_marks(&self) -> bool {
        let has = |name: &str| self.experiments.iter().any(|experiment| experiment == name);
        match self.minor() {
            Some(25) => has("greenteagc"),
            minor => minor.is_none_or(|minor| minor > 25) && !has("nogreenteagc"),
        }
    }

    /// The number behind `go1.`, if the version says one.
    pub fn minor(&self) -> Option<u32> {
        let (_, rest) = self.version.split_once("go1.")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..digits)?.parse().ok()
    }
}

/// A string with its length in front: seven bits a byte, lowest first.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes.get(index + 1..)?.split_at_checked(length);
        }
    }
    None
}

/// A setting of the build, from lines such as `build\t-buildmode=pie`.
fn setting<'a>(settings: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = settings.split(|&byte| byte == b'\n');
    lines.find_map(|line| line.strip_prefix(b"build\t")?.strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(version: &str, settings: &str) -> Vec<u8> {
        let mut bytes = [MAGIC, &[8, INLINE]].concat();
        bytes.resize(STRINGS, 0);
        let settings = format!("{}{settings}{}", "m".repeat(MARK), "m".repeat(MARK));
        for text in [version, &settings] {
            let length = text.len();
            bytes.extend([length as u8 & 0x7f | 0x80, (length >> 7) as u8]);
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn versions_experiments_and_modes_are_read() {
        let settings = "path\tx\nbuild\t-compiler=gc\nbuild\t-buildmode=pie\n";
        let info = BuildInfo::parse(&section("go1.27.3 X:runtimefreegc,nogreenteagc", settings)).unwrap();
        assert_eq!((info.version.as_str(), info.minor()), ("go1.27.3", Some(27)));
        assert_eq!(info.experiments, ["runtimefreegc", "nogreenteagc"]);
        assert_eq!(info.build_mode.as_deref(), Some("pie"));
    }

    #[test]
    fn versions_of_all_kinds_have_a_number() {
        for (version, minor) in [
            ("go1.19", Some(19)),
            ("go1.26rc1", Some(26)),
            ("devel go1.28-0a1b2c3 Mon", Some(28)),
            ("devel +0a1b2c3", None),
            ("go1.", None),
            ("go1.99999999999", None),
        ] {
            assert_eq!(
                BuildInfo::parse(&section(version, "")).unwrap().minor(),
                minor,
                "{version}"
            );
        }
    }

    #[test]
    fn other_sections_and_cut_ones_say_nothing() {
        let whole = section("go1.27.3", "");
        for cut in 0..STRINGS + 9 {
            assert_eq!(BuildInfo::parse(&whole[..cut]), None, "{cut}");
        }
        let mut pointers = whole.clone();
        pointers[15] = 0;
        assert_eq!(BuildInfo::parse(&pointers), None);
    }
}
