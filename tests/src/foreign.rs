//! Probes of somebody else's: what another tracer leaves on a target while leaktrace looks at it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::child::run;

/// The kernel's probes as a source of perf events.
const SOURCE: &str = "/sys/bus/event_source/devices/uprobe";
/// `PERF_FLAG_FD_CLOEXEC`
const CLOSE_ON_EXEC: libc::c_ulong = 8;
/// Where `struct perf_event_attr` holds `type`, `size`, `config`, `uprobe_path` and `probe_offset`; its first size.
const TYPE: usize = 0;
const SIZE: usize = 4;
const CONFIG: usize = 8;
const PATH: usize = 56;
const OFFSET: usize = 64;
const BYTES: usize = 112;

/// A return probe on a function of process `pid`, there as long as this lives.
pub struct ReturnProbe {
    _event: OwnedFd,
}

impl ReturnProbe {
    /// Places one on `function` of the program at `path`.
    pub fn place(pid: u32, path: &Path, function: &str) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let mut attributes = [0_u8; BYTES];
        let mut set = |at: usize, value: &[u8]| attributes[at..at + value.len()].copy_from_slice(value);
        let source: u32 = fs::read_to_string(format!("{SOURCE}/type"))?.trim().parse()?;
        set(TYPE, &source.to_ne_bytes());
        set(SIZE, &(BYTES as u32).to_ne_bytes());
        set(CONFIG, &return_bit()?.to_ne_bytes());
        set(PATH, &(name.as_ptr() as u64).to_ne_bytes());
        set(OFFSET, &offset_of(path, function)?.to_ne_bytes());
        // SAFETY: the attributes and the path outlive the call, which reads as many bytes as they say.
        let event = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                attributes.as_ptr(),
                pid as libc::pid_t,
                -1,
                -1,
                CLOSE_ON_EXEC,
            )
        };
        ensure!(
            event >= 0,
            "no return probe on {function}: {}",
            io::Error::last_os_error()
        );
        // SAFETY: the kernel has just given us this descriptor.
        let event = unsafe { OwnedFd::from_raw_fd(event as i32) };
        Ok(Self { _event: event })
    }
}

/// The bit of `config` that makes a probe one on the return.
fn return_bit() -> Result<u64> {
    let format = fs::read_to_string(format!("{SOURCE}/format/retprobe"))?;
    let bit = format.trim().strip_prefix("config:").context("an unknown format")?;
    Ok(1 << bit.parse::<u32>()?)
}

/// Where a function is in a program whose code is mapped as it lies in the file.
fn offset_of(path: &Path, function: &str) -> Result<u64> {
    let listed = run(Command::new("nm").arg(path))?.out;
    let line = listed.iter().find(|line| line.split(' ').nth(2) == Some(function));
    let address = line.and_then(|line| line.split(' ').next());
    Ok(u64::from_str_radix(
        address.with_context(|| format!("no {function}"))?,
        16,
    )?)
}
