//! Names as the programmer wrote them: C++ and Rust demangled, within bounds. Pure.
//!
//! Only names that are marked as mangled are touched: read as a type, the C function `f` would be called `float`.

use std::fmt;

use cpp_demangle::{DemangleOptions, Symbol};

use crate::target::printable;

/// Most bytes of a name; a short mangled name can stand for an endless one.
const MAX_NAME: usize = 64 << 10;

/// The name to show for the symbol `name`.
pub fn demangle(name: &str) -> String {
    let name = cut(name);
    let shown = rust(name).or_else(|| cpp(name)).unwrap_or_else(|| name.to_owned());
    printable(shown.as_bytes())
}

fn rust(name: &str) -> Option<String> {
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    // The alternate form leaves out the hash.
    within_bounds(|out| fmt::write(out, format_args!("{demangled:#}")))
}

fn cpp(name: &str) -> Option<String> {
    if !name.starts_with("_Z") {
        return None;
    }
    let symbol = Symbol::new(name).ok()?;
    // The return type is in the name of templates alone; there it says little and hides where the name begins.
    let options = DemangleOptions::new().no_return_type();
    within_bounds(|out| symbol.structured_demangle(out, &options))
}

fn within_bounds(write: impl FnOnce(&mut Bounded) -> fmt::Result) -> Option<String> {
    let mut out = Bounded(String::new());
    write(&mut out).ok()?;
    Some(out.0)
}

fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(MAX_NAME)).unwrap_or(name)
}

/// Refuses to grow over [`MAX_NAME`].
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_NAME {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mangled_names_are_read() {
        for (mangled, name) in [
            ("_ZN3foo3barEi", "foo::bar(int)"),
            (
                "_ZNSt6vectorIiSaIiEE9push_backEOi",
                "std::vector<int, std::allocator<int> >::push_back(int&&)",
            ),
            ("_Z4makeIiET_S0_", "make<int>(int)"),
            ("_ZN4core3ptr4read17h0123456789abcdefE", "core::ptr::read"),
            ("_RNvCsj4CZ6flxxfE_7___rustc12___rust_alloc", "__rustc::__rust_alloc"),
            ("_Z3foov.constprop.0", "foo() [clone .constprop.0]"),
        ] {
            assert_eq!(demangle(mangled), name);
        }
    }

    #[test]
    fn plain_names_stay() {
        for name in [
            "main",
            "f",
            "i",
            "_start",
            "operator new",
            "_ZZZ",
            "_R",
            "",
            "malloc.part.0",
        ] {
            assert_eq!(demangle(name), name);
        }
    }

    /// The name of a function with pairs of pairs of pairs for parameters: each is twice as long as the one before.
    fn doubling(levels: usize) -> String {
        let digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let pairs = digits
            .chars()
            .take(levels)
            .flat_map(|digit| ["S_IS", &*digit.to_string(), "_S", &*digit.to_string(), "_E"].map(str::to_owned));
        "_Z1fSt4pairIiiE".chars().map(String::from).chain(pairs).collect()
    }

    #[test]
    fn a_name_that_would_explode_stays_mangled() {
        let pair = "std::pair<int, int>";
        assert_eq!(demangle(&doubling(1)), format!("f({pair}, std::pair<{pair}, {pair} >)"));
        assert_eq!(demangle(&doubling(34)), doubling(34));
        assert_eq!(demangle(&"x".repeat(10 * MAX_NAME)).len(), MAX_NAME);
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(demangle("a\x1b[2Jb"), "a\\u{1b}[2Jb");
    }

    proptest! {
        #[test]
        fn never_panics(name in "(_Z|_R|)[NISTKRPv0-9_a-zE]{0,60}") {
            prop_assert!(demangle(&name).len() <= 8 * MAX_NAME);
        }
    }
}
