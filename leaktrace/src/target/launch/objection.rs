//! Programs that do not work under ptrace, known by what they load.

use object::ReadCache;

use crate::target::{AddressSpace, Module, elf::Image};

/// Functions of `LeakSanitizer`, which stands alone or in `AddressSanitizer`; in a library (gcc) or in the program
/// (clang). At the program's end it traces the program to look for leaks, and aborts where somebody else does so.
const LEAK_SANITIZER: &[&str] = &["__lsan_do_leak_check", "__lsan_init"];

/// Why a program must not be traced by ptrace to its end, as far as that shows in what it has loaded; for people.
///
/// A program that is linked with the sanitizer and stripped shows nothing.
pub fn objection(space: &AddressSpace) -> Option<&'static str> {
    let modules = space.executable_modules();
    let sanitized = modules.iter().any(|module| defines(module, LEAK_SANITIZER));
    sanitized.then_some("LeakSanitizer does not work under ptrace")
}

fn defines(module: &Module, names: &[&str]) -> bool {
    let cache = ReadCache::new(module.file());
    // What cannot be read is no program that could run.
    Image::parse(&cache).is_ok_and(|image| !image.functions(names).found.is_empty())
}
