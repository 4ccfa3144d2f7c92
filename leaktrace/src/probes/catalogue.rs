//! The allocators leaktrace knows, as data: how each is recognised, and what each of its functions does.
//!
//! To add one: a table of functions, and an entry in [`ALLOCATORS`]. Nothing else changes.

use leaktrace_common::probes::{CallKind, ProbeSpec};

/// One function of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueFunction {
    /// Its symbol.
    pub name: &'static str,
    /// How to read a call of it. The distances to code and variables are filled in by the plan.
    pub spec: ProbeSpec,
}

/// One allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocator {
    /// What it is called in reports.
    pub name: &'static str,
    /// A module that defines all of these functions holds it.
    pub recognised_by: &'static [&'static str],
    /// What is probed; empty for one that is recognised but not traced.
    pub functions: &'static [CatalogueFunction],
    /// The variable with the current program break, for `brk`.
    pub break_variable: Option<&'static str>,
}

/// Every allocator known by name.
pub const ALLOCATORS: &[Allocator] = &[
    // Both come with malloc in the static library too; tcmalloc defines the first and scudo the second.
    traced(
        "glibc",
        &["__libc_memalign", "malloc_info"],
        LIBC_FAMILY,
        Some("__curbrk"),
    ),
    recognised("jemalloc", &["mallctl"]),
    recognised("jemalloc", &["je_mallctl"]),
    recognised("jemalloc", &["_rjem_mallctl"]),
    recognised("tcmalloc", &["tc_malloc"]),
    recognised("tcmalloc", &["TCMallocInternalMalloc"]),
    recognised("mimalloc", &["mi_malloc"]),
];

/// What stands in for libc's malloc without being known by name: a program's or a library's own.
pub const REPLACEMENT: Allocator = traced("malloc replacement", &["malloc"], LIBC_FAMILY, None);

/// The functions of the C library that hand out memory, with the argument numbers of their C prototypes.
pub const LIBC_FAMILY: &[CatalogueFunction] = &[
    allocate("malloc", size(1)),
    allocate("calloc", size(2).count(1)),
    allocate("aligned_alloc", size(2)),
    allocate("memalign", size(2)),
    allocate("valloc", size(1)),
    allocate("pvalloc", size(1)),
    allocate("posix_memalign", size(3).out(1)),
    resize("realloc", size(2).pointer(1)),
    resize("reallocarray", size(3).count(2).pointer(1)),
    release("free", pointer(1)),
    release("cfree", pointer(1)),
    function("mmap", CallKind::Map, size(2).pointer(1)),
    function("mmap64", CallKind::Map, size(2).pointer(1)),
    function("munmap", CallKind::Unmap, size(2).pointer(1)),
    // Its old length is always the second argument: no field is needed to say so.
    function("mremap", CallKind::Remap, size(3).pointer(1)),
    function("brk", CallKind::SetBreak, pointer(1)),
    function("sbrk", CallKind::MoveBreak, size(1)),
];

/// Which argument is what, numbered from 1.
#[derive(Clone, Copy)]
struct Arguments {
    size: u8,
    count: u8,
    pointer: u8,
    out: u8,
}

const NONE: Arguments = Arguments {
    size: 0,
    count: 0,
    pointer: 0,
    out: 0,
};

const fn size(argument: u8) -> Arguments {
    Arguments { size: argument, ..NONE }
}

const fn pointer(argument: u8) -> Arguments {
    Arguments {
        pointer: argument,
        ..NONE
    }
}

impl Arguments {
    const fn count(self, argument: u8) -> Self {
        Self {
            count: argument,
            ..self
        }
    }

    const fn pointer(self, argument: u8) -> Self {
        Self {
            pointer: argument,
            ..self
        }
    }

    const fn out(self, argument: u8) -> Self {
        Self { out: argument, ..self }
    }
}

const fn allocate(name: &'static str, arguments: Arguments) -> CatalogueFunction {
    function(name, CallKind::Allocate, arguments)
}

const fn resize(name: &'static str, arguments: Arguments) -> CatalogueFunction {
    function(name, CallKind::Resize, arguments)
}

const fn release(name: &'static str, arguments: Arguments) -> CatalogueFunction {
    function(name, CallKind::Release, arguments)
}

const fn function(name: &'static str, kind: CallKind, arguments: Arguments) -> CatalogueFunction {
    let spec = ProbeSpec {
        kind: kind as u32,
        size_arg: arguments.size,
        count_arg: arguments.count,
        pointer_arg: arguments.pointer,
        out_arg: arguments.out,
        own_code_start: 0,
        own_code_end: 0,
        break_variable: 0,
    };
    CatalogueFunction { name, spec }
}

const fn traced(
    name: &'static str,
    recognised_by: &'static [&'static str],
    functions: &'static [CatalogueFunction],
    break_variable: Option<&'static str>,
) -> Allocator {
    Allocator {
        name,
        recognised_by,
        functions,
        break_variable,
    }
}

const fn recognised(name: &'static str, recognised_by: &'static [&'static str]) -> Allocator {
    Allocator {
        name,
        recognised_by,
        functions: &[],
        break_variable: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_names_what_its_kind_needs() {
        for CatalogueFunction { name, spec } in LIBC_FAMILY {
            let has = |argument: u8| argument != 0;
            let complete = match CallKind::from_raw(spec.kind).unwrap() {
                CallKind::Allocate | CallKind::MoveBreak => has(spec.size_arg) && !has(spec.pointer_arg),
                CallKind::Release | CallKind::SetBreak => has(spec.pointer_arg) && !has(spec.size_arg),
                _ => has(spec.size_arg) && has(spec.pointer_arg),
            };
            assert!(complete, "{name}: {spec:?}");
            let arguments = [spec.size_arg, spec.count_arg, spec.pointer_arg, spec.out_arg];
            let mut named: Vec<u8> = arguments.into_iter().filter(|&argument| has(argument)).collect();
            named.sort_unstable();
            named.dedup();
            let total = arguments.into_iter().filter(|&argument| has(argument)).count();
            assert_eq!(named.len(), total, "{name}: one argument in two roles");
            assert!(named.iter().all(|&argument| argument <= 6), "{name}: on the stack");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = LIBC_FAMILY.iter().map(|function| function.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LIBC_FAMILY.len());
    }
}
