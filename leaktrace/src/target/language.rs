//! A guess at the language a program is written in, from what its compiler and linker left in the file.

use std::fs::File;
use std::io;

use object::LittleEndian;
use object::elf::Sym64;
use object::pod::slice_from_all_bytes;

use super::headers::ElfHeaders;

/// Most bytes read of a section with names.
const MAX_NAMES: u64 = 64 << 20;
/// Most bytes read of the constants of a program.
const MAX_CONSTANTS: u64 = 16 << 20;

/// What points to a language.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent sign")]
struct Signs {
    go: bool,
    rust: bool,
    rust_main: bool,
    cpp: bool,
    c: bool,
}

/// `go`, `rust`, `c++`, `c` or `unknown`.
pub fn guess(file: &File, elf: &ElfHeaders) -> &'static str {
    let signs = read_signs(file, elf);
    match signs {
        Signs { go: true, .. } => "go",
        Signs { rust_main: true, .. }
        | Signs {
            rust: true, cpp: false, ..
        } => "rust",
        Signs { cpp: true, .. } => "c++",
        Signs { c: true, .. } => "c",
        _ => "unknown",
    }
}

fn read_signs(file: &File, elf: &ElfHeaders) -> Signs {
    let contents = |name: &[u8], limit| {
        let section = elf.section(name);
        section
            .and_then(|section| ElfHeaders::contents(file, section, limit).ok())
            .unwrap_or_default()
    };
    let mut signs = Signs {
        go: elf.section(b".go.buildinfo").is_some() || elf.section(b".note.go.buildid").is_some(),
        ..Signs::default()
    };
    if signs.go {
        return signs;
    }
    let comment = contents(b".comment", 1 << 20);
    signs.rust = holds(&comment, b"rustc version");
    signs.c = holds(&comment, b"GCC: ") || holds(&comment, b"clang version");
    for (symbols, strings) in [(&b".symtab"[..], &b".strtab"[..]), (b".dynsym", b".dynstr")] {
        // Names of needed libraries lie in .dynstr among those of the symbols.
        let names = contents(strings, MAX_NAMES);
        signs.cpp |= holds(&names, b"libstdc++.so") || holds(&names, b"libc++.so");
        signs.c |= holds(&names, b"libc.so") || holds(&names, b"__libc_start_main");
        let _ = read_symbols(&contents(symbols, MAX_NAMES), &names, &mut signs);
    }
    if !signs.rust && !signs.cpp {
        // A stripped Rust program still says where its panics come from.
        signs.rust = holds(&contents(b".rodata", MAX_CONSTANTS), b"/rustc/");
    }
    signs
}

fn read_symbols(symbols: &[u8], names: &[u8], signs: &mut Signs) -> io::Result<()> {
    let malformed = |()| io::Error::from(io::ErrorKind::InvalidData);
    for symbol in slice_from_all_bytes::<Sym64<LittleEndian>>(symbols).map_err(malformed)? {
        let name = names
            .get(symbol.st_name.get(LittleEndian) as usize..)
            .unwrap_or_default();
        // `std::rt::lang_start` calls a Rust `main`; in either mangling its name is followed by a hash or not at all.
        let head = name.get(..64).unwrap_or(name);
        signs.rust_main |= head.starts_with(b"_ZN3std2rt10lang_start");
        signs.rust_main |= head.starts_with(b"_R") && holds(head, b"3std2rt10lang_start");
        signs.rust |= head.starts_with(b"__rust_alloc") || head.starts_with(b"rust_begin_unwind");
        signs.cpp |=
            head.starts_with(b"_ZSt") || head.starts_with(b"_ZNSt") || head.starts_with(b"__gxx_personality_v0");
    }
    Ok(())
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(bytes, wanted).is_some()
}
