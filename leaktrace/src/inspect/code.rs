//! The code of a process: how stacks through it would be walked, and where its names would come from.

use std::{
    collections::BTreeMap,
    num::NonZero,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use leaktrace_common::unwind::Rule;
use object::ReadCache;

use super::{
    findings::{CodeFile, OtherCode, Totals, Unwinding},
    gather::nanoseconds,
};
use crate::{
    symbols::source::name_source,
    target::{AddressSpace, Mapping, Module, Root, memory::read_memory},
    unwind::{self, PackedModule, RuleInterner, Table, UnwindError},
};

/// Name of the code that the kernel maps into every process.
const VDSO: &str = "[vdso]";
/// Name of where return probes come back to, in a process that is traced already: no code of the program's.
const TRAMPOLINE: &str = "[uprobes]";
/// Most bytes of the vDSO that are read.
const MAX_VDSO: u64 = 1 << 20;

/// All code of a process.
#[derive(Debug, Default)]
pub struct Code {
    /// In files.
    pub files: Vec<CodeFile>,
    /// In none.
    pub other: Vec<OtherCode>,
    /// What could not be looked at.
    pub notes: Vec<String>,
    /// Of the tables.
    pub totals: Totals,
}

/// Builds the tables as a trace does, and throws them away.
pub fn code(space: &AddressSpace) -> Code {
    let modules = space.executable_modules();
    let mut builder = Builder::default();
    let started = Instant::now();
    let files = builder.files(&modules);
    let other = builder.other(space);
    let mut totals = builder.totals();
    totals.build_ns = nanoseconds(started);
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    totals.threads = cores.min(modules.len().max(1)) as u64;
    let host = Root::open(Path::new("/")).ok();
    let mut code = Code {
        files: files
            .into_iter()
            .zip(&modules)
            .map(|(unwinding, module)| CodeFile {
                path: module.name.clone(),
                build_id: module.build_id.clone(),
                deleted: module.deleted,
                unwinding,
                names: Some(name_source(module, space.root(), host.as_ref())),
            })
            .collect(),
        other,
        notes: Vec::new(),
        totals,
    };
    add_unopened(space, &mut code);
    code
}

/// Files that are mapped and could not be opened.
fn add_unopened(space: &AddressSpace, code: &mut Code) {
    let unopened = space
        .executable_mappings()
        .filter(|(mapping, module)| module.is_none() && mapping.is_file());
    let mut paths: Vec<String> = unopened
        .map(|(mapping, _)| crate::target::printable(mapping.path.as_os_str().as_encoded_bytes()))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        code.notes.push(format!(
            "{path} could not be opened, or is no 64-bit ELF file: not looked at (root can open more)"
        ));
        code.files.push(CodeFile {
            path,
            build_id: None,
            deleted: false,
            unwinding: Unwinding::Guess {
                why: "the file could not be opened".to_owned(),
            },
            names: None,
        });
    }
}

#[derive(Default)]
struct Builder {
    interner: RuleInterner,
    rows: u64,
    bytes: u64,
}

impl Builder {
    fn files(&mut self, modules: &[Arc<Module>]) -> Vec<Unwinding> {
        let timed: Vec<(&Arc<Module>, AtomicU64)> = modules.iter().map(|module| (module, AtomicU64::new(0))).collect();
        let tables = unwind::build_all(&timed, |(module, took)| {
            let started = Instant::now();
            let table = unwind::table(&ReadCache::new(module.file()));
            took.store(nanoseconds(started), Ordering::Relaxed);
            table
        });
        tables
            .iter()
            .zip(&timed)
            .map(|(table, (module, took))| self.unwinding(table.as_ref(), took.load(Ordering::Relaxed), is_go(module)))
            .collect()
    }

    /// Code in no file, by name.
    fn other(&mut self, space: &AddressSpace) -> Vec<OtherCode> {
        let mut named: BTreeMap<String, Vec<&Mapping>> = BTreeMap::new();
        for (mapping, module) in space.executable_mappings() {
            if module.is_none() && !mapping.is_file() && mapping.path.as_os_str() != TRAMPOLINE {
                named.entry(name_of(mapping)).or_default().push(mapping);
            }
        }
        named
            .into_iter()
            .map(|(name, mappings)| OtherCode {
                mappings: mappings.len() as u64,
                bytes: mappings.iter().map(|mapping| mapping.end - mapping.start).sum(),
                unwinding: self.without_file(space.pid, &name, &mappings),
                name,
            })
            .collect()
    }

    fn without_file(&mut self, pid: u32, name: &str, mappings: &[&Mapping]) -> Unwinding {
        let guess = |why: &str| Unwinding::Guess { why: why.to_owned() };
        let Some(mapping) = mappings.first().filter(|_| name == VDSO) else {
            return guess("the code is in no file");
        };
        let length = (mapping.end - mapping.start).min(MAX_VDSO);
        let started = Instant::now();
        match read_memory(pid, mapping.start, length as usize) {
            Ok(image) => {
                let table = unwind::table(&image[..]);
                self.unwinding(table.as_ref(), nanoseconds(started), false)
            }
            Err(_) => guess("the memory of the process could not be read (root can)"),
        }
    }

    fn unwinding(&mut self, table: Result<&Table, &UnwindError>, build_ns: u64, frame_pointers: bool) -> Unwinding {
        match table {
            Ok(table) => {
                let packed = self.interner.pack(table);
                let (rows, bytes) = (packed.rows.len() as u64, bytes_of(&packed));
                self.rows += rows;
                self.bytes += bytes;
                Unwinding::Tables {
                    rows,
                    bytes,
                    build_ns,
                    skipped: packed.skipped as u64,
                    frame_pointers,
                }
            }
            Err(_) if frame_pointers => Unwinding::FramePointers,
            Err(error) => Unwinding::Guess { why: error.to_string() },
        }
    }

    fn totals(&self) -> Totals {
        let rules = self.interner.rules().len() as u64;
        Totals {
            rows: self.rows,
            rules,
            table_bytes: self.bytes + rules * size_of::<Rule>() as u64,
            ..Totals::default()
        }
    }
}

/// Go code keeps frame pointers.
fn is_go(module: &Module) -> bool {
    module.headers().section(unwind::GO_SECTION).is_some()
}

fn bytes_of(packed: &PackedModule) -> u64 {
    4 * (packed.rows.len() + packed.pages.len()) as u64
}

fn name_of(mapping: &Mapping) -> String {
    let name = crate::target::printable(mapping.path.as_os_str().as_encoded_bytes());
    if name.is_empty() { "[anon]".to_owned() } else { name }
}
