//! Stacks in the kernel, frame for frame as the program's own `backtrace()` sees them: hard ones, from all compilers,
//! without frame pointers.

use std::fs;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::fixture::{Fixture, Running};
use leaktrace_tests::frames::{Compared, End, exact, parse};
use leaktrace_tests::needs::Need;
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::{TRACES, trial};
use libtest_mimic::Trial;

/// How corners.c and throws.cc are built.
const BUILDS: &[(&str, &[&str])] = &[
    ("plain", &["-O2"]),
    ("o3_avx", &["-O3", "-mavx"]),
    ("no_pie_lazy", &["-O2", "-no-pie", "-Wl,-z,lazy"]),
    ("pie_now", &["-O2", "-fcf-protection=full", "-Wl,-z,now"]),
    ("lto", &["-O2", "-flto"]),
    ("stripped", &["-O2", "-s"]),
    ("static", &["-O2", "-static"]),
    ("static_pie", &["-O2", "-static-pie"]),
];

const COMMON: &[&str] = &["-w", "-fomit-frame-pointer", "-pthread"];

/// How frames.rs is built.
const RUST_BUILDS: &[(&str, &[&str])] = &[
    ("abort", &["-C", "panic=abort"]),
    ("unwind", &["-C", "panic=unwind"]),
    ("lto", &["-C", "panic=unwind", "-C", "lto=fat", "-C", "codegen-units=1"]),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (c, cplusplus) in [("gcc", "g++"), ("clang", "clang++")] {
        for (build, flags) in BUILDS {
            trials.push(compiled(c, "corners.c", build, flags));
            trials.push(compiled(cplusplus, "throws.cc", build, flags));
        }
    }
    for (build, flags) in RUST_BUILDS {
        let flags = [&["--edition", "2024", "-O"], *flags].concat();
        trials.push(program("rustc", "frames.rs", build, flags, 20));
    }
    for (build, flags) in [("static", &["-static"][..]), ("dynamic", &[])] {
        let needs = [TRACES, &[Need::Program("musl-gcc")]].concat();
        trials.push(trial(format!("frames::musl::{build}"), &needs, move || musl(flags)));
    }
    let needs = [TRACES, &[Need::Program("gcc")]].concat();
    trials.push(trial(
        "frames::gcc::corners::no_section_headers",
        &needs,
        no_section_headers,
    ));
    trials
}

fn compiled(compiler: &'static str, source: &'static str, build: &str, flags: &[&'static str]) -> Trial {
    let flags = [COMMON, flags, &["-ldl"]].concat();
    program(
        compiler,
        source,
        build,
        flags,
        if source == "corners.c" { 30 } else { 19 },
    )
}

/// A trial of a program that tells at least so many stacks, all of which must be right.
fn program(compiler: &'static str, source: &'static str, build: &str, flags: Vec<&'static str>, least: usize) -> Trial {
    let needs = [TRACES, &[Need::Program(compiler)]].concat();
    let stem = source.split('.').next().unwrap_or(source);
    trial(format!("frames::{compiler}::{stem}::{build}"), &needs, move || {
        let fixture = Fixture::compile_source(compiler, source, &flags)?;
        // rustc makes no tables for the `main` that calls the program's own, where nothing unwinds.
        let end = if flags.contains(&"panic=abort") {
            End::InMain
        } else {
            End::Same
        };
        let compared = compare(&fixture, end)?;
        ensure!(compared.stacks >= least, "{compared:?}");
        ensure!((source == "corners.c") == (compared.too_deep == 1), "{compared:?}");
        Ok(())
    })
}

fn compare(fixture: &Fixture, end: End) -> Result<Compared> {
    let mut running = fixture.start(&[])?;
    let profile = trace(&mut running)?;
    let compared = exact(&profile, &parse(running.child.out.so_far())?, end)?;
    running.end_well()?;
    Ok(compared)
}

fn trace(running: &mut Running) -> Result<Profile> {
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    Ok(tracer.stop()?.profile)
}

/// musl's first functions have no tables: what the program sees is all there, and the rest is marked or whole.
fn musl(flags: &[&str]) -> Result<()> {
    let ours = [
        "-w",
        "-O2",
        "-fomit-frame-pointer",
        "-DWITHOUT_EXECINFO",
        "-Wl,--eh-frame-hdr",
    ];
    let flags = [&ours, flags, &["-lgcc_eh"]].concat();
    let compared = compare(&Fixture::compile_source("musl-gcc", "corners.c", &flags)?, End::Further)?;
    ensure!(compared.stacks >= 25, "{compared:?}");
    Ok(())
}

/// All that the loader does not need is gone.
fn no_section_headers() -> Result<()> {
    let flags = [COMMON, &["-O2", "-s", "-ldl"]].concat();
    let whole = Fixture::compile_source("gcc", "corners.c", &flags)?;
    let mut bytes = fs::read(&whole.path)?;
    // e_shoff; e_shentsize, e_shnum, e_shstrndx.
    for range in [0x28..0x30, 0x3A..0x40] {
        bytes.get_mut(range).context("no ELF header")?.fill(0);
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("corners");
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::metadata(&whole.path)?.permissions())?;
    let compared = compare(&Fixture { path }, End::Same)?;
    ensure!(compared.stacks >= 30, "{compared:?}");
    Ok(())
}
