//! What this machine and this checkout offer: where things are, and which ways of attaching the kernel has.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// Where cargo builds.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The binary under test: `LEAKTRACE_BIN`, or the release build, or the debug build.
pub fn leaktrace() -> PathBuf {
    if let Some(named) = env::var_os("LEAKTRACE_BIN") {
        return PathBuf::from(named);
    }
    let release = target_dir().join("release/leaktrace");
    if release.exists() {
        release
    } else {
        target_dir().join("debug/leaktrace")
    }
}

/// Finds a program in `PATH`, or where an ordinary user's path does not reach.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/bin")])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Version and patch level of the running kernel; zeros when it cannot be told.
pub fn kernel() -> (u32, u32) {
    let release = nix::sys::utsname::uname()
        .ok()
        .map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
