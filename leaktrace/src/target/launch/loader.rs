//! Watching a program's loader: which system calls map code, and when it has done.

use std::fs;
use std::ops::Range;

use nix::sys::ptrace;
use nix::unistd::Pid;

use super::stops::Go;

/// Where the auxiliary vector says that the kernel put the loader.
const AT_BASE: u64 = 7;
/// Bytes of one entry of the auxiliary vector.
const AUXILIARY_BYTES: usize = 16;
/// System calls since the last mapping of code after which the loader is taken to have done. A loader searches some
/// hundred paths for a library; a musl program, whose C library *is* the loader, never leaves it.
const PATIENCE: u32 = 4096;

/// A loader at work.
#[derive(Debug)]
pub(super) struct Loader {
    code: Range<u64>,
    mapping: bool,
    patience: u32,
}

/// What a stop at a system call meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The loader goes on.
    More,
    /// It has mapped a file with code at this address.
    Mapped(u64),
    /// The program itself runs.
    Done,
}

impl Loader {
    /// The loader of the program that `pid` is about to run; none for a static program.
    pub(super) fn of(pid: Pid) -> Option<Self> {
        let base = auxiliary_value(&fs::read(format!("/proc/{pid}/auxv")).ok()?, AT_BASE).filter(|&base| base != 0)?;
        let code = file_at(&fs::read_to_string(format!("/proc/{pid}/maps")).ok()?, base)?;
        Some(Self {
            code,
            mapping: false,
            patience: PATIENCE,
        })
    }

    /// How the process goes on to the next stop.
    pub(super) fn go(loader: Option<&Self>) -> Go {
        if loader.is_some() { Go::ToSystemCall } else { Go::Freely }
    }

    /// Takes note of a stop of `pid` at a system call.
    pub(super) fn step(&mut self, pid: Pid) -> Step {
        let Ok(info) = ptrace::syscall_info(pid) else {
            return Step::Done;
        };
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                // SAFETY: the kernel says that it filled this member.
                let entry = unsafe { info.u.entry };
                self.enter(info.instruction_pointer, entry.nr, entry.args)
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                // SAFETY: as above.
                let exit = unsafe { info.u.exit };
                self.leave(exit.sval, exit.is_error != 0)
            }
            _ => Step::More,
        }
    }

    fn enter(&mut self, instruction: u64, number: u64, arguments: [u64; 6]) -> Step {
        self.patience = self.patience.saturating_sub(1);
        if !self.code.contains(&instruction) || self.patience == 0 {
            return Step::Done;
        }
        self.mapping = maps_code(number, arguments);
        Step::More
    }

    fn leave(&mut self, result: i64, is_error: bool) -> Step {
        if !std::mem::take(&mut self.mapping) || is_error {
            return Step::More;
        }
        self.patience = PATIENCE;
        Step::Mapped(result.cast_unsigned())
    }
}

/// Whether a system call maps a file so that its code can be executed.
fn maps_code(number: u64, [_, _, protection, flags, file, _]: [u64; 6]) -> bool {
    let (protection, flags, file) = (protection as i32, flags as i32, file as i32);
    number.cast_signed() == libc::SYS_mmap
        && protection & libc::PROT_EXEC != 0
        && flags & libc::MAP_ANONYMOUS == 0
        && file >= 0
}

fn auxiliary_value(vector: &[u8], wanted: u64) -> Option<u64> {
    let (entries, _) = vector.as_chunks::<AUXILIARY_BYTES>();
    entries.iter().find_map(|entry| {
        let (key, value) = entry.split_first_chunk::<8>()?;
        (u64::from_ne_bytes(*key) == wanted).then(|| value.try_into().map(u64::from_ne_bytes).ok())?
    })
}

/// The addresses over which the file mapped at `address` extends.
fn file_at(maps: &str, address: u64) -> Option<Range<u64>> {
    let lines: Vec<_> = maps.lines().filter_map(mapping).collect();
    let (_, file) = lines.iter().find(|(range, _)| range.contains(&address))?;
    let mut ranges = lines.iter().filter(|(_, other)| other == file).map(|(range, _)| range);
    let first = ranges.next()?;
    Some(first.start..ranges.next_back().unwrap_or(first).end)
}

/// The addresses, and the device and inode, of one line of `/proc/PID/maps`.
fn mapping(line: &str) -> Option<(Range<u64>, (&str, &str))> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let file = (fields.nth(2)?, fields.next()?);
    Some((
        u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?,
        file,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
555555554000-555555556000 r--p 00000000 fe:00 11 /usr/bin/program
7ffff7fc3000-7ffff7fc5000 r-xp 00000000 00:00 0 [vdso]
7ffff7fc5000-7ffff7fc6000 r--p 00000000 fe:00 22 /usr/lib/ld-linux-x86-64.so.2
7ffff7fc6000-7ffff7ff0000 r-xp 00001000 fe:00 22 /usr/lib/ld-linux-x86-64.so.2
7ffff7ffb000-7ffff7fff000 rw-p 00036000 fe:00 22 /usr/lib/ld-linux-x86-64.so.2
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]
";
    const EXECUTABLE_FILE: [u64; 6] = [0, 4096, 5, 2, 3, 0];

    fn loader() -> Loader {
        Loader {
            code: 0x1000..0x2000,
            mapping: false,
            patience: PATIENCE,
        }
    }

    fn mmap() -> u64 {
        libc::SYS_mmap.cast_unsigned()
    }

    #[test]
    fn a_loader_extends_over_all_mappings_of_its_file() {
        assert_eq!(
            file_at(MAPS, 0x7fff_f7fc_5000),
            Some(0x7fff_f7fc_5000..0x7fff_f7ff_f000)
        );
        assert_eq!(
            file_at(MAPS, 0x5555_5555_4000),
            Some(0x5555_5555_4000..0x5555_5555_6000)
        );
        assert_eq!(file_at(MAPS, 0x1000), None);
    }

    #[test]
    fn the_base_is_in_the_auxiliary_vector() {
        let vector = [6_u64, 4096, 7, 0x7fff_0000, 0, 0].map(u64::to_ne_bytes).concat();
        assert_eq!(auxiliary_value(&vector, AT_BASE), Some(0x7fff_0000));
        assert_eq!(auxiliary_value(&vector, 9), None);
        assert_eq!(auxiliary_value(&vector[..20], AT_BASE), None);
    }

    #[test]
    fn a_mapping_of_code_is_told_when_it_has_succeeded() {
        let mut loader = loader();
        assert_eq!(loader.enter(0x1800, mmap(), EXECUTABLE_FILE), Step::More);
        assert_eq!(loader.leave(0x7000, false), Step::Mapped(0x7000));
        assert_eq!(
            loader.leave(0x7000, false),
            Step::More,
            "a call that was not seen to start"
        );
        assert_eq!(loader.enter(0x1800, mmap(), EXECUTABLE_FILE), Step::More);
        assert_eq!(loader.leave(-12, true), Step::More, "failed");
        let (data, anonymous) = ([0, 4096, 3, 2, 3, 0], [0, 4096, 5, 0x22, u64::from(u32::MAX), 0]);
        for (number, arguments) in [(mmap(), data), (mmap(), anonymous), (0, EXECUTABLE_FILE)] {
            assert_eq!(loader.enter(0x1800, number, arguments), Step::More);
            assert_eq!(loader.leave(0x7000, false), Step::More, "{number} {arguments:?}");
        }
    }

    #[test]
    fn it_has_done_when_others_call_or_it_maps_nothing_for_long() {
        assert_eq!(loader().enter(0x2000, mmap(), EXECUTABLE_FILE), Step::Done);
        let mut loader = loader();
        let calls = (0..=PATIENCE)
            .take_while(|_| loader.enter(0x1800, 0, [0; 6]) == Step::More)
            .count();
        assert_eq!(calls as u32, PATIENCE - 1);
    }
}
