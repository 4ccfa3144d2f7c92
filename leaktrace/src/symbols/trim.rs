//! Leaves the allocator's own frames out, so that a stack begins where the program asks for memory. Pure.

use super::jit::MODULE as PERF_MAP;
use crate::profile::{Frame, Stack};

/// Functions that are the allocator: their whole name, without parameters and template arguments.
///
/// Wrappers that do something for the program (`strdup`, `std::vector::push_back`, `Box::new`) are not among them:
/// they say what the memory is for.
const FUNCTIONS: &[&str] = &[
    // C's, as glibc, musl and the allocators that take their place call them, and glibc's insides.
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "aligned_alloc",
    "memalign",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "_int_malloc",
    "_int_realloc",
    "_int_memalign",
    "_mid_memalign",
    "malloc_hook_ini",
    "realloc_hook_ini",
    "sysmalloc",
    "sysmalloc_mmap",
    "tcache_init",
    "arena_get2",
    "ptmalloc_init",
    // The kernel's, as libc calls them.
    "mmap",
    "mmap64",
    "__mmap",
    "__mmap64",
    "mremap",
    "__mremap",
    "brk",
    "__brk",
    "sbrk",
    "__sbrk",
    // C++: the operators and what the standard containers put between themselves and the operators.
    "operator new",
    "operator new[]",
    "__gnu_cxx::new_allocator::allocate",
    "__gnu_cxx::malloc_allocator::allocate",
    "__gnu_cxx::__alloc_traits::allocate",
    "std::__new_allocator::allocate",
    "std::allocator::allocate",
    "std::allocator_traits::allocate",
    "std::__allocate_guarded",
    "std::_Vector_base::_M_allocate",
    "std::_Vector_base::_M_create_storage",
    "std::_Deque_base::_M_allocate_node",
    "std::_Deque_base::_M_allocate_map",
    "std::_List_base::_M_get_node",
    "std::_Fwd_list_base::_M_get_node",
    "std::_Rb_tree::_M_get_node",
    "std::__detail::_Hashtable_alloc::_M_allocate_node_ptr",
    "std::__detail::_Hashtable_alloc::_M_allocate_buckets",
    "std::__libcpp_allocate",
    "std::__libcpp_operator_new",
    "std::__allocate_at_least",
    // Rust: what the compiler calls, whichever allocator is behind it.
    "__rust_alloc",
    "__rust_alloc_zeroed",
    "__rust_realloc",
    "__rdl_alloc",
    "__rdl_alloc_zeroed",
    "__rdl_realloc",
    "__rg_alloc",
    "__rg_alloc_zeroed",
    "__rg_realloc",
];

/// Beginnings of the names of such functions.
const PREFIXES: &[&str] = &[
    // glibc's aliases of its own functions.
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
    "__libc_valloc",
    "__libc_pvalloc",
    "__libc_alloc",
    // Those of other allocators, by their own names.
    "tc_malloc",
    "tc_calloc",
    "tc_new",
    "tc_memalign",
    "tcmalloc::allocate_full_",
    "mi_malloc",
    "mi_zalloc",
    "mi_calloc",
    "mi_realloc",
    "mi_rezalloc",
    "mi_recalloc",
    "mi_new",
    "mi_heap_malloc",
    "mi_heap_zalloc",
    "mi_heap_calloc",
    "mi_heap_realloc",
    "mi_heap_rezalloc",
    "mi_heap_recalloc",
    "mi_heap_alloc_new",
    "mi_aligned_alloc",
    "mi_posix_memalign",
    "mi_memalign",
    "_mi_malloc",
    "_mi_heap_malloc",
    "je_malloc",
    "je_calloc",
    "je_realloc",
    "je_aligned_alloc",
    "je_posix_memalign",
    "_rjem_malloc",
    "_rjem_calloc",
    "_rjem_realloc",
    "_rjem_rallocx",
    // Rust's allocation interface, and the growing of a buffer that `Vec` and `String` share.
    "alloc::alloc::",
    "alloc::raw_vec::",
    "tikv_jemallocator::Jemalloc as ",
    "mimalloc::MiMalloc as ",
    "std::alloc::System as ",
    "std::alloc::__default_lib_allocator::",
    "std::sys::alloc::",
];

/// Beginnings of the names of functions of Go's runtime. They stand between the program and the memory that it asks for,
/// as Go's own tools see it too.
const GO_RUNTIME: &[&str] = &["runtime.", "internal/runtime/"];

/// Of those, the ones that are left out also where the runtime itself asks for memory.
const GO_ALLOCATOR: &[&str] = &[
    "runtime.(*mcache).",
    "runtime.mallocgc",
    "runtime.newobject",
    "runtime.newarray",
    "runtime.makeslice",
    "runtime.growslice",
];

/// Drops the leading frames that are the allocator's. If all are, the outermost stays: a stack is never empty.
pub fn trim(stack: &mut Stack) {
    let is_runtime = |frame: &Frame| begins_with(frame, GO_RUNTIME);
    if stack.frames.iter().any(|frame| !is_runtime(frame)) && stack.frames.first().is_some_and(is_runtime) {
        let leading = stack.frames.iter().take_while(|frame| is_runtime(frame)).count();
        stack.frames.drain(..leading);
        return;
    }
    // What a perf map calls `malloc` need not be one.
    let is_allocator = |frame: &Frame| {
        let known = frame.function.as_deref().is_some_and(is_allocator);
        frame.module != PERF_MAP && (known || begins_with(frame, GO_ALLOCATOR))
    };
    let leading = stack.frames.iter().take_while(|frame| is_allocator(frame)).count();
    stack.frames.drain(..leading.min(stack.frames.len().saturating_sub(1)));
}

fn begins_with(frame: &Frame, prefixes: &[&str]) -> bool {
    let function = frame.function.as_deref().unwrap_or_default();
    prefixes.iter().any(|prefix| function.starts_with(prefix))
}

/// Whether a demangled function is the allocator's own.
fn is_allocator(function: &str) -> bool {
    // `<alloc::alloc::Global as …>::allocate` and `<alloc::raw_vec::RawVec<T>>::grow`.
    let name = function.trim_start_matches('<');
    let name = name.strip_prefix("__rustc::").unwrap_or(name);
    // glibc's mark of what it calls within itself.
    let name = name.strip_prefix("__GI_").unwrap_or(name);
    if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return true;
    }
    let bare = without_arguments(name);
    let bare = bare.replace("std::__1::", "std::").replace("std::__cxx11::", "std::");
    FUNCTIONS.contains(&bare.as_str())
}

/// The name without parameters, template arguments and the marks of the compiler's clones.
fn without_arguments(function: &str) -> String {
    let mut bare = String::new();
    let mut depth = 0_usize;
    for character in function.chars() {
        match character {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            // Parameters, `.part.0` and `@@VERSION` end the name; a bracket may be that of `new[]`.
            '(' | '.' | '@' if depth == 0 => break,
            _ if depth == 0 => bare.push(character),
            _ => {}
        }
    }
    let end = bare
        .find("[abi:")
        .or_else(|| bare.find(" [clone"))
        .unwrap_or(bare.len());
    bare.truncate(end);
    bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Ending;

    fn stack(functions: &[&str]) -> Stack {
        let frame = |name: &&str| Frame {
            function: (!name.is_empty()).then(|| (*name).to_owned()),
            ..Frame::default()
        };
        Stack {
            whole: true,
            end: Ending::Whole,
            frames: functions.iter().map(frame).collect(),
        }
    }

    fn trimmed(functions: &[&str]) -> Vec<String> {
        let mut stack = stack(functions);
        trim(&mut stack);
        stack
            .frames
            .into_iter()
            .map(|frame| frame.function.unwrap_or_default())
            .collect()
    }

    #[test]
    fn allocators_are_known_in_every_spelling() {
        for function in [
            "malloc",
            "__libc_calloc",
            "__GI___libc_malloc",
            "_int_malloc.constprop.0",
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::nothrow_t const&)",
            "__gnu_cxx::new_allocator<std::pair<int const, char> >::allocate(unsigned long, void const*)",
            "std::allocator_traits<std::allocator<int> >::allocate(std::allocator<int>&, unsigned long)",
            "std::_Vector_base<Foo<1>, std::allocator<Foo<1> > >::_M_allocate(unsigned long)",
            "std::__1::allocator<int>::allocate[abi:v160006](unsigned long)",
            "std::__1::__libcpp_operator_new<unsigned long>(unsigned long)",
            "__rust_alloc",
            "__rustc::__rust_alloc_zeroed",
            "__rdl_alloc",
            "alloc::alloc::alloc",
            "alloc::alloc::exchange_malloc",
            "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "alloc::raw_vec::RawVec<T,A>::grow_one",
            "<alloc::raw_vec::RawVecInner<_>>::try_allocate_in",
            "<std::alloc::System as core::alloc::global::GlobalAlloc>::alloc",
        ] {
            assert!(is_allocator(function), "{function}");
        }
    }

    #[test]
    fn the_program_s_own_functions_stay() {
        for function in [
            "my_malloc",
            "pool::allocate(unsigned long)",
            "std::vector<int, std::allocator<int> >::push_back(int&&)",
            "strdup",
            "Widget::operator new(unsigned long)",
            "operator newish()",
            "<my::Arena as alloc::alloc::Allocator>::allocate",
            "alloc::vec::Vec<T,A>::push",
            "alloc::boxed::Box<T>::new",
            "mallocate",
            "",
        ] {
            assert!(!is_allocator(function), "{function}");
        }
    }

    #[test]
    fn only_leading_frames_go() {
        assert_eq!(
            trimmed(&["malloc", "operator new(unsigned long)", "make()", "malloc", "main"]),
            ["make()", "malloc", "main"]
        );
        assert_eq!(trimmed(&["main", "malloc"]), ["main", "malloc"]);
    }

    #[test]
    fn a_frame_without_a_name_is_the_program_s() {
        assert_eq!(trimmed(&["malloc", "", "main"]), ["", "main"]);
    }

    #[test]
    fn never_everything() {
        assert_eq!(trimmed(&["__libc_malloc", "malloc"]), ["malloc"]);
        assert_eq!(trimmed(&[]), Vec::<String>::new());
    }
}
