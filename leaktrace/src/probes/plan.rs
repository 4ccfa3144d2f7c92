//! From the code of a process's modules to the probes that see every call of its allocators. Pure.
//!
//! Every module that defines an allocator is probed, also where one takes the place of another: which of two `malloc`s
//! a call reaches is the loader's choice per caller, and calls from one into the other are told apart at run time.

mod module;

use std::collections::BTreeSet;
use std::path::Path;

use leaktrace_common::probes::{CallKind, ProbeSpec};
use object::ReadRef;

use super::catalogue::{ALLOCATORS, Allocator, CatalogueFunction, OWN_OPERATORS, REPLACEMENT, THROW, is_unmistakable};
use crate::target::elf::Image;
use module::ModulePlan;

/// What only the dynamic loader of glibc defines. The loader has a small `malloc` for itself (exported before 2.32),
/// used until the C library is in place and bypassed after. It never gives memory back, and nothing it hands out
/// belongs to the program: its blocks would be reported as leaks, all of them for ever.
const LOADER_VARIABLE: &str = "_rtld_global";

/// How many modules an error names.
const NAMED_MODULES: usize = 4;

/// One mapped file with code.
#[derive(Debug)]
pub struct ModuleCode<'image, 'data, R: ReadRef<'data>> {
    /// What the process calls it.
    pub path: &'image Path,
    /// Its image.
    pub image: &'image Image<'data, R>,
}

/// One probe to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The function probed; of several names for one function, the first in the catalogue.
    pub function: String,
    /// Which of the modules given holds it.
    pub module: usize,
    /// Offset in the module's file of the instruction probed.
    pub offset: u64,
    /// How to read a call, with distances from the instruction probed.
    pub spec: ProbeSpec,
    /// Whether the kernel emulates that instruction instead of single-stepping it.
    pub emulated: bool,
}

/// What to probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the modules, then of addresses.
    pub probes: Vec<Probe>,
    /// The allocators that these probes see, by name.
    pub allocators: Vec<String>,
    /// What is not seen, and why; a sentence each, for the user.
    pub notes: Vec<String>,
    /// Which modules hold an allocator that is not traced, and its name.
    pub untraced: Vec<(usize, String)>,
    /// Code of the allocators, as virtual addresses of a module: what it maps is not the program's.
    pub own_code: Vec<(usize, (u64, u64))>,
}

/// Why there is nothing to probe.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// No module defines an allocator that this version traces.
    #[error("no allocator to trace found in {}{}", looked_at(modules), advice(notes))]
    NoAllocator {
        /// The modules looked at.
        modules: Vec<String>,
        /// What was found instead.
        notes: Vec<String>,
    },
}

/// Chooses the probes for a process with these modules.
///
/// # Errors
/// When none of them defines an allocator that can be traced.
pub fn plan<'data, R: ReadRef<'data>>(modules: &[ModuleCode<'_, 'data, R>]) -> Result<Plan, PlanError> {
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut plan = Plan::default();
    let allocating = allocating_names();
    let mut throws = Vec::new();
    for (index, module) in modules.iter().enumerate() {
        if module.image.variable(LOADER_VARIABLE).is_none() {
            let defined = module.image.functions_even_local(&names, is_unmistakable);
            throws.extend(defined.found.get(THROW.name).map(|&function| (index, function)));
            ModulePlan::new(index, module, &defined, &allocating).add_to(&mut plan);
        }
    }
    if plan.probes.iter().any(|probe| probe.spec.may_throw != 0) {
        let probes = throws.iter().map(|(index, function)| {
            let code = modules[*index].image.bytes(function);
            module::probe(*index, *function, code, THROW.name.to_owned(), THROW.spec)
        });
        plan.probes.extend(probes);
    }
    if plan.probes.is_empty() {
        let modules = modules.iter().map(|module| module.path.display().to_string()).collect();
        return Err(PlanError::NoAllocator {
            modules,
            notes: plan.notes,
        });
    }
    Ok(plan)
}

/// Everything looked for in a module, so that its tables are searched once.
fn names() -> Vec<String> {
    let known = || ALLOCATORS.iter().chain([&REPLACEMENT, &OWN_OPERATORS]);
    let functions = known().flat_map(Allocator::functions).map(|(name, _)| name);
    let signs = known().flat_map(|allocator| allocator.recognised_by);
    let signs = signs.chain([&THROW.name]).map(|&name| name.to_owned());
    let mut names: Vec<_> = functions.chain(signs).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The names of all functions that hand out blocks.
fn allocating_names() -> BTreeSet<String> {
    let known = ALLOCATORS.iter().chain([&REPLACEMENT, &OWN_OPERATORS]);
    let functions = known.flat_map(Allocator::functions);
    let allocating = functions.filter(|(_, function)| allocates(function));
    allocating.map(|(name, _)| name).collect()
}

fn allocates(function: &CatalogueFunction) -> bool {
    matches!(
        CallKind::from_raw(function.spec.kind),
        Some(CallKind::Allocate | CallKind::Resize)
    )
}

fn looked_at(modules: &[String]) -> String {
    let named = modules
        .iter()
        .take(NAMED_MODULES)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match modules.len().checked_sub(NAMED_MODULES + 1) {
        _ if modules.is_empty() => "a process without code".to_owned(),
        Some(more) => format!("{named} and {} more", more + 1),
        None => named,
    }
}

fn advice(notes: &[String]) -> String {
    if notes.is_empty() {
        ": malloc is in none of their symbol tables (a static program that was stripped?)".to_owned()
    } else {
        format!(": {}", notes.join("; "))
    }
}

#[cfg(test)]
mod tests;
