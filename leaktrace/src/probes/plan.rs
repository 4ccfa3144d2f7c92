//! From the code of a process's modules to the probes that see every call of its allocators. Pure.
//!
//! Every module that defines an allocator is probed, also where one takes the place of another: which of two `malloc`s
//! a call reaches is the loader's choice per caller, and calls from one into the other are told apart at run time.

use std::collections::BTreeMap;
use std::path::Path;

use leaktrace_common::probes::{CallKind, ProbeSpec};
use object::ReadRef;

use super::catalogue::{ALLOCATORS, Allocator, BREAK_VARIABLE, CatalogueFunction, REPLACEMENT};
use super::decode;
use crate::target::elf::{Function, Functions, Image};

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
    for (index, module) in modules.iter().enumerate() {
        if module.image.variable(LOADER_VARIABLE).is_none() {
            add_module(&mut plan, index, module, &module.image.functions(&names));
        }
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
    let known = || ALLOCATORS.iter().chain([&REPLACEMENT]);
    let functions = known().flat_map(Allocator::functions).map(|(name, _)| name);
    let signs = known().flat_map(|allocator| allocator.recognised_by);
    let mut names: Vec<_> = functions.chain(signs.map(|&name| name.to_owned())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn add_module<'data, R: ReadRef<'data>>(
    plan: &mut Plan,
    index: usize,
    module: &ModuleCode<'_, 'data, R>,
    defined: &Functions,
) {
    let present = |allocator: &&Allocator| {
        allocator
            .recognised_by
            .iter()
            .all(|name| defined.found.contains_key(*name))
    };
    let (traced, untraced): (Vec<&Allocator>, Vec<&Allocator>) = ALLOCATORS
        .iter()
        .filter(present)
        .partition(|allocator| allocator.is_traced());
    for allocator in &untraced {
        plan.untraced.push((index, allocator.name.to_owned()));
        plan.notes.push(format!(
            "{} found in {}: its blocks are not traced by this version",
            allocator.name,
            module.path.display()
        ));
    }
    for allocator in &traced {
        add_allocator(plan, allocator.name.to_owned(), allocator, index, module, defined);
    }
    if traced.is_empty() && untraced.is_empty() && present(&&REPLACEMENT) {
        let name = format!("malloc of {}", module.path.file_name().unwrap_or_default().display());
        add_allocator(plan, name, &REPLACEMENT, index, module, defined);
    }
    let holds_allocator = plan.probes.last().is_some_and(|probe| probe.module == index) || !untraced.is_empty();
    // A program that brings an allocator of its own makes mapping calls of its own too.
    let maps_itself = module.image.is_program() && module.image.interpreter().is_some();
    if holds_allocator && !maps_itself {
        plan.own_code
            .extend(module.image.code_range().map(|range| (index, range)));
    }
}

fn add_allocator<'data, R: ReadRef<'data>>(
    plan: &mut Plan,
    name: String,
    allocator: &Allocator,
    index: usize,
    module: &ModuleCode<'_, 'data, R>,
    defined: &Functions,
) {
    let break_variable = module.image.variable(BREAK_VARIABLE);
    let (chosen, mut notes) = choose(allocator, defined, break_variable.is_some());
    for (function, (name, entry)) in chosen {
        let code = module.image.bytes(&function);
        let placement = if code.len() as u64 == function.size {
            decode::place(code, &entry.spec)
        } else {
            decode::at_start(code)
        };
        plan.probes.push(Probe {
            function: name,
            module: index,
            offset: function.file_offset + placement.offset,
            spec: complete(entry.spec, break_variable, function.address + placement.offset),
            emulated: placement.emulated,
        });
    }
    for note in &mut notes {
        *note = format!("{}: {note}", module.path.display());
    }
    plan.notes.append(&mut notes);
    if !plan.allocators.contains(&name) {
        plan.allocators.push(name);
    }
}

type Chosen = BTreeMap<Function, (String, &'static CatalogueFunction)>;

/// The functions of `allocator` to probe, each once however many names it has, and what cannot be.
fn choose(allocator: &Allocator, defined: &Functions, knows_break: bool) -> (Chosen, Vec<String>) {
    let mut chosen = Chosen::new();
    let mut notes = Vec::new();
    for (name, entry) in allocator.functions() {
        if let Some(refusal) = defined.refused.get(&name) {
            notes.push(format!("{name} is not traced: {refusal}"));
        }
        let Some(&function) = defined.found.get(&name) else {
            continue;
        };
        if entry.spec.kind == CallKind::SetBreak as u32 && !knows_break {
            notes.push(format!("{name} is not traced: where the break was before is not known"));
            continue;
        }
        let (first, taken_for) = chosen.entry(function).or_insert_with(|| (name.clone(), entry));
        if !same_reading(&taken_for.spec, &entry.spec) {
            notes.push(format!("{name} is the same code as {first}, and is read as that"));
        }
    }
    (chosen, notes)
}

/// Whether it makes no difference which of two names of one function is taken.
fn same_reading(one: &ProbeSpec, other: &ProbeSpec) -> bool {
    let is_release = |spec: &ProbeSpec| CallKind::from_raw(spec.kind).is_some_and(|kind| !kind.needs_return());
    one == other || (is_release(one) && is_release(other) && one.pointer_arg == other.pointer_arg)
}

/// `spec` with the distance from an instruction at `address` to the break variable, if its kind uses that.
fn complete(spec: ProbeSpec, break_variable: Option<u64>, address: u64) -> ProbeSpec {
    let moves_break = matches!(
        CallKind::from_raw(spec.kind),
        Some(CallKind::SetBreak | CallKind::MoveBreak)
    );
    let distance = |to: u64| to.wrapping_sub(address).cast_signed();
    ProbeSpec {
        break_variable: break_variable.filter(|_| moves_break).map_or(0, distance),
        ..spec
    }
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
