use std::fs::File;
use std::path::Path;

use iced_x86::{Decoder, DecoderOptions};

use super::super::Program;
use super::super::test_programs::{SOURCE, Toolchain};
use super::*;
use crate::target::ElfHeaders;

/// The probes, each as its distance from the beginning of its function.
fn found(program: &Path) -> Result<[u64; 3], NoProbe> {
    let file = File::open(program).unwrap();
    let headers = ElfHeaders::read(&file).unwrap();
    let table = Program::read(&file, &headers, u64::MAX).unwrap().table;
    let probes = HeapProbes::find(&table, &Words::read(&file, &headers))?;
    let distance = |name, address: u64| {
        let function = table.named(name).unwrap();
        assert!((function.start..function.end).contains(&address), "{name}");
        address - function.start
    };
    Ok([
        distance(REFILL, probes.refill),
        distance(LARGE, probes.large),
        distance(UNCACHE, probes.uncache),
    ])
}

/// The instructions of a function as Go's own disassembler has them: distance from its beginning, and text.
fn disassembled(go: &Toolchain, program: &Path, function: &str) -> Vec<(u64, String)> {
    let pattern = function.replace('(', "[(]").replace(')', "[)]").replace('*', "[*]");
    let output = go
        .command(&["tool", "objdump", "-s", &format!("^{pattern}$")])
        .arg(program)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let address = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).unwrap();
        Some((address, words.skip(1).collect::<Vec<_>>().join(" ")))
    });
    let lines: Vec<_> = lines
        .filter(|(_, text)| !text.starts_with("NOP") && text != "XCHGW AX, AX")
        .collect();
    let start = lines.first().unwrap_or_else(|| panic!("{function}")).0;
    lines
        .into_iter()
        .map(|(address, text)| (address - start, text))
        .collect()
}

/// What stands before the instruction, and it.
fn context(code: &[(u64, String)], distance: u64) -> (Vec<&str>, &str) {
    let at = code
        .iter()
        .position(|(at, _)| *at == distance)
        .expect("no instruction begins there");
    (code[..at].iter().map(|(_, text)| text.as_str()).collect(), &code[at].1)
}

/// Go's own disassembler sees there what there should be.
fn check(go: &Toolchain, program: &Path) -> [u64; 3] {
    let distances = found(program).unwrap();
    for (function, callee, distance) in [
        (REFILL, "CALL runtime.(*mcentral).cacheSpan(SB)", distances[0]),
        (LARGE, "CALL runtime.(*mheap).alloc(SB)", distances[1]),
    ] {
        let code = disassembled(go, program, function);
        let (before, probe) = context(&code, distance);
        assert!(probe.starts_with("JE "), "{go:?} {function}: {probe}");
        assert!(
            before.ends_with(&[callee, "TESTQ AX, AX"]),
            "{go:?} {function}: {before:?}"
        );
    }
    let code = disassembled(go, program, UNCACHE);
    let (before, probe) = context(&code, distances[2]);
    assert!(before.iter().any(|text| text.starts_with("JBE ")), "{go:?}: {before:?}");
    assert!(
        before.len() <= 6 && (probe == "PUSHQ BP" || probe.starts_with("JE ")),
        "{go:?}: {before:?} {probe}"
    );
    distances
}

#[test]
fn probes_are_at_the_instructions_that_have_the_span() {
    for go in Toolchain::all_there() {
        let whole = check(&go, &go.build(&[], SOURCE));
        for flags in [
            &["-buildmode=exe", "-ldflags=-s -w"][..],
            &["-buildmode=pie", "-ldflags=-s -w"],
        ] {
            assert_eq!(found(&go.build(flags, SOURCE)), Ok(whole), "{go:?} {flags:?}");
        }
        check(&go, &go.build(&["-buildmode=pie"], SOURCE));
        // Without inlining, and as debuggers like it.
        check(&go, &go.build(&["-gcflags=all=-N -l"], SOURCE));
    }
}

#[test]
fn probes_are_found_in_programs_and_libraries_linked_by_cs_linker() {
    let cgo = SOURCE.replacen("import (", "import \"C\"\nimport (", 1);
    for go in Toolchain::oldest_and_newest() {
        check(&go, &go.build(&[], &cgo));
        check(&go, &go.build(&["-race"], SOURCE));
        check(&go, &go.build(&["-buildmode=c-shared"], &cgo));
        let stripped = go.build(&["-buildmode=pie", "-ldflags=-linkmode=external -s -w"], &cgo);
        assert!(found(&stripped).is_ok(), "{go:?}");
    }
}

fn decoded(code: &[u8]) -> Vec<Instruction> {
    Decoder::with_ip(64, code, 0x1000, DecoderOptions::NONE)
        .iter()
        .collect()
}

#[test]
fn code_that_differs_is_refused() {
    // cmp rsp, [r14+16]; jbe; push rbp; …; jmp to the entry
    let entry = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x08, 0x55, 0x90, 0x90, 0x90];
    assert_eq!(before_first_change(&decoded(&entry), Register::RBX), Some(0x1006));
    let jumps_there = [&entry[..], &[0xeb, 0xfa]].concat();
    assert_eq!(before_first_change(&decoded(&jumps_there), Register::RBX), None);
    // mov ebx, eax before it
    let changed = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x08, 0x89, 0xc3, 0x55];
    assert_eq!(before_first_change(&decoded(&changed), Register::RBX), None);
    // ret before it
    let returns = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x08, 0xc3, 0x55];
    assert_eq!(before_first_change(&decoded(&returns), Register::RBX), None);
    // No check of the stack's size.
    assert_eq!(before_first_change(&decoded(&entry[6..]), Register::RBX), None);
    assert_eq!(jump_if_zero(&decoded(&[0x48, 0x85, 0xc0, 0x74, 0])), Some(0x1003));
    for other in [
        [0x48, 0x85, 0xc0, 0x75, 0],
        [0x48, 0x85, 0xc9, 0x74, 0],
        [0x48, 0x85, 0xc0, 0xc3, 0],
    ] {
        assert_eq!(jump_if_zero(&decoded(&other)), None);
    }
    assert_eq!(jump_if_zero(&[]), None);
}
