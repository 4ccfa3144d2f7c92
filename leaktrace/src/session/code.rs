//! Keeping the kernel's unwinding tables in step with the code that a process has mapped.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use leaktrace_common::unwind::{UnwindKind, UnwindMapping};
use object::ReadCache;

use crate::{
    kernel::Tracer,
    target::{AddressSpace, Mapping, Module, memory::read_memory},
    unwind::{self, PackedModule, RuleInterner, Table},
};

/// Name of the code that the kernel maps into every process.
const VDSO: &str = "[vdso]";
/// Name of what the kernel maps into processes that are probed. Return probes come back to its start.
const TRAMPOLINE: &str = "[uprobes]";

/// Sections of unwinding information.
const SECTIONS: [&[u8]; 2] = [b".eh_frame", b".debug_frame"];

/// Bytes of unwinding information of all code now mapped, as the files say.
pub fn unwinding_bytes(space: &AddressSpace) -> u64 {
    let size = |module: &Arc<Module>, name: &[u8]| {
        let section = module.headers().section(name);
        section.map_or(0, |section| section.sh_size.get(object::LittleEndian))
    };
    let modules = space.executable_modules();
    let sizes = modules
        .iter()
        .flat_map(|module| SECTIONS.map(|name| size(module, name)));
    sizes.fold(0, u64::saturating_add)
}

/// What has been built so far.
#[derive(Default)]
pub struct CodeTables {
    interner: RuleInterner,
    /// By device and inode; nothing for a file that has no tables, or for which there was no room.
    files: HashMap<(u64, u64), Option<Rc<Placed>>>,
    /// The first file of each build id, held open.
    originals: HashMap<String, Arc<Module>>,
    vdso: Option<Rc<Placed>>,
    left_out: Vec<String>,
    spent: Duration,
}

/// A file whose pages are in the kernel's tables. Its rows are there, and no longer here.
struct Placed {
    packed: PackedModule,
    first_page: u32,
}

impl CodeTables {
    /// Builds what is missing for the code now mapped, and puts the mappings in force.
    pub fn follow(&mut self, space: &AddressSpace, tracer: &mut Tracer) {
        let started = Instant::now();
        self.add_files(space, tracer);
        self.add_vdso(space, tracer);
        tracer.unwind().set_rules(self.interner.rules());
        let mut mappings: Vec<UnwindMapping> = space
            .executable_mappings()
            .map(|(mapping, module)| self.mapping(mapping, module.as_deref()))
            .collect();
        widen_trampoline(&mut mappings);
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
        fresh.retain(|module| !self.files.contains_key(&module.identity) && !self.take_copy(module));
        let tables = unwind::build_all(&fresh, |module| unwind::table(&ReadCache::new(module.file())));
        for (module, table) in fresh.iter().zip(tables) {
            let placed = table.ok().and_then(|table| self.place(&table, &module.name, tracer));
            self.files.insert(module.identity, placed);
            if let Some(build_id) = &module.build_id {
                let original = self.originals.entry(build_id.clone());
                original.or_insert_with(|| Arc::clone(module));
            }
        }
    }

    /// Whether the file is a copy of one that is known: the same build id, and laid out alike.
    fn take_copy(&mut self, module: &Module) -> bool {
        let original = module.build_id.as_ref().and_then(|id| self.originals.get(id));
        let original = original.filter(|original| original.headers().is_same_layout(module.headers()));
        let Some(placed) = original.and_then(|original| self.files.get(&original.identity).cloned()) else {
            return false;
        };
        self.files.insert(module.identity, placed);
        true
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

    fn place(&mut self, table: &Table, name: &str, tracer: &mut Tracer) -> Option<Rc<Placed>> {
        let mut packed = self.interner.pack(table);
        // A library of data alone.
        if packed.page_count() == 0 {
            return None;
        }
        let placed = tracer.unwind().add(&packed.rows, &packed.pages);
        packed.rows = Vec::new();
        if placed.is_none() {
            self.left_out.push(name.to_owned());
        }
        Some(Rc::new(Placed {
            packed,
            first_page: placed?.first_page,
        }))
    }

    fn mapping(&self, mapping: &Mapping, module: Option<&Module>) -> UnwindMapping {
        let placed = match module {
            Some(module) => self.files.get(&module.identity).and_then(Option::as_deref),
            None if is_vdso(mapping) => self.vdso.as_deref(),
            None => None,
        };
        // The vDSO's image begins at its mapping, whatever offset that is said to have.
        let offset = if module.is_some() { mapping.offset } else { 0 };
        let by_tables = |placed: &Placed| {
            placed
                .packed
                .mapping(mapping.start, mapping.end, offset, placed.first_page)
        };
        let found = placed.and_then(by_tables).unwrap_or(UnwindMapping {
            start: mapping.start,
            end: mapping.end,
            kind: UnwindKind::Guess as u32,
            ..UnwindMapping::default()
        });
        UnwindMapping {
            kind: kind(mapping, module).map_or(found.kind, |kind| kind as u32),
            ..found
        }
    }
}

/// How code is unwound that is not just like other code.
fn kind(mapping: &Mapping, module: Option<&Module>) -> Option<UnwindKind> {
    if mapping.path.as_os_str() == TRAMPOLINE {
        return Some(UnwindKind::Trampoline);
    }
    let is_go = module.is_some_and(|module| module.headers().section(unwind::GO_SECTION).is_some());
    is_go.then_some(UnwindKind::FramePointers)
}

/// A return address is looked up by the byte before it, which for the trampoline is before its mapping.
fn widen_trampoline(mappings: &mut [UnwindMapping]) {
    let is_trampoline = |mapping: &UnwindMapping| mapping.kind == UnwindKind::Trampoline as u32;
    let Some(at) = mappings.iter().position(is_trampoline) else {
        return;
    };
    mappings[at].start -= 1;
    if let Some(before) = at.checked_sub(1) {
        mappings[before].end = mappings[before].end.min(mappings[at].start);
    }
}

fn is_vdso(mapping: &Mapping) -> bool {
    mapping.path.as_os_str() == VDSO
}
