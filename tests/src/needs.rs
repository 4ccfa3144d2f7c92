//! What a test needs of the machine. A test whose needs are not met is skipped, and says why.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::host;

/// Something a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The leaktrace binary, built.
    Binary,
    /// Leave to trace: root, a kernel with BPF, BTF and uprobes.
    Tracing,
    /// A kernel at least this new.
    Kernel(u32, u32),
    /// A program in the path.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

impl Need {
    /// Why it is not there, if it is not.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Binary => {
                let binary = host::leaktrace();
                (!binary.is_file()).then(|| format!("no leaktrace binary at {}", binary.display()))
            }
            Self::Tracing => tracing_missing(),
            Self::Kernel(major, minor) => {
                (host::kernel() < (major, minor)).then(|| format!("needs Linux {major}.{minor}"))
            }
            Self::Program(name) => host::find_program(name)
                .is_none()
                .then(|| format!("no {name} on this machine")),
            Self::File(path) => (!Path::new(path).exists()).then(|| format!("no {path} on this machine")),
        }
    }
}

/// The first of `needs` that is not met, in words.
pub fn first_missing(needs: &[Need]) -> Option<String> {
    needs.iter().find_map(|need| need.missing())
}

fn tracing_missing() -> Option<String> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    ANSWER.get_or_init(look_for_tracing).clone()
}

fn look_for_tracing() -> Option<String> {
    let why = if !nix::unistd::geteuid().is_root() {
        "needs root"
    } else if !has_capability(CAP_SYS_ADMIN) {
        "needs CAP_SYS_ADMIN, which root does not have here"
    } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        "needs a kernel with BTF"
    } else if !Path::new("/sys/bus/event_source/devices/uprobe").exists() {
        "needs a kernel with uprobes"
    } else {
        return None;
    };
    Some(why.to_owned())
}

/// Root in a container has the user id, but neither BPF nor perf events.
const CAP_SYS_ADMIN: u32 = 21;

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set >> number & 1 == 1)
}
