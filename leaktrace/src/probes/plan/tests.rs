//! Over libraries compiled here, and over the allocators installed on this machine.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::module::complete;
use super::*;
use crate::probes::{catalogue::every_function, decode};

const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// The plan for the libraries compiled from each source; none where there is no C compiler.
fn plan_for(sources: &[&str]) -> Option<Result<Plan, PlanError>> {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let (input, output) = (
            directory.path().join("input.c"),
            directory.path().join(format!("lib{index}.so")),
        );
        fs::write(&input, source).unwrap();
        let mut cc = Command::new("cc");
        let cc = cc
            .args(["-O1", "-w", "-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-o"])
            .arg(&output)
            .arg(&input);
        match cc.status() {
            Ok(status) => assert!(status.success(), "cc: {status}"),
            Err(error) => {
                eprintln!("skipped: no C compiler ({error})");
                return None;
            }
        }
        files.push((output.clone(), fs::read(output).unwrap()));
    }
    let images: Vec<_> = files
        .iter()
        .map(|(_, bytes)| Image::parse(bytes.as_slice()).unwrap())
        .collect();
    let modules = files.iter().zip(&images).map(|((path, _), image)| ModuleCode {
        path: path.as_path(),
        image,
    });
    Some(plan(&modules.collect::<Vec<_>>()))
}

fn named<'plan>(plan: &'plan Plan, name: &str) -> &'plan Probe {
    plan.probes
        .iter()
        .find(|probe| probe.function == name)
        .unwrap_or_else(|| panic!("{name} not in {plan:#?}"))
}

#[test]
fn every_module_with_a_malloc_is_probed() {
    let source = "void *malloc(long n){return (void*)n;} void free(void*p){}";
    let Some(plan) = plan_for(&[source, "int nothing(void){return 0;}", source]) else {
        return;
    };
    let plan = plan.unwrap();
    let modules: Vec<_> = plan
        .probes
        .iter()
        .map(|probe| (probe.module, probe.function.as_str()))
        .collect();
    assert_eq!(modules, [(0, "malloc"), (0, "free"), (2, "malloc"), (2, "free")]);
    assert_eq!(plan.allocators, ["malloc of lib0.so", "malloc of lib2.so"]);
    assert_eq!(plan.notes, [""; 0]);
}

#[test]
fn a_function_with_two_names_is_probed_once() {
    let source = "void *malloc(long n){return (void*)n;} void free(void*p){malloc(1);} void cfree(void*p)
        __attribute__((alias(\"free\"))); void *mmap64(void*a,long n,int p,int f,int d,long o){return malloc(2);}
        void *mmap(void*a,long n,int p,int f,int d,long o) __attribute__((alias(\"mmap64\")));";
    let Some(plan) = plan_for(&[source]) else { return };
    let plan = plan.unwrap();
    let mut names: Vec<_> = plan.probes.iter().map(|probe| probe.function.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["free", "malloc", "mmap"]);
    assert_eq!(plan.notes, [""; 0]);
}

#[test]
fn names_that_disagree_about_one_function_are_said() {
    let source = "void *malloc(long n){return 0;} void *calloc(long a,long b) __attribute__((alias(\"malloc\")));";
    let Some(plan) = plan_for(&[source]) else { return };
    let plan = plan.unwrap();
    assert_eq!(plan.probes.len(), 1);
    assert!(
        plan.notes[0].ends_with("calloc is the same code as malloc, and is read as that"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn the_loader_and_untraced_allocators_are_left_alone() {
    let loader = "long _rtld_global=1; void *malloc(long n){return (void*)n;} void free(void*p){}";
    let tcmalloc =
        "int TCMallocInternalMalloc(void){return 0;} void *malloc(long n){return (void*)n;} void free(void*p){}";
    let Some(result) = plan_for(&[loader, tcmalloc]) else {
        return;
    };
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("no allocator to trace found in /"), "{error}");
    assert!(error.contains("lib1.so: tcmalloc found"), "{error}");
    assert!(
        error.ends_with("tcmalloc found: its blocks are not traced by this version"),
        "{error}"
    );
}

#[test]
fn nothing_found_says_what_was_looked_at() {
    let Some(result) = plan_for(&["int nothing(void){return 0;}"; 6]) else {
        return;
    };
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("lib3.so and 2 more: malloc is in none of their symbol tables"),
        "{error}"
    );
    assert!(!error.contains("lib4.so"), "{error}");
}

#[test]
fn a_resolver_is_not_probed() {
    let source = "static void real(void*p){} static void *choose(void){return real;}
        void free(void*p) __attribute__((ifunc(\"choose\"))); void *malloc(long n){return (void*)n;}";
    let Some(plan) = plan_for(&[source]) else { return };
    let plan = plan.unwrap();
    assert_eq!(plan.probes.len(), 1);
    assert!(
        plan.notes[0].contains("free is not traced: chosen at load time"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn distances_are_from_the_instruction_probed() {
    let complete = |kind: CallKind, address| {
        let kind = kind as u32;
        let spec = ProbeSpec {
            kind,
            ..ProbeSpec::default()
        };
        complete(spec, Some(0x9000), address).break_variable
    };
    assert_eq!(complete(CallKind::SetBreak, 0x2003), 0x6ffd);
    assert_eq!(complete(CallKind::Map, 0x2000), 0);
    assert_eq!(complete(CallKind::Allocate, 0x2000), 0);
}

/// What the disassembler shows at `offset` of the function at `address`.
fn disassembled(path: &Path, address: u64) -> Option<String> {
    let range = [
        format!("--start-address={address:#x}"),
        format!("--stop-address={:#x}", address + 16),
    ];
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn"])
        .args(range)
        .arg(path)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{address:x}:")))?;
    Some(line.split_once(":\t")?.1.trim().to_owned())
}

fn is_emulated(instruction: &str) -> bool {
    ["push ", "j", "call ", "nop"]
        .iter()
        .any(|start| instruction.starts_with(start))
}

/// The plan for an installed library, checked instruction by instruction against the disassembler.
fn checked_plan(name: &str) -> Option<Plan> {
    let path = Path::new(LIBRARIES).join(name);
    let Ok(bytes) = fs::read(&path) else {
        eprintln!("skipped: {} is not installed", path.display());
        return None;
    };
    let image = Image::parse(bytes.as_slice()).unwrap();
    let plan = plan(&[ModuleCode {
        path: &path,
        image: &image,
    }])
    .unwrap();
    let mut table = String::new();
    let mut wrong = false;
    for probe in &plan.probes {
        if probe.function == "ret" {
            // In these libraries code lies in the file where it lies in memory.
            assert_eq!(image.file_offset(probe.offset), Some(probe.offset));
            let instruction = disassembled(&path, probe.offset);
            assert!(instruction.is_none_or(|text| text.contains("ret")), "{name}: {probe:?}");
            continue;
        }
        let function = image.functions(&[probe.function.as_str()]).found[&probe.function];
        let at = probe.offset - function.file_offset;
        let Some(instruction) = disassembled(&path, function.address + at) else {
            eprintln!("skipped: no objdump");
            return Some(plan);
        };
        let right = probe.emulated == is_emulated(&instruction) && (probe.emulated || at == 0);
        wrong |= !right;
        writeln!(
            table,
            "{:16} +{at:<3} emulated {:5} {instruction}",
            probe.function, probe.emulated
        )
        .unwrap();
    }
    assert!(!wrong, "{name}:\n{table}");
    println!("{name}:\n{table}");
    Some(plan)
}

#[test]
fn every_function_of_this_machines_c_library_is_planned() {
    let Some(plan) = checked_plan("libc.so.6") else { return };
    assert_eq!(plan.allocators, ["glibc"]);
    assert_eq!(plan.notes, [""; 0]);
    let all = [
        "calloc",
        "free",
        "malloc",
        "memalign",
        "mmap",
        "mremap",
        "munmap",
        "posix_memalign",
        "pvalloc",
    ];
    let more = ["realloc", "reallocarray", "sbrk", "valloc", "brk"];
    for name in all.into_iter().chain(more) {
        let found = plan.probes.iter().any(|probe| probe.function == name);
        assert!(
            found || name == "memalign" && named(&plan, "aligned_alloc").emulated,
            "{name} missing in {plan:#?}"
        );
    }
    for name in ["malloc", "free", "calloc", "realloc"] {
        assert!(named(&plan, name).emulated, "{name} would be single-stepped: {plan:#?}");
    }
    let brk = named(&plan, "brk").spec;
    assert!(brk.break_variable > 0, "{brk:?}");
    assert_eq!(plan.own_code.len(), 1, "{plan:?}");
}

#[test]
fn free_of_nothing_is_passed_over_in_this_machines_c_library() {
    let Some(plan) = checked_plan("libc.so.6") else { return };
    let path = Path::new(LIBRARIES).join("libc.so.6");
    let bytes = fs::read(&path).unwrap();
    let image = Image::parse(bytes.as_slice()).unwrap();
    let free = image.functions(&["free"]).found["free"];
    if !image.bytes(&free).starts_with(&[0x48, 0x85, 0xff, 0x0f, 0x84]) {
        eprintln!("skipped: this free does not start with a test for null");
        return;
    }
    assert_eq!(named(&plan, "free").offset - free.file_offset, 9);
}

/// Places on other allocators' functions, as if the catalogue had them.
#[test]
fn places_on_other_allocators_match_the_disassembler() {
    for library in [
        "libjemalloc.so.2",
        "libtcmalloc_minimal.so.4",
        "libmimalloc.so.2.0",
        "libstdc++.so.6",
    ] {
        let path = Path::new(LIBRARIES).join(library);
        let Ok(bytes) = fs::read(&path) else {
            eprintln!("skipped: {library} is not installed");
            continue;
        };
        let image = Image::parse(bytes.as_slice()).unwrap();
        let like = |name: &str| every_function().find(|entry| entry.name == name).unwrap().spec;
        let news = [
            ("_Znwm", like("malloc")),
            ("_Znam", like("malloc")),
            ("_ZdlPv", like("free")),
        ];
        for (name, spec) in every_function().map(|entry| (entry.name, entry.spec)).chain(news) {
            let Some(&function) = image.functions(&[name]).found.get(name) else {
                continue;
            };
            let placement = decode::place(image.bytes(&function), &spec);
            let Some(instruction) = disassembled(&path, function.address + placement.offset) else {
                continue;
            };
            println!(
                "{library} {name} +{} {} {instruction}",
                placement.offset, placement.emulated
            );
            assert_eq!(
                placement.emulated,
                is_emulated(&instruction),
                "{library} {name} {placement:?} {instruction}"
            );
        }
    }
}

#[test]
fn every_allocator_of_this_machine_is_planned_without_a_note() {
    let libraries = [
        ("jemalloc", "libjemalloc.so.2"),
        ("tcmalloc", "libtcmalloc_minimal.so.4"),
        ("tcmalloc", "libtcmalloc.so.4"),
        ("mimalloc", "libmimalloc.so.2.0"),
    ];
    for (name, library) in libraries {
        let Some(plan) = checked_plan(library) else { continue };
        assert_eq!(plan.allocators, [name]);
        assert_eq!(plan.notes, [""; 0], "{library}");
        assert_eq!(plan.untraced, [], "{library}");
        let new = named(&plan, "_Znwm");
        assert!(!new.spec.needs_return(), "{library}: {new:?}");
        let leaves = plan.probes.iter().filter(|probe| probe.function == "ret").count();
        println!("{library}: {leaves} leaves");
        assert!((2..100).contains(&leaves), "{library}: {leaves} leaves");
    }
}

#[test]
fn a_static_program_holds_its_allocator_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("input.c"), directory.path().join("program"));
    fs::write(
        &input,
        "#include <stdlib.h>\nint main(void){return malloc(1) != malloc(2);}",
    )
    .unwrap();
    let linked = Command::new("cc")
        .args(["-static", "-o"])
        .arg(&output)
        .arg(&input)
        .output();
    if !linked.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no C compiler, or no static C library");
        return;
    }
    let bytes = fs::read(&output).unwrap();
    let image = Image::parse(bytes.as_slice()).unwrap();
    assert_eq!(image.interpreter(), None);
    let module = ModuleCode {
        path: &output,
        image: &image,
    };
    let plan = plan(&[module]).unwrap();
    assert_eq!(plan.allocators, ["glibc"]);
    assert!(named(&plan, "malloc").emulated && named(&plan, "free").emulated);
    assert_ne!(named(&plan, "brk").spec.break_variable, 0);
    assert!(!plan.probes.iter().any(|probe| probe.function == "cfree"));
}

#[test]
fn jemalloc_is_planned_as_a_whole() {
    let Some(plan) = checked_plan("libjemalloc.so.2") else {
        return;
    };
    assert_eq!(plan.allocators, ["jemalloc"]);
    assert_eq!(plan.notes, [""; 0]);
    for name in [
        "malloc",
        "posix_memalign",
        "mallocx",
        "rallocx",
        "xallocx",
        "dallocx",
        "sdallocx",
        "_ZdlPvm",
    ] {
        named(&plan, name);
    }
    for name in ["malloc", "free"] {
        assert!(named(&plan, name).emulated, "{name} would be single-stepped: {plan:#?}");
    }
}
