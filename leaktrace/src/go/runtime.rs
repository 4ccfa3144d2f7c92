//! The Go runtime of a running process: found, and checked before anything it says is believed.

use std::io;
use std::sync::Arc;

use super::bytes::{u32_at, u64_at};
use super::goroutines::List;
use super::layout::{Layout, Source};
use super::layout_found::{Found, Unfit};
use super::locate::{Globals, Goroutines, OwnProfile, wait_reasons};
use super::memory::Memory;
use super::program::Program;
use super::words::Words;
use super::{BuildInfo, HeapProbes, ModuleData, NoProbe, cgo, pclntab};
use crate::target::{AddressSpace, Module};

/// Most bytes taken for the tables of a program.
const BUDGET: u64 = 1 << 30;
/// Most wait reasons: there are fewer than fifty.
const MAX_REASONS: u64 = 128;
/// Fewest that are believed to be them: the oldest version has twenty-seven.
const LEAST_REASONS: usize = 20;
/// Longest name of one.
const MAX_REASON: u64 = 64;

/// Why nothing can be told of a process's Go runtime.
#[derive(Debug, thiserror::Error)]
pub enum GoError {
    /// It has none.
    #[error("process {0} is no Go program: goroutines are what Go programs have; for its allocations use --pid alone")]
    NotGo(u32),
    /// There is one, without the tables that are needed.
    #[error(
        "process {pid} is a Go program ({version}) whose {what} cannot be found: it may be older than Go 1.18, damaged, \
         or packed; try a build of it that is not"
    )]
    Missing {
        /// The process.
        pid: u32,
        /// What it says its version is.
        version: String,
        /// What is missing.
        what: &'static str,
    },
    /// What was found contradicts itself.
    #[error(
        "the goroutines of process {pid} ({version}) cannot be read: {what}; its Go differs from those that are known, \
         or it has only begun to run"
    )]
    Unsound {
        /// The process.
        pid: u32,
        /// What it says its version is.
        version: String,
        /// What does not fit.
        what: &'static str,
    },
    /// Its heap cannot be probed.
    #[error("the heap of process {pid} ({version}) cannot be traced: {why}")]
    NoProbe {
        /// The process.
        pid: u32,
        /// What it says its version is.
        version: String,
        /// Why.
        why: NoProbe,
    },
    /// Its heap cannot be looked through.
    #[error("the heap of process {pid} cannot be looked through for leaks: {what}; run without --leaks")]
    NoProof {
        /// The process.
        pid: u32,
        /// Why.
        what: &'static str,
    },
    /// A part of it does not fit together, where the rest does.
    #[error("the {part} of process {pid} ({version}) cannot be read: {what}")]
    Refused {
        /// The process.
        pid: u32,
        /// What it says its version is.
        version: String,
        /// Which part.
        part: &'static str,
        /// What does not fit.
        what: &'static str,
    },
    /// It ended, or may not be read.
    #[error("cannot read the memory of process {pid}: {source}")]
    Unreadable {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
}

/// A process's Go runtime.
#[derive(Debug)]
pub struct Runtime {
    /// What the program says of itself.
    pub info: BuildInfo,
    /// Functions, files and lines.
    pub table: pclntab::Table,
    /// Where its parts are, as the file counts addresses.
    pub module: ModuleData,
    /// The file.
    pub file: Arc<Module>,
    /// What the process's addresses are above those of the file.
    pub bias: u64,
    /// Where the fields of its structures are.
    pub layout: Arc<Layout>,
    /// Where that is known from.
    pub source: Source,
    /// Structures that the program's debug information describes otherwise than they can be read.
    pub unfit: Vec<Unfit>,
    /// Where its variables are, as the process counts addresses.
    pub globals: Globals,
    /// Names of the reasons to wait, by number; empty if they were not found.
    pub reasons: Vec<String>,
    /// Its memory.
    pub memory: Memory,
    /// Where its heap can be probed, as the file counts addresses.
    pub probes: Result<HeapProbes, NoProbe>,
    /// Code in C through which the runtime maps memory for itself, as the file counts addresses.
    pub mapping_code: Vec<(u64, u64)>,
    /// Whether other files of the process are Go's too: plugins, or libraries with a runtime of their own.
    pub has_others: bool,
}

impl Runtime {
    /// Finds the runtime of a process, and checks it.
    ///
    /// # Errors
    /// There is none, or it cannot be read or trusted.
    pub fn open(space: &AddressSpace) -> Result<Self, GoError> {
        let runtime = Self::find(space)?;
        runtime.check()?;
        Ok(runtime)
    }

    /// Whether a process has a Go runtime.
    pub fn is_in(space: &AddressSpace) -> bool {
        find(space).is_some()
    }

    /// Finds the runtime of a process, which may not have begun to run.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn find(space: &AddressSpace) -> Result<Self, GoError> {
        let pid = space.pid;
        let (file, bias) = find(space).ok_or(GoError::NotGo(pid))?;
        let headers = file.headers();
        let info = BuildInfo::read(file.file(), headers).unwrap_or_else(|| BuildInfo {
            version: "unknown version".to_owned(),
            ..BuildInfo::default()
        });
        let missing = |what| GoError::Missing {
            pid,
            version: info.version.clone(),
            what,
        };
        let program =
            Program::read(file.file(), headers, BUDGET).ok_or_else(|| missing("table of functions (.gopclntab)"))?;
        let module = program.module.ok_or_else(|| missing("description (moduledata)"))?;
        let found = Found::of(&info, file.file(), headers).ok_or_else(|| missing("layout"))?;
        let words = Words::read(file.file(), headers);
        let globals = Globals::find(&program.table, &words, &found.layout, |address| {
            module.is_zeroed(address)
        });
        let arrays = wait_reasons(&program.table, &words).into_iter();
        let reasons = arrays.map(|array| read_reasons(&words, array)).max_by_key(Vec::len);
        let reasons = reasons.filter(|names| names.len() >= LEAST_REASONS).unwrap_or_default();
        Ok(Self {
            probes: HeapProbes::find(&program.table, &words),
            mapping_code: cgo::mapping_code(&program.table, &words),
            table: program.table,
            globals: globals.moved_by(bias).without(&found.unfit),
            reasons,
            memory: Memory { pid },
            has_others: has_others(space, &file),
            module,
            bias,
            layout: Arc::new(found.layout),
            source: found.source,
            unfit: found.unfit,
            info,
            file,
        })
    }

    /// Checks the heap against the garbage collector's counts: each collection moves the sweep generation by two.
    ///
    /// # Errors
    /// One of them was not found, or they contradict each other.
    pub fn check_heap(&self) -> Result<(), GoError> {
        let (Some(heap), Some(stats)) = (self.globals.heap, self.globals.stats) else {
            return Err(self.missing("heap"));
        };
        let number = |address: u64| {
            let bytes = self.memory.bytes(address, 4).map_err(|error| self.unreadable(error))?;
            Ok(u32_at(&bytes, 0).unwrap_or(0))
        };
        // Between two reads a collection may end.
        for _ in 0..16 {
            let generation = number(heap.wrapping_add(self.layout.mheap.sweepgen as u64))?;
            let collections = number(stats.wrapping_add(self.layout.mstats.numgc as u64))?;
            if collections.wrapping_mul(2) == generation {
                return Ok(());
            }
        }
        Err(self.no_proof("its heap and its garbage collector contradict each other"))
    }

    /// Where the list of all goroutines is.
    ///
    /// # Errors
    /// The code that says so was not recognised.
    pub fn list(&self) -> Result<Goroutines, GoError> {
        self.globals
            .goroutines
            .ok_or_else(|| self.missing("list of goroutines"))
    }

    /// The calls at a return address of the process, innermost first.
    pub fn calls(&self, address: u64) -> Vec<pclntab::Call<'_>> {
        self.table.calls(address.wrapping_sub(self.bias).wrapping_sub(1))
    }

    /// An error of reading.
    pub fn unreadable(&self, source: io::Error) -> GoError {
        GoError::Unreadable {
            pid: self.memory.pid,
            source,
        }
    }

    /// An error of not finding something.
    pub fn missing(&self, what: &'static str) -> GoError {
        GoError::Missing {
            pid: self.memory.pid,
            version: self.info.version.clone(),
            what,
        }
    }

    /// An error of a heap that cannot be looked through.
    pub fn no_proof(&self, what: &'static str) -> GoError {
        GoError::NoProof {
            pid: self.memory.pid,
            what,
        }
    }

    /// An error of a part that cannot be believed.
    pub fn refused(&self, part: &'static str, what: &'static str) -> GoError {
        GoError::Refused {
            pid: self.memory.pid,
            version: self.info.version.clone(),
            part,
            what,
        }
    }

    /// An error of finding what cannot be.
    pub fn unsound(&self, what: &'static str) -> GoError {
        GoError::Unsound {
            pid: self.memory.pid,
            version: self.info.version.clone(),
            what,
        }
    }

    /// Checks the list of goroutines against what else is known.
    ///
    /// # Errors
    /// It cannot be read or trusted.
    pub fn check(&self) -> Result<(), GoError> {
        let list = List::read(self)?;
        match list.objection(self)? {
            Some(what) => Err(self.unsound(what)),
            None => Ok(()),
        }
    }
}

/// The first file with a Go runtime, and what the process's addresses are above those in it. The program comes before
/// its libraries.
fn find(space: &AddressSpace) -> Option<(Arc<Module>, u64)> {
    let mut modules = space
        .executable_mappings()
        .filter_map(|(mapping, module)| Some((mapping, module?)));
    modules.find_map(|(mapping, module)| {
        let bias = mapping
            .start
            .wrapping_sub(module.virtual_address(mapping, mapping.start)?);
        Program::is_marked(module.headers()).then_some((module, bias))
    })
}

/// Whether a file other than `file` is Go's.
fn has_others(space: &AddressSpace, file: &Module) -> bool {
    let mut modules = space.executable_modules().into_iter();
    modules.any(|module| module.identity != file.identity && Program::is_marked(module.headers()))
}

/// The names of the reasons to wait: strings one behind the other, up to what is none.
fn read_reasons(words: &Words<'_>, array: u64) -> Vec<String> {
    let name = |index: u64| {
        let at = array.checked_add(16 * index)?;
        let (text, length) = (words.word(at)?, words.word(at.checked_add(8)?)?);
        // The first is empty.
        let bytes = match length {
            0 => Vec::new(),
            1..=MAX_REASON => words.bytes(text, length)?,
            _ => return None,
        };
        let text = String::from_utf8(bytes).ok()?;
        (text.chars().all(|c| c.is_ascii_graphic() || c == ' ') && text.is_empty() == (index == 0)).then_some(text)
    };
    (0..MAX_REASONS).map_while(name).collect()
}

impl ModuleData {
    /// Whether `address` is that of a variable that is zero at the start.
    pub fn is_zeroed(&self, address: u64) -> bool {
        [self.bss, self.noptrbss]
            .iter()
            .any(|(start, end)| (*start..*end).contains(&address))
    }
}

impl Globals {
    /// The same, in a process whose addresses are higher by `bias`.
    fn moved_by(&self, bias: u64) -> Self {
        let moved = |address: u64| address.wrapping_add(bias);
        Self {
            goroutines: self.goroutines.map(|found| Goroutines {
                list: moved(found.list),
                pointer: moved(found.pointer),
                length: moved(found.length),
            }),
            heap: self.heap.map(moved),
            stats: self.stats.map(moved),
            semaphores: self.semaphores.map(moved),
            controller: self.controller.map(moved),
            own_profile: self.own_profile.map(|found| OwnProfile {
                buckets: moved(found.buckets),
                rate: moved(found.rate),
                disabled: found.disabled.map(moved),
            }),
        }
    }
}

impl Globals {
    /// Without the variables whose structures cannot be read: what needs them is refused, and the rest is told.
    fn without(self, unfit: &[Unfit]) -> Self {
        let fits = |names: &[&str]| !unfit.iter().any(|unfit| names.contains(&&*unfit.structure));
        Self {
            goroutines: self.goroutines.filter(|_| fits(&["g", "gobuf"])),
            heap: self.heap.filter(|_| fits(&["mheap", "mspan", "heapArena", "special"])),
            stats: self.stats.filter(|_| fits(&["mstats"])),
            semaphores: self.semaphores.filter(|_| fits(&["sudog"])),
            controller: self.controller.filter(|_| fits(&["gcControllerState"])),
            own_profile: self.own_profile.filter(|_| fits(&["bucket", "memRecordCycle"])),
        }
    }
}

/// A word of the process that is there or is 0.
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    u64_at(bytes, at).unwrap_or(0)
}
