//! Every allocator, loaded before libc or linked in, equal to the byte on the same programs.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::compare::{self, CPLUSPLUS, LINKER, RuntimeModules};
use leaktrace_tests::fixture::{Fixture, PLAIN, Running};
use leaktrace_tests::needs::Need;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::trial;
use libtest_mimic::Trial;

/// Allocators that take the place of libc's when loaded before it: what they are called, and Debian's libraries.
const PRELOADED: &[(&str, &str)] = &[
    ("jemalloc", "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"),
    ("tcmalloc", "/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4"),
    ("tcmalloc", "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"),
    ("mimalloc", "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2"),
];

/// Fixtures that call only what every allocator has, and the modules that allocate beside them.
const FIXTURES: &[(&str, RuntimeModules)] = &[
    ("nothing", &[]),
    ("malloc", &[]),
    ("calloc", &[]),
    ("realloc", &[]),
    ("realloc_refused", &[]),
    ("realloc_chain", &[]),
    ("aligned", &[]),
    ("new", CPLUSPLUS),
    ("new_throwing", CPLUSPLUS),
    ("mmap", &[]),
    ("munmap", &[]),
    ("mremap", &[]),
    ("brk", &[]),
    ("threads", LINKER),
    ("hammer", LINKER),
    ("deep", &[]),
    ("distinct", &[]),
    ("old_blocks", &[]),
    ("fork", &[]),
];

/// An allocator that is linked into the fixture.
struct Linked {
    name: &'static str,
    allocator: &'static str,
    compiler: Option<&'static str>,
    flags: &'static [&'static str],
    libraries: &'static [&'static str],
    needs: &'static str,
    /// Fixtures that say nothing here.
    apart: &'static [&'static str],
}

const LINKED: &[Linked] = &[
    Linked {
        name: "glibc::static",
        allocator: "glibc",
        compiler: None,
        flags: &["-static"],
        libraries: &[],
        needs: "/usr/lib/x86_64-linux-gnu/libc.a",
        // The runtime, which allocates too, is the same module.
        apart: &["new", "new_throwing", "threads", "hammer"],
    },
    // Its malloc is no public symbol of the program.
    Linked {
        name: "glibc::static_pie",
        allocator: "glibc",
        compiler: None,
        flags: &["-static-pie"],
        libraries: &[],
        needs: "/usr/lib/x86_64-linux-gnu/libc.a",
        apart: &["new", "new_throwing", "threads", "hammer"],
    },
    Linked {
        name: "jemalloc::linked",
        allocator: "jemalloc",
        compiler: None,
        flags: &[],
        libraries: &[
            "-Wl,--whole-archive",
            "-l:libjemalloc.a",
            "-Wl,--no-whole-archive",
            "-lstdc++",
            "-lm",
        ],
        needs: "/usr/lib/x86_64-linux-gnu/libjemalloc.a",
        apart: &[],
    },
    Linked {
        name: "tcmalloc::linked",
        allocator: "tcmalloc",
        compiler: None,
        flags: &[],
        libraries: &[
            "-Wl,--whole-archive",
            "-l:libtcmalloc_minimal.a",
            "-Wl,--no-whole-archive",
            "-lstdc++",
            "-lm",
        ],
        needs: "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.a",
        apart: &[],
    },
    Linked {
        name: "musl::dynamic",
        allocator: "musl",
        compiler: Some("musl-gcc"),
        flags: &[],
        libraries: &[],
        needs: "/usr/bin/musl-gcc",
        // It is for C, and its brk always fails.
        apart: &["new", "new_throwing", "brk"],
    },
    Linked {
        name: "musl::static",
        allocator: "musl",
        compiler: Some("musl-gcc"),
        flags: &["-static"],
        libraries: &[],
        needs: "/usr/bin/musl-gcc",
        // The others have no malloc linked in.
        apart: &["new", "new_throwing", "brk", "mmap", "munmap", "mremap"],
    },
];

/// Fixtures that do not get along with an allocator: mimalloc is written in C, and ends a program that has no memory.
const APART: &[(&str, &str)] = &[("mimalloc", "new_throwing")];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &(allocator, library) in PRELOADED {
        for &(fixture, runtime) in FIXTURES {
            if APART.contains(&(allocator, fixture)) {
                continue;
            }
            let file = Path::new(library).file_stem().unwrap_or_default().display();
            let name = format!("allocators::{file}::preloaded::{fixture}");
            let needs = [Need::Binary, Need::Tracing, Need::File(library)];
            trials.push(trial(name, &needs, move || {
                preloaded(fixture, runtime, allocator, library)
            }));
        }
    }
    for linked in LINKED {
        for &(fixture, runtime) in FIXTURES {
            if linked.apart.contains(&fixture) {
                continue;
            }
            let name = format!("allocators::{}::{fixture}", linked.name);
            let needs = [Need::Binary, Need::Tracing, Need::File(linked.needs)];
            trials.push(trial(name, &needs, move || {
                let flags = [PLAIN, linked.flags].concat();
                let fixture = Fixture::compile_by(linked.compiler, fixture, &flags, linked.libraries)?;
                exact(fixture.start(&[])?, runtime, linked.allocator)
            }));
        }
    }
    let needs = [
        Need::Binary,
        Need::Tracing,
        Need::File("/usr/lib/x86_64-linux-gnu/libjemalloc.so"),
    ];
    trials.push(trial("allocators::jemalloc::own_interface", &needs, || {
        let fixture = Fixture::compile_linked("mallocx", PLAIN, &["-ljemalloc"])?;
        exact(fixture.start(&[])?, &[], "jemalloc")
    }));
    trials.push(trial("allocators::own_new", &[Need::Binary, Need::Tracing], || {
        let fixture = Fixture::compile("own_new")?;
        exact(fixture.start(&[])?, CPLUSPLUS, "operator new of own_new")
    }));
    trials
}

fn preloaded(fixture: &str, runtime: RuntimeModules, allocator: &str, library: &str) -> Result<()> {
    let running = Fixture::compile(fixture)?.start_preloaded(&[], Some(Path::new(library)))?;
    exact(running, runtime, allocator)
}

/// Traces a fixture that has come to its first gate.
fn exact(mut running: Running, runtime: RuntimeModules, allocator: &str) -> Result<()> {
    let tracer = tracer::attach(running.pid(), &[])?;
    let truth = running.play().context("the fixture, traced")?;
    let report = tracer.stop()?;
    compare::exact(&report.profile, &truth, runtime)?;
    let named = &report.profile.target.allocators;
    ensure!(named.iter().any(|name| name == allocator), "it found {named:?}");
    running.end_well()
}
