//! From the modules of an address space to the points where probes go.

use std::{collections::HashSet, path::Path, sync::Arc};

use object::ReadCache;

use crate::{
    kernel::AttachPoint,
    probes::plan::{self, ModuleCode, Plan, PlanError},
    target::{AddressSpace, Module, elf::Image},
};

/// What is to be done.
#[derive(Debug, Default)]
pub struct Planned {
    /// Where probes go.
    pub points: Vec<AttachPoint>,
    /// The allocators that these see.
    pub allocators: Vec<String>,
    /// What is not seen, and why.
    pub notes: Vec<String>,
    /// The modules that hold an allocator that is not traced, and its name.
    pub untraced: Vec<((u64, u64), String)>,
    /// Code of the allocators, as virtual addresses of a module.
    pub own_code: Vec<((u64, u64), (u64, u64))>,
}

/// Plans for the modules that are not in `armed` yet, and adds those that get probes.
pub fn plan(space: &AddressSpace, armed: &mut HashSet<(u64, u64)>) -> Result<Planned, PlanError> {
    let modules = space.executable_modules();
    let fresh: Vec<Arc<Module>> = modules
        .into_iter()
        .filter(|module| !armed.contains(&module.identity))
        .collect();
    let (modules, planned) = plan_files(&fresh);
    let planned = match planned {
        Ok(planned) => planned,
        Err(_) if !armed.is_empty() => return Ok(Planned::default()),
        Err(nothing) => return Err(nothing),
    };
    armed.extend(
        planned
            .probes
            .iter()
            .filter_map(|probe| Some(modules.get(probe.module)?.identity)),
    );
    let points = planned
        .probes
        .iter()
        .filter_map(|probe| Some(point(modules.get(probe.module)?, probe)));
    let untraced = planned
        .untraced
        .into_iter()
        .filter_map(|(module, name)| Some((modules.get(module)?.identity, name)));
    let own_code = planned
        .own_code
        .into_iter()
        .filter_map(|(module, range)| Some((modules.get(module)?.identity, range)));
    Ok(Planned {
        own_code: own_code.collect(),
        untraced: untraced.collect(),
        points: points.collect(),
        allocators: planned.allocators,
        notes: planned.notes,
    })
}

/// The plan for these files, and those of them that it counts by: one that cannot be read holds no allocator that could
/// be probed.
pub fn plan_files(modules: &[Arc<Module>]) -> (Vec<Arc<Module>>, Result<Plan, PlanError>) {
    let caches: Vec<ReadCache<&std::fs::File>> = modules.iter().map(|module| ReadCache::new(module.file())).collect();
    let images: Vec<_> = caches
        .iter()
        .zip(modules)
        .filter_map(|(cache, module)| Some((module, Image::parse(cache).ok()?)))
        .collect();
    let code: Vec<_> = images
        .iter()
        .map(|(module, image)| ModuleCode {
            path: Path::new(&module.name),
            image,
        })
        .collect();
    let planned = plan::plan(&code);
    (images.iter().map(|(module, _)| Arc::clone(module)).collect(), planned)
}

/// Whether the program `exe` names a loader that maps its libraries.
pub fn has_loader(space: &AddressSpace, exe: &Path) -> bool {
    let modules = space.executable_modules();
    let program = modules.iter().find(|module| module.path == exe);
    program.is_none_or(|module| {
        let cache = ReadCache::new(module.file());
        // One that cannot be read through may have one.
        Image::parse(&cache).map_or(true, |image| image.interpreter().is_some())
    })
}

fn point(module: &Module, probe: &plan::Probe) -> AttachPoint {
    AttachPoint {
        path: module.link_path(),
        shown_path: module.name.clone(),
        offset: probe.offset,
        spec: probe.spec,
    }
}
