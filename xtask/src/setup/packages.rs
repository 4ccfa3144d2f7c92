//! Which Debian packages are needed, what for, and how to see that what they bring is there already, wherever it
//! came from. Data only.

/// Something that a Debian package brings.
pub struct Package {
    /// Its name in Debian.
    pub name: &'static str,
    /// What leaktrace needs it for.
    pub why: &'static str,
    /// Any one of these shows that it is there: a program on `PATH`, or a path in which one directory may be `*`.
    pub shown_by: &'static [&'static str],
}

/// To build bpf-linker.
pub const LINKER: &[Package] = &[
    Package {
        name: "llvm-22-dev",
        why: "bpf-linker is LLVM 22, the one of the Rust compiler",
        shown_by: &["/usr/lib/llvm-22/lib/libLLVM.so"],
    },
    Package {
        name: "libpolly-22-dev",
        why: "LLVM's own list of libraries to link names it",
        shown_by: &["/usr/lib/llvm-22/lib/libPolly.a"],
    },
    Package {
        name: "libzstd-dev",
        why: "LLVM's own list of libraries to link names it",
        shown_by: &["/usr/include/zstd.h"],
    },
];

/// To build the kernel side where rustup cannot fetch the standard library's source. Other packages bring files of the
/// same names, so that each is told by its own.
pub const COMPILER: &[Package] = &[
    Package {
        name: "rustc-web",
        why: "a Rust compiler on LLVM 22",
        shown_by: &["/usr/share/doc/rustc-web/copyright"],
    },
    Package {
        name: "cargo-web",
        why: "its cargo",
        shown_by: &["/usr/share/doc/cargo-web/copyright"],
    },
    Package {
        name: "rust-web-src",
        why: "the source of `core`, which is built for BPF",
        shown_by: &["/usr/share/doc/rust-web-src/copyright"],
    },
];

/// To lint the kernel side with Debian's compiler.
pub const COMPILER_LINTS: &[Package] = &[Package {
    name: "rust-web-clippy",
    why: "lints for the kernel side",
    shown_by: &["/usr/share/doc/rust-web-clippy/copyright"],
}];

/// To run every test.
pub const TESTS: &[Package] = &[
    Package {
        name: "gcc",
        why: "C programs to trace",
        shown_by: &["gcc"],
    },
    Package {
        name: "libc6-dev",
        why: "C headers",
        shown_by: &["/usr/include/stdlib.h"],
    },
    Package {
        name: "g++",
        why: "C++ programs to trace",
        shown_by: &["g++"],
    },
    Package {
        name: "clang",
        why: "the same programs from another compiler",
        shown_by: &["clang"],
    },
    Package {
        name: "golang-go",
        why: "Go programs to trace; `go tool pprof` reads our pprof files",
        shown_by: &["go"],
    },
    Package {
        name: "redis-server",
        why: "a real server to trace",
        shown_by: &["redis-server"],
    },
    Package {
        name: "redis-tools",
        why: "redis-benchmark, its load",
        shown_by: &["redis-benchmark"],
    },
    Package {
        name: "libjemalloc-dev",
        why: "an allocator to load before libc, and to link",
        shown_by: &["/usr/lib/x86_64-linux-gnu/libjemalloc.so"],
    },
    Package {
        name: "libgoogle-perftools-dev",
        why: "tcmalloc, to load before libc, and to link",
        shown_by: &["/usr/lib/x86_64-linux-gnu/libtcmalloc.so"],
    },
    Package {
        name: "libmimalloc-dev",
        why: "mimalloc, to load before libc",
        shown_by: &["/usr/lib/x86_64-linux-gnu/libmimalloc.so"],
    },
    Package {
        name: "musl-tools",
        why: "programs with another C library",
        shown_by: &["musl-gcc"],
    },
    Package {
        name: "sqlite3",
        why: "a real program to trace",
        shown_by: &["sqlite3"],
    },
    Package {
        name: "python3",
        why: "a real interpreter to trace",
        shown_by: &["python3"],
    },
    Package {
        name: "python3-pip",
        why: "fetches other versions of Go",
        shown_by: &["pip3"],
    },
    Package {
        name: "jq",
        why: "a real program with a known leak",
        shown_by: &["jq"],
    },
    Package {
        name: "postgresql",
        why: "a real server of many processes to trace",
        shown_by: &["initdb", "/usr/lib/postgresql/*/bin/initdb"],
    },
    Package {
        name: "musl-tools",
        why: "programs of another C library",
        shown_by: &["musl-gcc"],
    },
    Package {
        name: "perl",
        why: "a real interpreter to trace",
        shown_by: &["perl"],
    },
    Package {
        name: "git",
        why: "a real program to trace",
        shown_by: &["git"],
    },
    Package {
        name: "default-jdk-headless",
        why: "a program that compiles its code as it runs",
        shown_by: &["javac"],
    },
    Package {
        name: "nodejs",
        why: "another that compiles its code as it runs",
        shown_by: &["node"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_says_why_and_can_be_seen() {
        for package in [LINKER, COMPILER, COMPILER_LINTS, TESTS].into_iter().flatten() {
            assert!(!package.why.is_empty(), "{}", package.name);
            assert!(!package.shown_by.is_empty(), "{}", package.name);
            for sign in package.shown_by {
                assert!(sign.matches('*').count() <= 1, "{}: {sign}", package.name);
            }
        }
    }
}
