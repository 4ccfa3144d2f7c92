//! One running process: what it is, whether it may be traced, and whether it still runs.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::files::{fd_path, open_regular, read_at, read_bounded, read_start};
use super::headers::ElfHeaders;
use super::language;
use super::printable::printable;

/// Most bytes of a command line that are kept.
const MAX_COMMAND: u64 = 4096;
/// Most bytes of the arguments of a process.
const MAX_ARGUMENTS: u64 = 1 << 20;
/// Most bytes of a small file of `/proc`.
const MAX_STATUS: u64 = 64 << 10;
/// Most threads whose seccomp mode is looked at.
const MAX_THREADS: usize = 4096;
/// The kernel's mark of its own threads (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x20_0000;
/// The kernel's mark of a thread on its way out (`PF_EXITING`).
const ENDING: u64 = 4;

/// Why a process cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Nothing has this id.
    #[error("no process {0}: it may have ended; look for it with `ps -e`")]
    NoSuchProcess(u32),
    /// The id is a thread's.
    #[error("{thread} is a thread, not a process: use --pid {process}, the process it belongs to")]
    Thread {
        /// The id given.
        thread: u32,
        /// The process it belongs to.
        process: u32,
    },
    /// It has ended and waits for its parent.
    #[error("process {0} has ended (it is a zombie): it has no memory left to look at")]
    Zombie(u32),
    /// Its main thread has ended, others run on.
    #[error(
        "the main thread of process {0} has ended, and without it the kernel places no probe for the threads that run \
         on; start the program with `leaktrace -- CMD`, or attach while its main thread runs"
    )]
    MainThreadGone(u32),
    /// It is part of the kernel.
    #[error("{0} is a kernel thread: it has no user memory; choose a process of a program")]
    KernelThread(u32),
    /// It runs 32-bit code.
    #[error("process {0} runs a 32-bit program: leaktrace reads 64-bit programs only; trace a 64-bit build of it")]
    ThirtyTwoBit(u32),
    /// It is leaktrace.
    #[error("process {0} is leaktrace itself: it cannot trace its own allocations; choose another process")]
    Ourselves(u32),
    /// The kernel refuses to show it.
    #[error("cannot look into process {0}: permission denied; run leaktrace with sudo")]
    NotPermitted(u32),
    /// Something of it could not be read.
    #[error("cannot read {what} of process {pid}: {source}; if it is still running, try again")]
    Unreadable {
        /// Its id.
        pid: u32,
        /// What could not be read.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What system call filters a process has put on itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seccomp {
    /// None.
    Off,
    /// Only read, write, exit and return from signals.
    Strict,
    /// A filter program: on new kernels a return probe can make it kill the process.
    Filter,
}

/// What tells a program in a process from one that takes its place there: its file, and where its stack begins, which is
/// another each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    stack_start: u64,
    file: (u64, u64),
}

/// One running process.
#[derive(Debug)]
pub struct Process {
    /// Its id, as the host sees it.
    pub pid: u32,
    /// Its short name.
    pub comm: String,
    /// Its command line, words joined by spaces, control characters escaped.
    pub command: String,
    /// Path of its program as it sees it.
    pub exe: PathBuf,
    /// Build id of its program, hexadecimal.
    pub build_id: Option<String>,
    /// Guess at the language of its program: `rust`, `c++`, `c`, `go` or `unknown`.
    pub language: &'static str,
    /// When it started, in clock ticks since boot: with the id, what tells it from an earlier or later process.
    pub start_time: u64,
    /// Address at which the stack of its first thread begins; 0 if that may not be known.
    pub stack_start: u64,
    pidfd: OwnedFd,
    /// Its directory under `/proc`, held open: it never leads to a later process with the same id.
    directory: OwnedFd,
}

impl Process {
    /// Opens a process that can be traced.
    ///
    /// # Errors
    /// There is none, it may not be looked into, or it is of a kind that cannot be traced.
    pub fn open(pid: u32) -> Result<Self, TargetError> {
        let directory = open_directory(pid)?;
        let path = fd_path(directory.as_raw_fd());
        let status = read_status(&path).map_err(explain(pid, "the status"))?;
        let group = field(&status, "Tgid")
            .and_then(|group| group.parse().ok())
            .unwrap_or(pid);
        if group != pid {
            return Err(TargetError::Thread {
                thread: pid,
                process: group,
            });
        }
        if is_ourselves(pid) {
            return Err(TargetError::Ourselves(pid));
        }
        let pidfd = open_pidfd(pid).map_err(explain(pid, "the state"))?;
        let stat = read_stat(&path).map_err(explain(pid, "the state"))?;
        refuse_unsuitable(pid, &stat, &path)?;
        let exe = std::fs::read_link(path.join("exe")).map_err(explain(pid, "the program"))?;
        let (build_id, language) = read_program(pid, &path)?;
        let process = Self {
            pid,
            comm: printable(
                read_start(&path.join("comm"), MAX_STATUS)
                    .unwrap_or_default()
                    .trim_ascii_end(),
            ),
            command: String::new(),
            exe: without_deleted(exe),
            build_id,
            language,
            start_time: stat.start_time,
            stack_start: stat.stack_start,
            pidfd,
            directory,
        };
        // Directory and pidfd were opened by the same number: both are of one process only if it still runs.
        if !process.is_alive() {
            return Err(TargetError::NoSuchProcess(pid));
        }
        Ok(Self {
            command: process.read_command(),
            ..process
        })
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        let mut wait = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::ZERO) == Ok(0)
    }

    /// Whether its main thread has ended while others run on.
    pub fn main_thread_gone(&self) -> bool {
        read_stat(&self.path()).is_ok_and(|stat| stat.has_ended()) && others_run(&self.path())
    }

    /// A descriptor that becomes readable when the process ends.
    pub fn exited_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Bytes of memory that it has resident.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let statm = read_bounded(&self.path().join("statm"), MAX_STATUS)?;
        let pages = String::from_utf8_lossy(&statm)
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<u64>().ok());
        // SAFETY: `sysconf` takes no pointers.
        let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
        // A process that has ended reads as zero pages, which is no measurement.
        pages
            .filter(|&pages| pages > 0)
            .map(|pages| pages * page_size)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The program that it runs now.
    ///
    /// # Errors
    /// It has ended.
    pub fn program(&self) -> io::Result<Program> {
        let stat = read_stat(&self.path())?;
        let file = std::fs::metadata(self.path().join("exe"))?;
        Ok(Program {
            stack_start: stat.stack_start,
            file: (file.dev(), file.ino()),
        })
    }

    /// Its arguments as the kernel has them now, each ended by a zero byte.
    ///
    /// # Errors
    /// It has ended.
    pub fn arguments(&self) -> io::Result<Vec<u8>> {
        read_start(&self.path().join("cmdline"), MAX_ARGUMENTS)
    }

    /// How many threads it has.
    ///
    /// # Errors
    /// It has ended.
    pub fn threads(&self) -> io::Result<u32> {
        let status = read_status(&self.path())?;
        let threads = field(&status, "Threads").and_then(|threads| threads.parse().ok());
        threads.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The strictest system call filter of its threads: each has its own.
    ///
    /// # Errors
    /// It has ended.
    pub fn seccomp(&self) -> io::Result<Seccomp> {
        let tasks = std::fs::read_dir(self.path().join("task"))?.flatten().take(MAX_THREADS);
        // A thread that ends between the list and the look has no say any more.
        let statuses = tasks.filter_map(|task| read_status(&task.path()).ok());
        statuses
            .map(|status| seccomp_of(&status))
            .max()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn path(&self) -> PathBuf {
        fd_path(self.directory.as_raw_fd())
    }

    fn read_command(&self) -> String {
        let words = read_start(&self.path().join("cmdline"), MAX_COMMAND).unwrap_or_default();
        let words = words.strip_suffix(b"\0").unwrap_or(&words);
        if words.is_empty() {
            return format!("[{}]", self.comm);
        }
        words
            .split(|&byte| byte == 0)
            .map(printable)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: char,
    flags: u64,
    start_time: u64,
    stack_start: u64,
}

fn open_directory(pid: u32) -> Result<OwnedFd, TargetError> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let opened = std::fs::File::options()
        .read(true)
        .custom_flags(flags)
        .open(format!("/proc/{pid}"));
    opened
        .map(OwnedFd::from)
        .map_err(explain(pid, "the directory under /proc"))
}

fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn explain(pid: u32, what: &'static str) -> impl Fn(io::Error) -> TargetError {
    move |source| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => TargetError::NoSuchProcess(pid),
        Some(libc::EACCES | libc::EPERM) => TargetError::NotPermitted(pid),
        _ => TargetError::Unreadable { pid, what, source },
    }
}

/// `/proc/self` is asked too: within a process namespace that mounts the host's `/proc` our own id is another there.
fn is_ourselves(pid: u32) -> bool {
    let shown = std::fs::read_link("/proc/self").ok();
    pid == std::process::id() || shown.is_some_and(|shown| shown == Path::new(&pid.to_string()))
}

/// Whether any thread of the process at `path` runs on: where all end, the main thread is often the first.
fn others_run(path: &Path) -> bool {
    let tasks = std::fs::read_dir(path.join("task")).into_iter().flatten().flatten();
    tasks
        .take(MAX_THREADS)
        .filter_map(|task| read_stat(&task.path()).ok())
        .any(|stat| !stat.has_ended() && stat.flags & ENDING == 0)
}

impl Stat {
    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

fn refuse_unsuitable(pid: u32, stat: &Stat, path: &Path) -> Result<(), TargetError> {
    if stat.has_ended() {
        return Err(if others_run(path) {
            TargetError::MainThreadGone(pid)
        } else {
            TargetError::Zombie(pid)
        });
    }
    if stat.flags & KERNEL_THREAD != 0 {
        return Err(TargetError::KernelThread(pid));
    }
    Ok(())
}

/// Build id and language of the program; refuses one of 32 bits.
fn read_program(pid: u32, path: &Path) -> Result<(Option<String>, &'static str), TargetError> {
    let file = open_regular(&path.join("exe")).map_err(explain(pid, "the program"))?;
    let start = read_at(&file, 0, 5, 5).unwrap_or_default();
    if start == b"\x7fELF\x01" {
        return Err(TargetError::ThirtyTwoBit(pid));
    }
    let unreadable = |source| TargetError::Unreadable {
        pid,
        what: "the program",
        source,
    };
    let headers = ElfHeaders::read(&file).map_err(unreadable)?;
    Ok((headers.build_id(&file), language::guess(&file, &headers)))
}

fn read_stat(path: &Path) -> io::Result<Stat> {
    let stat = read_bounded(&path.join("stat"), MAX_STATUS)?;
    parse_stat(&String::from_utf8_lossy(&stat)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The name is in parentheses and may itself hold any of them: the last one ends it.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        flags: fields.get(6)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
        stack_start: fields.get(25).and_then(|start| start.parse().ok()).unwrap_or(0),
    })
}

pub(super) fn read_status(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read_bounded(&path.join("status"), MAX_STATUS)?).into_owned())
}

pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))?;
    Some(line.split_once(':')?.1.trim())
}

fn seccomp_of(status: &str) -> Seccomp {
    match field(status, "Seccomp") {
        Some("1") => Seccomp::Strict,
        Some("2") => Seccomp::Filter,
        _ => Seccomp::Off,
    }
}

fn without_deleted(path: PathBuf) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(kept) => PathBuf::from(std::ffi::OsStr::from_bytes(kept)),
        None => path,
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
