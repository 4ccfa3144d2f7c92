//! One mapped ELF file, held open for as long as anyone needs it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::files::{Root, device_and_inode, fd_path, open_regular};
use super::headers::ElfHeaders;
use super::links::Links;
use super::mappings::Mapping;
use super::printable::printable;

/// One mapped ELF file. It stays readable when the file is deleted or replaced, and when the process has ended.
#[derive(Debug)]
pub struct Module {
    /// Path as the process sees it.
    pub path: PathBuf,
    /// The path, safe to show.
    pub name: String,
    /// Device and inode of the open file: what tells modules apart. (Those in `/proc/PID/maps` can be the same for
    /// two files of an overlay.)
    pub identity: (u64, u64),
    /// Build id in hexadecimal.
    pub build_id: Option<String>,
    /// Whether the file's name was gone when it was opened.
    pub deleted: bool,
    /// What it asks of the dynamic loader.
    pub links: Links,
    headers: ElfHeaders,
    /// When it was last written to, in seconds and nanoseconds.
    written: (i64, i64),
    file: File,
}

impl Module {
    /// Opens the file behind `mapping` of the process at `directory` (under `/proc`), which sees `root`.
    ///
    /// # Errors
    /// The file cannot be had or is not the one that is mapped, or it is not a 64-bit ELF file.
    pub fn open(directory: &Path, root: Option<&Root>, mapping: &Mapping) -> io::Result<Self> {
        let file = open_mapped(directory, root, mapping)?;
        let metadata = file.metadata()?;
        let headers = ElfHeaders::read(&file)?;
        Ok(Self {
            path: mapping.path.clone(),
            name: printable(mapping.path.as_os_str().as_encoded_bytes()),
            identity: (metadata.dev(), metadata.ino()),
            build_id: headers.build_id(&file),
            deleted: mapping.deleted,
            links: Links::read(&file),
            headers,
            written: (metadata.mtime(), metadata.mtime_nsec()),
            file,
        })
    }

    /// Whether it is still what it was when it was opened. A file can be overwritten while it is mapped; what it holds
    /// then says nothing about the code that ran. The time of writing alone proves nothing where a build id is the same.
    pub fn is_unchanged(&self) -> bool {
        let Ok(now) = ElfHeaders::read(&self.file) else {
            return false;
        };
        let build_id = now.build_id(&self.file);
        let written = self
            .file
            .metadata()
            .is_ok_and(|now| (now.mtime(), now.mtime_nsec()) != self.written);
        now.is_same_layout(&self.headers) && build_id == self.build_id && (build_id.is_some() || !written)
    }

    /// A path that leads to this very file for as long as the module lives.
    pub fn link_path(&self) -> PathBuf {
        fd_path(self.file.as_raw_fd())
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its headers.
    pub fn headers(&self) -> &ElfHeaders {
        &self.headers
    }

    /// Virtual address, as the file counts them, of `address` within `mapping` of this file.
    pub fn virtual_address(&self, mapping: &Mapping, address: u64) -> Option<u64> {
        let offset = address.checked_sub(mapping.start)?.checked_add(mapping.offset)?;
        self.headers.virtual_address(offset, mapping.executable)
    }
}

/// `map_files` names the mapped file itself, but needs `CAP_CHECKPOINT_RESTORE`; the path may meanwhile lead to
/// another file, so there device and inode must agree. (Where a file system shows another device in `stat` than in
/// maps, as btrfs does, only `map_files` will do.) The range itself may meanwhile be another file's, a library's that
/// was loaded in the place of one unloaded: the name of what was opened tells.
fn open_mapped(directory: &Path, root: Option<&Root>, mapping: &Mapping) -> io::Result<File> {
    let link = directory.join(format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
    let refused = match open_regular(&link) {
        Ok(file) if is_named(&file, mapping) => return Ok(file),
        Ok(_) => io::Error::other("another file was mapped meanwhile"),
        Err(error) => error,
    };
    let by_path = root.into_iter().map(|root| root.open_regular(&mapping.path));
    by_path
        .chain(std::iter::once_with(|| open_regular(&mapping.path)))
        .flatten()
        .find(|file| device_and_inode(file).is_ok_and(|found| found == (mapping.device, mapping.inode)))
        .ok_or(refused)
}

/// Whether the kernel has the name for this file that it has in the memory map.
fn is_named(file: &File, mapping: &Mapping) -> bool {
    let mut expected = mapping.path.clone().into_os_string();
    if mapping.deleted {
        expected.push(" (deleted)");
    }
    std::fs::read_link(fd_path(file.as_raw_fd())).is_ok_and(|name| name.as_os_str() == expected)
}

#[cfg(test)]
mod tests {
    use super::super::mappings::read_mappings;
    use super::super::test_programs::compile;
    use super::*;

    fn our_code() -> Mapping {
        let here = our_code as *const () as u64;
        let maps = read_mappings(std::process::id()).unwrap();
        maps.into_iter().find(|mapping| mapping.contains(here)).unwrap()
    }

    #[test]
    fn opens_our_own_program() {
        let mapping = our_code();
        let module = Module::open(Path::new("/proc/self"), None, &mapping).unwrap();
        assert_eq!(module.path, std::env::current_exe().unwrap());
        let linked = std::fs::metadata(module.link_path()).unwrap();
        let real = std::fs::metadata(&module.path).unwrap();
        assert_eq!((linked.dev(), linked.ino()), (real.dev(), real.ino()));
        assert_eq!(module.identity, (real.dev(), real.ino()));
    }

    #[test]
    fn without_map_files_the_path_does_if_it_is_the_same_file() {
        let mapping = our_code();
        let nowhere = Path::new("/nonexistent");
        let root = Root::open(Path::new("/")).unwrap();
        assert!(Module::open(nowhere, Some(&root), &mapping).is_ok());
        assert!(Module::open(nowhere, None, &mapping).is_ok());
        let other = Mapping {
            inode: mapping.inode + 1,
            ..mapping.clone()
        };
        assert!(Module::open(nowhere, Some(&root), &other).is_err());
        let other = Mapping {
            path: "/bin/true".into(),
            ..mapping
        };
        assert!(Module::open(nowhere, Some(&root), &other).is_err());
    }

    #[test]
    fn a_file_that_was_written_to_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        for (flag, survives) in [("-Wl,--build-id=none", false), ("-Wl,--build-id", true)] {
            let program = compile(dir.path(), "program", &["cc", flag], "int main(void) { return 0; }");
            let (device, inode) = device_and_inode(&File::open(&program).unwrap()).unwrap();
            let mapping = Mapping {
                device,
                inode,
                path: program.clone(),
                ..our_code()
            };
            let module = Module::open(Path::new("/nonexistent"), None, &mapping).unwrap();
            assert!(module.is_unchanged());
            let bytes = std::fs::read(&program).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::write(&program, &bytes).unwrap();
            assert_eq!(module.is_unchanged(), survives, "{flag}: the same bytes");
            std::fs::write(&program, &bytes[..1000]).unwrap();
            assert!(!module.is_unchanged(), "{flag}: cut short");
        }
    }

    #[test]
    fn files_that_are_not_elf_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, "words ".repeat(100)).unwrap();
        let (device, inode) = device_and_inode(&File::open(&path).unwrap()).unwrap();
        let mapping = Mapping {
            device,
            inode,
            path,
            ..our_code()
        };
        let error = Module::open(Path::new("/nonexistent"), None, &mapping).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
