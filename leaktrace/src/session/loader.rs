//! Where the dynamic loader tells debuggers that it maps or unmaps code, so that the unwinding tables can follow at once.
//!
//! The loader keeps an `r_debug` for them (link.h of the C library): the address of a function of its own that it calls
//! before and after, and what it is doing. Both are read from the process, which may have written anything there: a
//! probe goes only into the loader's own code, onto an instruction that is what that function consists of.

use leaktrace_common::probes::{CallKind, ProbeSpec};
use object::ReadCache;

use crate::{
    kernel::AttachPoint,
    target::{AddressSpace, Mapping, Module, elf::Image, files::read_at, memory::read_memory},
};

/// The loader's variable.
const VARIABLE: &str = "_r_debug";
/// Offset in it of the function's address, and of what the loader is doing.
const FUNCTION: u64 = 16;
const DOING: u64 = 24;
/// What the function consists of: it does nothing and returns, after the mark of a place that may be jumped to.
const BODIES: [&[u8]; 2] = [b"\xc3", b"\xf3\x0f\x1e\xfa\xc3"];

/// What `r_debug` says while code is being mapped.
const ADDING: u32 = 1;

/// The point to probe, and whether the loader is mapping code just now; once the loader has made itself known: nothing before, and in a program without one.
pub fn point(space: &AddressSpace) -> Option<(AttachPoint, bool)> {
    space.executable_modules().iter().find_map(|module| {
        let cache = ReadCache::new(module.file());
        let variable = Image::parse(&cache).ok()?.variable(VARIABLE)?;
        point_in(space, module, variable)
    })
}

/// The same of `module`, which defines the variable at the virtual address `variable`.
fn point_in(space: &AddressSpace, module: &Module, variable: u64) -> Option<(AttachPoint, bool)> {
    let bias = code_of(space, module)
        .find_map(|code| Some(code.start.wrapping_sub(module.virtual_address(code, code.start)?)))?;
    let variable = variable.wrapping_add(bias);
    let stored = read_memory(space.pid, variable.wrapping_add(FUNCTION), 12).ok()?;
    let (function, doing) = (*stored.first_chunk()?, *stored.last_chunk()?);
    let (function, doing) = (u64::from_le_bytes(function), u32::from_le_bytes(doing));
    let code = code_of(space, module).find(|code| code.contains(function))?;
    let offset = function - code.start + code.offset;
    let found = read_at(module.file(), offset, 5, 5).ok()?;
    let is_it = BODIES.iter().any(|body| found.starts_with(body));
    let point = AttachPoint {
        path: module.link_path(),
        shown_path: module.name.clone(),
        offset,
        spec: ProbeSpec {
            kind: CallKind::CodeChange as u32,
            break_variable: variable.wrapping_add(DOING).wrapping_sub(function).cast_signed(),
            ..ProbeSpec::default()
        },
    };
    is_it.then_some((point, doing == ADDING))
}

fn code_of<'a>(space: &'a AddressSpace, module: &'a Module) -> impl Iterator<Item = &'a Mapping> {
    space
        .executable_mappings()
        .filter(|(_, other)| other.as_ref().is_some_and(|other| other.identity == module.identity))
        .map(|(mapping, _)| mapping)
}
