//! Finds the file into which a module's debug information was split off.
//!
//! First by build id (`/usr/lib/debug/.build-id`, where distributions put it), then by the name and checksum in
//! `.gnu_debuglink`; first as the process sees the file system, then as the host does.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::image::has_debug;
use crate::target::{ElfHeaders, Module, Root};

/// Where distributions put debug information.
const DEBUG_DIRECTORY: &str = "/usr/lib/debug";
/// Largest debug file whose checksum is computed.
const MAX_CHECKSUMMED: u64 = 1 << 30;

/// A file with debug information.
pub struct DebugFile {
    /// The file.
    pub file: File,
    /// Its build id.
    pub build_id: Option<String>,
    /// Whether it is the host's.
    pub of_host: bool,
}

/// The debug file of a module, which a process sees that has the root `process`; `host` is our own root.
pub fn find(module: &Module, process: Option<&Root>, host: &Root) -> Option<DebugFile> {
    let link = DebugLink::read(module);
    let of_process = process.filter(|root| !root.is_same(host)).map(|root| (root, false));
    let roots = of_process.into_iter().chain([(host, true)]);
    for (root, of_host) in roots {
        let accept = |path: PathBuf, checksum| open(root, &path, module, checksum);
        let by_id = module
            .build_id
            .as_deref()
            .and_then(build_id_path)
            .and_then(|path| accept(path, None));
        let found = by_id.or_else(|| {
            let link = link.as_ref()?;
            link.paths(&module.path)
                .into_iter()
                .find_map(|path| accept(path, Some(link.checksum)))
        });
        if let Some((file, build_id)) = found {
            return Some(DebugFile {
                file,
                build_id,
                of_host,
            });
        }
    }
    None
}

/// What `.gnu_debuglink` says.
struct DebugLink {
    name: Vec<u8>,
    checksum: u32,
}

impl DebugLink {
    fn read(module: &Module) -> Option<Self> {
        let section = module.headers().section(b".gnu_debuglink")?;
        Self::parse(&ElfHeaders::contents(module.file(), section, 4096).ok()?)
    }

    /// A name, zeros to a multiple of four bytes, a checksum. A name that leads elsewhere is not taken.
    fn parse(contents: &[u8]) -> Option<Self> {
        let length = contents.iter().position(|&byte| byte == 0)?;
        let name = contents.get(..length)?;
        let checksum = contents.get((length + 1).next_multiple_of(4)..)?.get(..4)?;
        let is_plain = !name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..";
        is_plain.then(|| Self {
            name: name.to_vec(),
            checksum: u32::from_le_bytes(checksum.try_into().unwrap_or_default()),
        })
    }

    /// Where the file may be, for a module at `path`.
    fn paths(&self, path: &Path) -> Vec<PathBuf> {
        let name = std::ffi::OsStr::from_bytes(&self.name);
        let directory = path.parent().unwrap_or(Path::new("/"));
        let below = directory.strip_prefix("/").unwrap_or(directory);
        vec![
            directory.join(name),
            directory.join(".debug").join(name),
            Path::new(DEBUG_DIRECTORY).join(below).join(name),
        ]
    }
}

fn build_id_path(build_id: &str) -> Option<PathBuf> {
    let (first, rest) = build_id.split_at_checked(2)?;
    // One of fewer than eight bytes is no hash: it would name anything.
    (build_id.len() >= 16).then(|| PathBuf::from(format!("{DEBUG_DIRECTORY}/.build-id/{first}/{rest}.debug")))
}

/// Opens `path` if it holds debug information of `module`: the same build id, or else the checksum asked for.
fn open(root: &Root, path: &Path, module: &Module, checksum: Option<u32>) -> Option<(File, Option<String>)> {
    let file = root.open_regular(path).ok()?;
    let headers = ElfHeaders::read(&file).ok()?;
    let build_id = headers.build_id(&file);
    let fits = match (&build_id, &module.build_id) {
        (Some(found), Some(wanted)) => found == wanted,
        _ => checksum.is_some() && checksum_of(&file) == checksum,
    };
    let has_names = has_debug(&headers) || headers.section(b".symtab").is_some();
    (fits && has_names).then_some((file, build_id))
}

/// The usual CRC-32 over the whole file.
fn checksum_of(file: &File) -> Option<u32> {
    if file.metadata().ok()?.len() > MAX_CHECKSUMMED {
        return None;
    }
    let mut checksum = flate2::Crc::new();
    let mut file = file.take(MAX_CHECKSUMMED);
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part).ok()? {
            0 => return Some(checksum.sum()),
            read => checksum.update(part.get(..read)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_parsed() {
        let link = DebugLink::parse(b"prog.debug\0\0\x78\x56\x34\x12").unwrap();
        assert_eq!((link.name.as_slice(), link.checksum), (&b"prog.debug"[..], 0x1234_5678));
        assert_eq!(
            link.paths(Path::new("/opt/x/prog")),
            [
                "/opt/x/prog.debug",
                "/opt/x/.debug/prog.debug",
                "/usr/lib/debug/opt/x/prog.debug"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn links_that_lead_elsewhere_are_not_followed() {
        for contents in [
            &b"../secret\0\0\0\0\0\0\0"[..],
            b"..\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\0\0",
            b"name",
            b"name\0\0\0\0\x01",
        ] {
            assert!(DebugLink::parse(contents).is_none(), "{contents:?}");
        }
    }

    #[test]
    fn build_ids_name_files() {
        let path = build_id_path("0123456789abcdef0123").unwrap();
        assert_eq!(path, Path::new("/usr/lib/debug/.build-id/01/23456789abcdef0123.debug"));
        assert!(build_id_path("0123").is_none() && build_id_path("").is_none());
    }
}
