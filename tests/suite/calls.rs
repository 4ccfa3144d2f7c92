//! Every call of libc's family, equal to the byte: attached and launched, by each way of attaching.

use anyhow::{Context, Result};
use leaktrace_tests::compare::{self, CPLUSPLUS, LINKER, RuntimeModules};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::needs::Need;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::trial;
use libtest_mimic::Trial;

/// A way of attaching, and the kernel it needs.
const WAYS: &[(&str, u32, u32)] = &[("session", 6, 13), ("multi", 6, 6), ("perf", 4, 17)];

/// Fixtures that tell the whole truth by themselves, and the modules that allocate beside them.
const FIXTURES: &[(&str, RuntimeModules)] = &[
    ("nothing", &[]),
    ("malloc", &[]),
    ("calloc", &[]),
    ("realloc", &[]),
    ("realloc_refused", &[]),
    ("realloc_in_place", &[]),
    ("realloc_chain", &[]),
    ("reallocarray", &[]),
    ("aligned", &[]),
    ("pvalloc", &[]),
    ("new", CPLUSPLUS),
    ("new_throwing", CPLUSPLUS),
    ("mmap", &[]),
    ("munmap", &[]),
    ("munmap_across", &[]),
    ("map_fixed", &[]),
    ("mremap", &[]),
    ("mremap_moved", &[]),
    ("brk", &[]),
    ("threads", LINKER),
    ("hammer", LINKER),
    ("handler", &[]),
    ("longjmp", &[]),
    ("deep", &[]),
    ("distinct", &[]),
    ("old_blocks", &[]),
    ("fork", &[]),
    ("children", &[]),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &(way, major, minor) in WAYS {
        let needs = [Need::Binary, Need::Tracing, Need::Kernel(major, minor)];
        for &(fixture, runtime) in FIXTURES {
            trials.push(trial(format!("calls::{fixture}::attach::{way}"), &needs, move || {
                attached(fixture, runtime, way)
            }));
            trials.push(trial(format!("calls::{fixture}::launch::{way}"), &needs, move || {
                launched(fixture, runtime, way)
            }));
        }
    }
    trials
}

fn attached(fixture: &str, runtime: RuntimeModules, way: &str) -> Result<()> {
    let mut running = Fixture::compile(fixture)?.start(&[])?;
    let tracer = tracer::attach(running.pid(), &["--attach-with", way])?;
    let truth = running.play().context("the fixture, traced")?;
    let report = tracer.stop()?;
    compare::exact(&report.profile, &truth, runtime)?;
    running.end_well()
}

fn launched(fixture: &str, runtime: RuntimeModules, way: &str) -> Result<()> {
    let fixture = Fixture::compile(fixture)?;
    let mut tracer = tracer::launch(&["--attach-with", way], &[&fixture.path])?;
    let truth = tracer.play().context("the fixture, launched")?;
    compare::exact(&tracer.finish()?.profile, &truth, runtime)
}
