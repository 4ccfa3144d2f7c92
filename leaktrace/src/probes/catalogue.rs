//! The allocators leaktrace knows, as data: how each is recognised, and what each of its functions does.
//!
//! To add one: a table of functions, and an entry in [`ALLOCATORS`]. Nothing else changes.

use leaktrace_common::probes::{CallKind, ProbeSpec};

/// One function of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueFunction {
    /// Its symbol, without the allocator's prefix.
    pub name: &'static str,
    /// How to read a call of it. The distance to the break variable is filled in by the plan.
    pub spec: ProbeSpec,
}

/// One allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocator {
    /// What it is called in reports.
    pub name: &'static str,
    /// What its build puts before the names of its functions.
    pub prefix: &'static str,
    /// A module that defines all of these functions holds it. With prefix.
    pub recognised_by: &'static [&'static str],
    /// What is probed; empty for one that is recognised but not traced.
    pub functions: &'static [&'static [CatalogueFunction]],
    /// The same, of functions that never have the prefix.
    pub plain: &'static [&'static [CatalogueFunction]],
    /// How the names of its own functions begin where it is linked into a program; they lie side by side there.
    pub code: &'static [&'static str],
}

/// The variable of a C library with the current program break, for `brk`.
pub const BREAK_VARIABLE: &str = "__curbrk";

/// Every allocator known by name.
pub const ALLOCATORS: &[Allocator] = &[
    Allocator {
        code: &["__libc_", "_IO_", "__pthread_", "__nptl_"],
        // Both come with malloc in the static library too; tcmalloc defines the first and scudo the second.
        ..traced(
            "glibc",
            &["__libc_memalign", "malloc_info"],
            &[MALLOC, GLIBC],
            &[MAP, BREAK],
        )
    },
    // The library, which is also the loader, and what a static program has of it. Its `brk` and `sbrk` always fail.
    traced("musl", &["__dls3", "malloc"], &[MALLOC], &[MAP]),
    Allocator {
        code: &["__libc_", "__malloc_", "__pthread_", "__stdio_"],
        ..traced("musl", &["__libc_malloc_impl"], &[MALLOC], &[MAP])
    },
    Allocator {
        code: &["je_"],
        ..traced("jemalloc", &["mallctl"], &[MALLOC, JEMALLOC], &[MAP, BREAK, OPERATORS])
    },
    Allocator {
        code: &["je_"],
        ..prefixed("jemalloc", "je_", &["je_mallctl"], &[MALLOC, JEMALLOC], &[MAP, BREAK])
    },
    // As the Rust crate builds it.
    Allocator {
        code: &["_rjem_"],
        ..prefixed(
            "jemalloc",
            "_rjem_",
            &["_rjem_mallctl"],
            &[MALLOC, JEMALLOC],
            &[MAP, BREAK],
        )
    },
    Allocator {
        code: &[
            "tc_",
            "_ZN8tcmalloc",
            "_Z20TCMalloc_",
            "_ZN15MmapSysAllocator",
            "_ZN15SbrkSysAllocator",
            "_ZN10MallocHook",
        ],
        ..prefixed(
            "tcmalloc",
            "tc_",
            &["tc_malloc"],
            &[MALLOC, TCMALLOC],
            &[MALLOC, MAP, BREAK, OPERATORS],
        )
    },
    recognised("tcmalloc", &["TCMallocInternalMalloc"]),
    Allocator {
        code: &["_mi_"],
        ..prefixed(
            "mimalloc",
            "mi_",
            &["mi_malloc"],
            &[MALLOC, MIMALLOC, MIMALLOC_HEAP],
            &[MALLOC, MAP, BREAK, OPERATORS, MIMALLOC_PLAIN],
        )
    },
];

/// Whether a function of this name is an allocator's also where it is no longer public, as in a shared object that hides
/// what was linked into it.
pub fn is_unmistakable(name: &str) -> bool {
    let glibc = ["__brk", "__sbrk", "__mmap", "__munmap", "__mremap"];
    let starts = ["je_", "_rjem_", "tc_", "mi_", "__libc_"];
    glibc.contains(&name) || starts.iter().any(|start| name.starts_with(start))
}

/// C++'s operators where they stand alone, and do not go through an allocator that is known.
pub const OWN_OPERATORS: Allocator = traced("operator new", &["_Znwm"], &[OPERATORS], &[MAP, BREAK]);

/// The function by which every C++ exception is thrown.
pub const THROW: CatalogueFunction = function("__cxa_throw", CallKind::Throw, NONE);

/// What is probed at each `ret` of a function that may throw.
pub const LEAVE: CatalogueFunction = function("ret", CallKind::Leave, NONE);

/// What stands in for libc's malloc without being known by name: a program's or a library's own.
pub const REPLACEMENT: Allocator = traced("malloc replacement", &["malloc"], &[MALLOC], &[MAP, BREAK]);

/// C's functions for blocks, with the argument numbers of their prototypes.
const MALLOC: &[CatalogueFunction] = &[
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
];

/// glibc's own names of the same functions. In a static position-independent program the others may not be public.
const GLIBC: &[CatalogueFunction] = &[
    allocate("__libc_malloc", size(1)),
    allocate("__libc_calloc", size(2).count(1)),
    allocate("__libc_memalign", size(2)),
    allocate("__libc_valloc", size(1)),
    allocate("__libc_pvalloc", size(1)),
    resize("__libc_realloc", size(2).pointer(1)),
    resize("__libc_reallocarray", size(3).count(2).pointer(1)),
    release("__libc_free", pointer(1)),
    function("__brk", CallKind::SetBreak, pointer(1)),
    function("__sbrk", CallKind::MoveBreak, size(1)),
    function("__mmap", CallKind::Map, size(2).pointer(1)),
    function("__munmap", CallKind::Unmap, size(2).pointer(1)),
    function("__mremap", CallKind::Remap, size(3).pointer(1)),
];

/// C's functions for mappings.
const MAP: &[CatalogueFunction] = &[
    function("mmap", CallKind::Map, size(2).pointer(1)),
    function("mmap64", CallKind::Map, size(2).pointer(1)),
    function("munmap", CallKind::Unmap, size(2).pointer(1)),
    // Its old length is always the second argument: no field is needed to say so.
    function("mremap", CallKind::Remap, size(3).pointer(1)),
];

/// C's functions for the program break.
const BREAK: &[CatalogueFunction] = &[
    function("brk", CallKind::SetBreak, pointer(1)),
    function("sbrk", CallKind::MoveBreak, size(1)),
];

/// jemalloc's own interface. What `mallctl` does to a whole arena (`arena.<i>.reset`, `destroy`) is not a call for a
/// block, and is not seen.
const JEMALLOC: &[CatalogueFunction] = &[
    allocate("mallocx", size(1)),
    resize("rallocx", size(2).pointer(1)),
    function("xallocx", CallKind::ResizeInPlace, size(2).count(3).pointer(1)),
    release("dallocx", pointer(1)),
    release("sdallocx", pointer(1)),
];

/// What tcmalloc (gperftools) has beside the family, with its prefix.
const TCMALLOC: &[CatalogueFunction] = &[
    allocate("malloc_skip_new_handler", size(1)),
    throwing(allocate("new", size(1))),
    throwing(allocate("newarray", size(1))),
    throwing(allocate("new_aligned", size(1))),
    throwing(allocate("newarray_aligned", size(1))),
    throwing(allocate("new_nothrow", size(1))),
    throwing(allocate("newarray_nothrow", size(1))),
    throwing(allocate("new_aligned_nothrow", size(1))),
    throwing(allocate("newarray_aligned_nothrow", size(1))),
    delete("free_sized"),
    delete("delete"),
    delete("deletearray"),
    delete("delete_sized"),
    delete("deletearray_sized"),
    delete("delete_nothrow"),
    delete("deletearray_nothrow"),
    delete("delete_aligned"),
    delete("deletearray_aligned"),
    delete("delete_sized_aligned"),
    delete("deletearray_sized_aligned"),
    delete("delete_aligned_nothrow"),
    delete("deletearray_aligned_nothrow"),
];

/// What mimalloc has beside the family, with its prefix. (`strdup`, `realpath` and their like call the others.)
const MIMALLOC: &[CatalogueFunction] = &[
    allocate("malloc_small", size(1)),
    allocate("zalloc", size(1)),
    allocate("zalloc_small", size(1)),
    allocate("mallocn", size(2).count(1)),
    allocate("malloc_aligned", size(1)),
    allocate("malloc_aligned_at", size(1)),
    allocate("zalloc_aligned", size(1)),
    allocate("zalloc_aligned_at", size(1)),
    allocate("calloc_aligned", size(2).count(1)),
    allocate("calloc_aligned_at", size(2).count(1)),
    resize("reallocf", size(2).pointer(1)),
    resize("reallocn", size(3).count(2).pointer(1)),
    resize("rezalloc", size(2).pointer(1)),
    resize("recalloc", size(3).count(2).pointer(1)),
    resize("realloc_aligned", size(2).pointer(1)),
    resize("realloc_aligned_at", size(2).pointer(1)),
    resize("rezalloc_aligned", size(2).pointer(1)),
    resize("rezalloc_aligned_at", size(2).pointer(1)),
    resize("recalloc_aligned", size(3).count(2).pointer(1)),
    resize("recalloc_aligned_at", size(3).count(2).pointer(1)),
    resize("aligned_recalloc", size(3).count(2).pointer(1)),
    resize("aligned_offset_recalloc", size(3).count(2).pointer(1)),
    resize("expand", size(2).pointer(1)),
    throwing(allocate("new", size(1))),
    throwing(allocate("new_aligned", size(1))),
    throwing(allocate("new_n", size(2).count(1))),
    throwing(resize("new_realloc", size(2).pointer(1))),
    throwing(resize("new_reallocn", size(3).count(2).pointer(1))),
    throwing(allocate("new_nothrow", size(1))),
    throwing(allocate("new_aligned_nothrow", size(1))),
    delete("free_size"),
    delete("free_aligned"),
    delete("free_size_aligned"),
];

/// The same, with a heap as their first argument. What `mi_heap_destroy` frees at once is not a call for a block, and is
/// not seen.
const MIMALLOC_HEAP: &[CatalogueFunction] = &[
    allocate("heap_malloc", size(2)),
    allocate("heap_malloc_small", size(2)),
    allocate("heap_zalloc", size(2)),
    allocate("heap_calloc", size(3).count(2)),
    allocate("heap_mallocn", size(3).count(2)),
    allocate("heap_malloc_aligned", size(2)),
    allocate("heap_malloc_aligned_at", size(2)),
    allocate("heap_zalloc_aligned", size(2)),
    allocate("heap_zalloc_aligned_at", size(2)),
    allocate("heap_calloc_aligned", size(3).count(2)),
    allocate("heap_calloc_aligned_at", size(3).count(2)),
    resize("heap_realloc", size(3).pointer(2)),
    resize("heap_reallocf", size(3).pointer(2)),
    resize("heap_reallocn", size(4).count(3).pointer(2)),
    resize("heap_rezalloc", size(3).pointer(2)),
    resize("heap_recalloc", size(4).count(3).pointer(2)),
    resize("heap_realloc_aligned", size(3).pointer(2)),
    resize("heap_realloc_aligned_at", size(3).pointer(2)),
    resize("heap_rezalloc_aligned", size(3).pointer(2)),
    resize("heap_rezalloc_aligned_at", size(3).pointer(2)),
    resize("heap_recalloc_aligned", size(4).count(3).pointer(2)),
    resize("heap_recalloc_aligned_at", size(4).count(3).pointer(2)),
    throwing(allocate("heap_alloc_new", size(2))),
    throwing(allocate("heap_alloc_new_n", size(3).count(2))),
];

/// What mimalloc has beside the family without its prefix.
const MIMALLOC_PLAIN: &[CatalogueFunction] = &[resize("reallocf", size(2).pointer(1)), delete("vfree")];

/// C++'s operators. The aligned forms have the alignment as their second argument. (`new` with `std::nothrow` should
/// catch what a handler throws in it, but where it is written in C, as mimalloc's, it does not.)
const OPERATORS: &[CatalogueFunction] = &[
    throwing(allocate("_Znwm", size(1))),
    throwing(allocate("_Znam", size(1))),
    throwing(allocate("_ZnwmSt11align_val_t", size(1))),
    throwing(allocate("_ZnamSt11align_val_t", size(1))),
    throwing(allocate("_ZnwmRKSt9nothrow_t", size(1))),
    throwing(allocate("_ZnamRKSt9nothrow_t", size(1))),
    throwing(allocate("_ZnwmSt11align_val_tRKSt9nothrow_t", size(1))),
    throwing(allocate("_ZnamSt11align_val_tRKSt9nothrow_t", size(1))),
    delete("_ZdlPv"),
    delete("_ZdaPv"),
    delete("_ZdlPvRKSt9nothrow_t"),
    delete("_ZdaPvRKSt9nothrow_t"),
    delete("_ZdlPvm"),
    delete("_ZdaPvm"),
    delete("_ZdlPvSt11align_val_t"),
    delete("_ZdaPvSt11align_val_t"),
    delete("_ZdlPvSt11align_val_tRKSt9nothrow_t"),
    delete("_ZdaPvSt11align_val_tRKSt9nothrow_t"),
    delete("_ZdlPvmSt11align_val_t"),
    delete("_ZdaPvmSt11align_val_t"),
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

/// A `delete`, which may call `free`.
const fn delete(name: &'static str) -> CatalogueFunction {
    function(name, CallKind::ReleaseThrough, pointer(1))
}

/// One that throws when it has no memory, and so must have no return probe.
const fn throwing(function: CatalogueFunction) -> CatalogueFunction {
    let spec = ProbeSpec {
        may_throw: 1,
        ..function.spec
    };
    CatalogueFunction { spec, ..function }
}

const fn function(name: &'static str, kind: CallKind, arguments: Arguments) -> CatalogueFunction {
    let spec = ProbeSpec {
        kind: kind as u32,
        size_arg: arguments.size,
        count_arg: arguments.count,
        pointer_arg: arguments.pointer,
        out_arg: arguments.out,
        may_throw: 0,
        zero: 0,
        break_variable: 0,
    };
    CatalogueFunction { name, spec }
}

const fn traced(
    name: &'static str,
    recognised_by: &'static [&'static str],
    functions: &'static [&'static [CatalogueFunction]],
    plain: &'static [&'static [CatalogueFunction]],
) -> Allocator {
    prefixed(name, "", recognised_by, functions, plain)
}

const fn prefixed(
    name: &'static str,
    prefix: &'static str,
    recognised_by: &'static [&'static str],
    functions: &'static [&'static [CatalogueFunction]],
    plain: &'static [&'static [CatalogueFunction]],
) -> Allocator {
    Allocator {
        name,
        prefix,
        recognised_by,
        functions,
        plain,
        code: &[],
    }
}

const fn recognised(name: &'static str, recognised_by: &'static [&'static str]) -> Allocator {
    traced(name, recognised_by, &[], &[])
}

impl Allocator {
    /// Its functions, each with its whole name; of two names of one function the better known comes first.
    pub fn functions(&self) -> impl Iterator<Item = (String, &'static CatalogueFunction)> {
        let prefixed = self.functions.iter().copied().flatten();
        let plain = self.plain.iter().copied().flatten();
        let plain = plain.map(|function| (function.name.to_owned(), function));
        plain.chain(prefixed.map(|function| (format!("{}{}", self.prefix, function.name), function)))
    }

    /// Whether its blocks are traced.
    pub fn is_traced(&self) -> bool {
        !self.functions.is_empty()
    }
}

/// Everything that is probed anywhere.
#[cfg(test)]
pub fn every_function() -> impl Iterator<Item = &'static CatalogueFunction> {
    [
        MALLOC,
        MAP,
        BREAK,
        JEMALLOC,
        TCMALLOC,
        MIMALLOC,
        MIMALLOC_HEAP,
        MIMALLOC_PLAIN,
        OPERATORS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_names_what_its_kind_needs() {
        for CatalogueFunction { name, spec } in every_function() {
            let has = |argument: u8| argument != 0;
            let complete = match CallKind::from_raw(spec.kind).unwrap() {
                CallKind::Allocate | CallKind::MoveBreak => has(spec.size_arg) && !has(spec.pointer_arg),
                CallKind::Release | CallKind::ReleaseThrough | CallKind::SetBreak => {
                    has(spec.pointer_arg) && !has(spec.size_arg)
                }
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
        for allocator in ALLOCATORS {
            let mut names: Vec<_> = allocator.functions().map(|(name, _)| name).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{}", allocator.name);
        }
    }
}
