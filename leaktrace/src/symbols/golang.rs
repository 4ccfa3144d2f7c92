//! Names of Go code, from Go's own tables: the same in a stripped program as in any other, and what Go itself prints
//! (debug information names a generic function by what it was made for, and assembly by its calling convention). So
//! they are asked first, and what they do not know is no Go code.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::FileKey;
use super::worker::{Call, Calls};
use crate::go::pclntab::{self, Table};
use crate::go::{Program, shown};
use crate::target::{Module, printable};

/// The tables of the files seen so far.
#[derive(Default)]
pub struct GoTables {
    files: HashMap<FileKey, Loaded>,
}

struct Loaded {
    /// None if the file is no Go program, or its tables cannot be used.
    table: Option<Table>,
    _module: Arc<Module>,
}

impl GoTables {
    /// The table of `module`, if it is a Go program. Takes what it reads from `budget`.
    pub fn of(&mut self, module: &Arc<Module>, budget: &mut u64) -> Option<&Table> {
        let loaded = match self.files.entry(module.identity) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(Loaded {
                table: load(module, budget),
                _module: Arc::clone(module),
            }),
        };
        loaded.table.as_ref()
    }

    /// No longer asks the table of a file.
    pub fn give_up(&mut self, key: FileKey) {
        if let Some(loaded) = self.files.get_mut(&key) {
            loaded.table = None;
        }
    }
}

/// The calls at a virtual address of the file, innermost first; empty if that is no Go code.
pub fn calls(table: &Table, address: u64) -> Calls {
    let call = |call: &pclntab::Call<'_>| Call {
        function: Some(shown(call.function)),
        file: call.file.map(printable),
        line: call.line,
    };
    table.calls(address).iter().map(call).collect()
}

fn load(module: &Module, budget: &mut u64) -> Option<Table> {
    if !Program::is_marked(module.headers()) {
        return None;
    }
    // Before and after: what was written to meanwhile names nothing.
    let read = || Program::read(module.file(), module.headers(), *budget);
    let program = module.is_unchanged().then(read).flatten()?;
    let table = module.is_unchanged().then_some(program.table)?;
    *budget = budget.saturating_sub(table.size());
    Some(table)
}

#[cfg(test)]
#[path = "golang_tests.rs"]
mod tests;
