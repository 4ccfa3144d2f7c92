//! The probes of one module.

use std::collections::{BTreeMap, BTreeSet};

use leaktrace_common::probes::{CallKind, ProbeSpec};
use object::ReadRef;

use super::{ModuleCode, Plan, Probe, allocates};
use crate::probes::catalogue::{
    ALLOCATORS, Allocator, BREAK_VARIABLE, CatalogueFunction, LEAVE, OWN_OPERATORS, REPLACEMENT,
};
use crate::probes::{
    decode,
    exits::{Exits, Flow},
};
use crate::target::elf::{Function, Functions};

/// What is to be probed in one module, while it is being worked out.
pub struct ModulePlan<'a, 'data, R: ReadRef<'data>> {
    index: usize,
    module: &'a ModuleCode<'a, 'data, R>,
    defined: &'a Functions,
    allocating: &'a BTreeSet<String>,
    break_variable: Option<u64>,
    chosen: BTreeMap<Function, Chosen>,
    /// Addresses of `ret` instructions.
    leaves: BTreeSet<u64>,
    allocators: Vec<String>,
    /// How the names of these allocators' own functions begin.
    code: Vec<&'static [&'static str]>,
    untraced: Vec<String>,
    notes: Vec<String>,
}

/// A function to probe, under the first of its names in the catalogue.
#[derive(Clone)]
struct Chosen {
    name: String,
    entry: &'static CatalogueFunction,
    /// Whether it is to be probed only if the operators of the module do not go through other allocators.
    is_operator: bool,
}

impl<'a, 'data, R: ReadRef<'data>> ModulePlan<'a, 'data, R> {
    /// Works out what is to be probed in a module that defines these functions.
    pub fn new(
        index: usize,
        module: &'a ModuleCode<'a, 'data, R>,
        defined: &'a Functions,
        allocating: &'a BTreeSet<String>,
    ) -> Self {
        let mut plan = Self {
            index,
            module,
            defined,
            allocating,
            break_variable: module.image.variable(BREAK_VARIABLE),
            chosen: BTreeMap::new(),
            leaves: BTreeSet::new(),
            allocators: Vec::new(),
            code: Vec::new(),
            untraced: Vec::new(),
            notes: Vec::new(),
        };
        plan.choose_allocators();
        if plan.chosen.values().any(|chosen| chosen.entry.spec.may_throw != 0) {
            plan.find_exits();
        }
        plan
    }

    /// Adds it to the plan for all modules.
    pub fn add_to(self, plan: &mut Plan) {
        let shown = self.module.path.display();
        plan.notes
            .extend(self.notes.iter().map(|note| format!("{shown}: {note}")));
        plan.own_code
            .extend(self.own_code().into_iter().map(|range| (self.index, range)));
        plan.probes.extend(self.probes());
        plan.untraced
            .extend(self.untraced.into_iter().map(|name| (self.index, name)));
        for name in self.allocators {
            if !plan.allocators.contains(&name) {
                plan.allocators.push(name);
            }
        }
    }

    fn choose_allocators(&mut self) {
        let present: Vec<_> = ALLOCATORS.iter().filter(|allocator| self.has(allocator)).collect();
        for allocator in &present {
            if allocator.is_traced() {
                self.choose(allocator, allocator.name.to_owned());
            } else {
                self.untraced.push(allocator.name.to_owned());
                self.notes.push(format!(
                    "{} found: its blocks are not traced by this version",
                    allocator.name
                ));
            }
        }
        if present.is_empty() && self.has(&REPLACEMENT) {
            self.choose(&REPLACEMENT, self.own("malloc"));
        }
        if !self.untraced.is_empty() || !self.has(&OWN_OPERATORS) {
            return;
        }
        let before = self.chosen.clone();
        let allocators = self.allocators.len();
        self.choose(&OWN_OPERATORS, self.own(OWN_OPERATORS.name));
        if self.chosen.len() == before.len() {
            // Those of an allocator that is known.
            self.allocators.truncate(allocators);
            return;
        }
        for (function, chosen) in &mut self.chosen {
            chosen.is_operator = !before.contains_key(function);
        }
    }

    /// Where the allocators' own code lies: all of a library, and the part of a program that was linked into it.
    fn own_code(&self) -> Vec<(u64, u64)> {
        let image = self.module.image;
        if self.allocators.is_empty() && self.untraced.is_empty() {
            return Vec::new();
        }
        if !image.is_program() {
            return image.code_range().into_iter().collect();
        }
        let linked = self.code.iter().filter(|starts| !starts.is_empty());
        linked.filter_map(|starts| image.span(starts, "main")).collect()
    }

    fn has(&self, allocator: &Allocator) -> bool {
        let mut signs = allocator.recognised_by.iter();
        signs.all(|name| self.defined.found.contains_key(*name))
    }

    fn own(&self, what: &str) -> String {
        format!(
            "{what} of {}",
            self.module.path.file_name().unwrap_or_default().display()
        )
    }

    /// Takes the functions of `allocator`, each once however many names it has, and notes what cannot be probed.
    fn choose(&mut self, allocator: &Allocator, shown: String) {
        for (name, entry) in allocator.functions() {
            if let Some(refusal) = self.defined.refused.get(&name) {
                self.notes.push(format!("{name} is not traced: {refusal}"));
            }
            let Some(&function) = self.defined.found.get(&name) else {
                continue;
            };
            if entry.spec.kind == CallKind::SetBreak as u32 && self.break_variable.is_none() {
                self.notes
                    .push(format!("{name} is not traced: where the break was before is not known"));
                continue;
            }
            let first = self.chosen.entry(function).or_insert_with(|| Chosen {
                name: name.clone(),
                entry,
                is_operator: false,
            });
            if !same_reading(&first.entry.spec, &entry.spec) {
                self.notes.push(format!(
                    "{name} is the same code as {}, and is read as that",
                    first.name
                ));
            }
        }
        self.allocators.push(shown);
        self.code.push(allocator.code);
    }

    /// Finds the ends of functions that may throw, and leaves out those that hand out nothing of their own.
    fn find_exits(&mut self) {
        let probed = self.chosen.iter().filter(|(_, chosen)| allocates(chosen.entry));
        let probed = probed.map(|(function, _)| function.address).collect();
        let flow = Flow::new(self.module.image, probed, self.allocating);
        let throwing: Vec<_> = self
            .chosen
            .iter()
            .map(|(function, chosen)| (*function, chosen.clone()))
            .collect();
        let mut operators_allocate = false;
        for (function, chosen) in throwing.iter().filter(|(_, chosen)| chosen.entry.spec.may_throw != 0) {
            match flow.exits(function.address) {
                Ok(Exits::Returns(leaves)) => {
                    self.leaves.extend(leaves);
                    operators_allocate |= chosen.is_operator;
                    continue;
                }
                Ok(Exits::ThroughOthers) => {}
                Err(unclear) => {
                    self.notes.push(format!("{} is not traced: {unclear}", chosen.name));
                    self.untraced.push(chosen.name.clone());
                }
            }
            self.chosen.remove(function);
        }
        if !operators_allocate {
            self.chosen.retain(|_, chosen| !chosen.is_operator);
            let name = self.own(OWN_OPERATORS.name);
            self.allocators.retain(|allocator| *allocator != name);
        }
    }

    fn probes(&self) -> Vec<Probe> {
        let functions = self.chosen.iter().map(|(function, chosen)| {
            let code = self.module.image.bytes(function);
            let mut probe = probe(self.index, *function, code, chosen.name.clone(), chosen.entry.spec);
            let address = function.address + (probe.offset - function.file_offset);
            probe.spec = complete(chosen.entry.spec, self.break_variable, address);
            probe
        });
        let leaves = self.leaves.iter().filter_map(|&address| {
            Some(Probe {
                function: LEAVE.name.to_owned(),
                module: self.index,
                offset: self.module.image.file_offset(address)?,
                spec: LEAVE.spec,
                emulated: false,
            })
        });
        functions.chain(leaves).collect()
    }
}

/// A probe on a function whose code is `code`, in the cheapest place.
pub fn probe(module: usize, function: Function, code: &[u8], name: String, spec: ProbeSpec) -> Probe {
    let placement = if code.len() as u64 == function.size {
        decode::place(code, &spec)
    } else {
        decode::at_start(code)
    };
    Probe {
        function: name,
        module,
        offset: function.file_offset + placement.offset,
        spec,
        emulated: placement.emulated,
    }
}

/// Whether it makes no difference which of two names of one function is taken.
fn same_reading(one: &ProbeSpec, other: &ProbeSpec) -> bool {
    let is_release = |spec: &ProbeSpec| {
        matches!(
            CallKind::from_raw(spec.kind),
            Some(CallKind::Release | CallKind::ReleaseThrough)
        )
    };
    one == other || (is_release(one) && is_release(other) && one.pointer_arg == other.pointer_arg)
}

/// `spec` with the distance from an instruction at `address` to the break variable, if its kind uses that.
pub fn complete(spec: ProbeSpec, break_variable: Option<u64>, address: u64) -> ProbeSpec {
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
