//! Keeping the kernel's unwinding tables in step with the code that a process has mapped.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use leaktrace_common::unwind::{UnwindKind, UnwindMapping};
use object::ReadCache;

use crate::{
    kernel::{PlacedPages, Tracer},
    target::{AddressSpace, Mapping, Module, memory::read_memory},
    unwind::{self, PackedModule, RuleInterner, Table},
};

/// Name of the code that the kernel maps into every process.
const VDSO: &str = "[vdso]";

/// What has been built so far.
#[derive(Default)]
pub struct CodeTables {
    interner: RuleInterner,
    /// By device and inode; nothing for a file that has no tables, or for which there was no room.
    files: HashMap<(u64, u64), Option<Placed>>,
    vdso: Option<Placed>,
    left_out: Vec<String>,
    spent: Duration,
}

/// A file's pages in the kernel's tables.
#[derive(Clone, Copy, Debug)]
struct Placed {
    pages: PlacedPages,
    first_address: u64,
}

impl CodeTables {
    /// Builds what is missing for the code now mapped, and puts the mappings in force.
    pub fn follow(&mut self, space: &AddressSpace, tracer: &mut Tracer) {
        let started = Instant::now();
        self.add_files(space, tracer);
        self.add_vdso(space, tracer);
        tracer.unwind().set_rules(self.interner.rules());
        let mappings: Vec<UnwindMapping> = space
            .executable_mappings()
            .map(|(mapping, module)| self.mapping(mapping, module.as_deref()))
            .collect();
        let without_room = tracer.set_mappings(&mappings);
        if without_room > 0 {
            self.left_out.push(format!("{without_room} mappings"));
        }
        self.spent += started.elapsed();
    }

    /// What there was no room for, since last asked.
    pub fn take_left_out(&mut self) -> Vec<String> {
        std::mem::take(&mut self.left_out)
    }

    /// Time spent building.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    fn add_files(&mut self, space: &AddressSpace, tracer: &mut Tracer) {
        let mut fresh = space.executable_modules();
        fresh.retain(|module| !self.files.contains_key(&module.identity));
        let tables = unwind::build_all(&fresh, |module| unwind::table(&ReadCache::new(module.file())));
        for (module, table) in fresh.iter().zip(tables) {
            let placed = table.ok().and_then(|table| self.place(&table, &module.name, tracer));
            self.files.insert(module.identity, placed);
        }
    }

    fn add_vdso(&mut self, space: &AddressSpace, tracer: &mut Tracer) {
        if self.vdso.is_some() {
            return;
        }
        let Some(mapping) = space.mappings().iter().find(|mapping| is_vdso(mapping)) else {
            return;
        };
        let image = read_memory(space.pid, mapping.start, (mapping.end - mapping.start) as usize);
        let table = image.ok().and_then(|image| unwind::table(&image[..]).ok());
        self.vdso = table.and_then(|table| self.place(&table, VDSO, tracer));
    }

    fn place(&mut self, table: &Table, name: &str, tracer: &mut Tracer) -> Option<Placed> {
        let PackedModule {
            first_address,
            rows,
            pages,
            ..
        } = self.interner.pack(table);
        let placed = tracer.unwind().add(&rows, &pages);
        if placed.is_none() {
            self.left_out.push(name.to_owned());
        }
        Some(Placed {
            pages: placed?,
            first_address,
        })
    }

    fn mapping(&self, mapping: &Mapping, module: Option<&Module>) -> UnwindMapping {
        let placed = match module {
            Some(module) => self.files.get(&module.identity).copied().flatten(),
            None if is_vdso(mapping) => self.vdso,
            None => None,
        };
        // The vDSO's image begins at its mapping, and counts its addresses from there.
        let first = module.map_or(Some(0), |module| module.virtual_address(mapping, mapping.start));
        let bare = UnwindMapping {
            start: mapping.start,
            end: mapping.end,
            ..UnwindMapping::default()
        };
        match (placed, first) {
            (Some(placed), Some(first)) => UnwindMapping {
                bias: mapping.start.wrapping_sub(first).wrapping_add(placed.first_address),
                first_page: placed.pages.first_page,
                pages: placed.pages.pages,
                kind: UnwindKind::Tables as u32,
                ..bare
            },
            _ => UnwindMapping {
                kind: UnwindKind::Guess as u32,
                ..bare
            },
        }
    }
}

fn is_vdso(mapping: &Mapping) -> bool {
    mapping.path.as_os_str() == VDSO
}
