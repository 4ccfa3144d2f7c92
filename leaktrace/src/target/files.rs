//! Opening and reading files that someone else controls: regular files only, nothing that blocks, bounded reads.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// The root directory that a process sees, held open: paths within it resolve as they do for the process, and go on
/// doing so after it has ended.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The root at `path`: `/`, or the `root` of a process under `/proc`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let directory = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(path)?;
        Ok(Self(directory.into()))
    }

    /// Opens the regular file that the process sees at `path`. Symbolic links cannot lead out of the root.
    pub fn open_regular(&self, path: &Path) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        reopen_regular(&openat2(&self.0, path, how)?)
    }

    /// As [`Self::open_regular`], for a file that must be at `path` itself: a symbolic link there is refused.
    pub fn open_regular_itself(&self, path: &Path) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        reopen_regular(&openat2(&self.0, path, how)?)
    }

    /// Whether both are the same directory.
    pub fn is_same(&self, other: &Self) -> bool {
        let identity = |root: &Self| {
            let stat = nix::sys::stat::fstat(&root.0).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        identity(self).is_some() && identity(self) == identity(other)
    }
}

/// Opens `path` for reading if it leads to a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let found = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
    reopen_regular(&found)
}

/// Opens what an `O_PATH` descriptor refers to. Looked at first and opened second, through the same descriptor, so
/// that nothing but a regular file is ever opened: to open a device or a FIFO can block, or act.
fn reopen_regular(found: &impl AsFd) -> io::Result<File> {
    let fd = found.as_fd();
    let stat = nix::sys::stat::fstat(fd)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    File::options()
        .read(true)
        .custom_flags(flags)
        .open(fd_path(fd.as_raw_fd()))
}

/// A path to an open descriptor of this process.
pub fn fd_path(fd: i32) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{fd}"))
}

/// Device and inode as the kernel writes them in `/proc/PID/maps`.
pub fn device_and_inode(file: &File) -> io::Result<((u32, u32), u64)> {
    let metadata = file.metadata()?;
    Ok((
        (libc::major(metadata.dev()), libc::minor(metadata.dev())),
        metadata.ino(),
    ))
}

/// Exactly `size` bytes at `offset`; refused if more than `limit`.
pub fn read_at(file: &File, offset: u64, size: u64, limit: u64) -> io::Result<Vec<u8>> {
    if size > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{size} bytes where at most {limit} make sense"),
        ));
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// The whole of a file of `/proc`; refused if more than `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let bytes = read_start(path, limit + 1)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is over {limit} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

/// The first `limit` bytes of a file of `/proc`.
pub fn read_start(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let begun = Instant::now();
        assert!(open_regular(&fifo).is_err());
        assert!(open_regular(Path::new("/dev/zero")).is_err());
        assert!(open_regular(dir.path()).is_err());
        assert!(Root::open(dir.path()).unwrap().open_regular(Path::new("fifo")).is_err());
        assert!(begun.elapsed().as_secs() < 5);
    }

    #[test]
    fn links_do_not_lead_out_of_a_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/hostname"), "inside").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/hostname", dir.path().join("upwards")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for link in ["absolute", "upwards", "/etc/hostname"] {
            let mut text = String::new();
            root.open_regular(Path::new(link))
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "inside", "{link}");
        }
        assert!(root.open_regular_itself(Path::new("/etc/hostname")).is_ok());
        assert!(root.open_regular_itself(Path::new("absolute")).is_err());
        assert!(!root.is_same(&Root::open(Path::new("/")).unwrap()));
        assert!(root.is_same(&Root::open(dir.path()).unwrap()));
    }

    #[test]
    fn reads_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = open_regular(&path).unwrap();
        assert_eq!(read_at(&file, 2, 3, 8).unwrap(), b"234");
        assert!(read_at(&file, 2, 9, 8).is_err());
        assert!(read_at(&file, 8, 3, 8).is_err());
        assert!(read_bounded(&path, 9).is_err());
        assert_eq!(read_bounded(&path, 10).unwrap(), b"0123456789");
        assert_eq!(read_start(&path, 4).unwrap(), b"0123");
    }
}
