//! The file in which a JIT compiler tells what its code is called: where it is, and whether it is to be believed.
//!
//! `perf` looks for `/tmp/perf-PID.map`, and JIT compilers write it for `perf`. Both `/tmp` and the process id are
//! those that the process itself sees. `/tmp` is anybody's to write to, so `perf` believes only a file of its own user or
//! of root; here the user is the process's.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::process::{field, read_status};
use super::space::AddressSpace;

/// Where a process's perf map would be, and who may have written it. Known from when the process was last looked at:
/// it may have ended since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerfMapFile {
    path: PathBuf,
    user: u32,
}

/// Why there is no perf map.
#[derive(Debug, PartialEq, Eq)]
pub enum NoPerfMap {
    /// There is none.
    Absent,
    /// There is something that is not to be believed: no regular file, or somebody else's.
    Refused,
}

impl PerfMapFile {
    /// The place for the process of `space`.
    ///
    /// # Errors
    /// The process has ended, or may not be looked into.
    pub fn of(space: &AddressSpace) -> io::Result<Self> {
        let status = read_status(&space.directory())?;
        Self::parse(&status).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(status: &str) -> Option<Self> {
        // The last of the ids is the innermost namespace's; older kernels have no namespaces of ids to tell.
        let ids = field(status, "NStgid").or_else(|| field(status, "Tgid"))?;
        let pid: u32 = ids.split_whitespace().next_back()?.parse().ok()?;
        // Real, effective, saved, and that of file accesses.
        let user = field(status, "Uid")?.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self {
            path: PathBuf::from(format!("/tmp/perf-{pid}.map")),
            user,
        })
    }

    /// Opens it, as the process of `space` sees the file system.
    ///
    /// # Errors
    /// Nothing is there, or nothing that is to be believed.
    pub fn open(&self, space: &AddressSpace) -> Result<File, NoPerfMap> {
        let root = space.root().ok_or(NoPerfMap::Absent)?;
        let file = match root.open_regular_itself(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NoPerfMap::Absent),
            Err(_) => return Err(NoPerfMap::Refused),
        };
        let owner = file.metadata().map_err(|_| NoPerfMap::Refused)?.uid();
        if owner != 0 && owner != self.user {
            return Err(NoPerfMap::Refused);
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    const STATUS: &str = "Name:\tnode\nTgid:\t4711\nUid:\t1000\t1001\t1002\t1003\nNStgid:\t4711\t33\t7\n";

    #[test]
    fn the_name_is_that_of_the_innermost_namespace() {
        let place = PerfMapFile::parse(STATUS).unwrap();
        assert_eq!((place.path.to_str(), place.user), (Some("/tmp/perf-7.map"), 1001));
        let old = STATUS.replace("NStgid", "Other");
        assert_eq!(
            PerfMapFile::parse(&old).unwrap().path.to_str(),
            Some("/tmp/perf-4711.map")
        );
        for broken in ["", "Tgid:\tx\nUid:\t1\t1\t1\t1\n", "Tgid:\t1\nUid:\t1\n"] {
            assert_eq!(PerfMapFile::parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn only_a_regular_file_of_the_right_user_is_opened() {
        let space = AddressSpace::read(std::process::id()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("perf-1.map");
        let ours = nix::unistd::geteuid().as_raw();
        let place = |user| PerfMapFile {
            path: path.clone(),
            user,
        };
        assert_eq!(place(ours).open(&space).unwrap_err(), NoPerfMap::Absent);
        std::fs::write(&path, "1000 10 name\n").unwrap();
        assert!(place(ours).open(&space).is_ok());
        if nix::unistd::geteuid().is_root() {
            assert!(place(1234).open(&space).is_ok(), "root's is believed");
            chown(&path, Some(4321), None).unwrap();
            assert!(place(4321).open(&space).is_ok());
            assert_eq!(place(1234).open(&space).unwrap_err(), NoPerfMap::Refused);
            assert_eq!(place(0).open(&space).unwrap_err(), NoPerfMap::Refused);
        }
        let target = dir.path().join("elsewhere");
        std::fs::rename(&path, &target).unwrap();
        symlink(&target, &path).unwrap();
        assert_eq!(place(4321).open(&space).unwrap_err(), NoPerfMap::Refused);
        std::fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert_eq!(place(ours).open(&space).unwrap_err(), NoPerfMap::Refused);
    }
}
