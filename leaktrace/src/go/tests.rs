use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use super::test_programs::{SOURCE, Toolchain};
use super::*;
use crate::target::ElfHeaders;

const STRIPPED: &str = "-ldflags=-s -w";

fn read(program: &Path) -> Program {
    let file = File::open(program).unwrap();
    let headers = ElfHeaders::read(&file).unwrap();
    Program::read(&file, &headers, u64::MAX).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Names by address, of code and variables, as `go tool nm` has them of the program's symbols.
pub fn symbols(go: &Toolchain, program: &Path) -> HashMap<u64, Vec<String>> {
    let output = go.command(&["tool", "nm"]).arg(program).output().unwrap();
    let mut symbols: HashMap<u64, Vec<String>> = HashMap::new();
    for line in text(&output.stdout).lines() {
        let words: Vec<&str> = line.trim_start().splitn(3, ' ').collect();
        if let [address, "T" | "t" | "B" | "b" | "D" | "d" | "R" | "r", name] = words.as_slice() {
            let address = u64::from_str_radix(address, 16).unwrap();
            symbols.entry(address).or_default().push((*name).to_owned());
        }
    }
    symbols
}

/// A symbol's name as the table has it: without its calling convention, and from Go 1.18 to 1.20 without what a generic
/// function was made for.
fn bare(name: &str) -> String {
    pclntab::shown(name.trim_end_matches(".abi0").trim_end_matches(".abiinternal"))
}

#[test]
fn every_function_is_found_in_a_stripped_program() {
    for go in Toolchain::oldest_and_newest() {
        for mode in ["-buildmode=exe", "-buildmode=pie"] {
            let whole = go.build(&[mode], SOURCE);
            let symbols = symbols(&go, &whole);
            let program = read(&go.build(&[mode, STRIPPED], SOURCE));
            let table = &program.table;
            let mut found = 0;
            for function in table.functions() {
                let name = text(table.name(&function).unwrap());
                let known = symbols.get(&function.start).into_iter().flatten();
                assert!(
                    known.map(|name| bare(name)).any(|known| known == pclntab::shown(&name)),
                    "{go:?} {mode}: {name} at {:x}",
                    function.start
                );
                assert_eq!(table.find(function.start), Some(function), "{name}");
                found += 1;
            }
            // Symbols without a function in the table are C's, marks between functions, or other names of one.
            let (first, last) = (table.functions().next().unwrap(), table.functions().last().unwrap());
            let go_code = symbols.iter().filter(|(address, names)| {
                (first.start..last.end).contains(*address) && names.iter().any(|name| name.contains('.'))
            });
            assert!(found > 1000 && found + 60 > go_code.count(), "{found}");
            let main = table.named("main.main").unwrap();
            assert!(symbols[&main.start].contains(&"main.main".to_owned()));
        }
    }
}

/// What `go tool addr2line` says: the function that the address lies in, and the line of the innermost call.
fn lines(go: &Toolchain, program: &Path, addresses: &[u64]) -> Vec<(String, String)> {
    let mut tool = go.command(&["tool", "addr2line"]);
    let mut tool = tool
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = tool.stdin.take().unwrap();
    let asked: Vec<String> = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(asked.concat().as_bytes()).unwrap());
    let output = text(&tool.wait_with_output().unwrap().stdout);
    writer.join().unwrap();
    let mut lines = output.lines().map(str::to_owned);
    std::iter::from_fn(|| Some((lines.next()?, lines.next()?))).collect()
}

#[test]
fn lines_are_those_of_gos_own_tool() {
    for go in Toolchain::oldest_and_newest() {
        let program = read(&go.build(&[STRIPPED], SOURCE));
        let functions: Vec<_> = program.table.functions().collect();
        let places = functions.iter().enumerate();
        // Somewhere in each function, never at the same place.
        let addresses: Vec<u64> = places
            .map(|(index, function)| function.start + index as u64 * 7 % (function.end - function.start))
            .collect();
        let told = lines(&go, &go.build(&[], SOURCE), &addresses);
        assert_eq!(told.len(), addresses.len());
        for (&address, (function, place)) in addresses.iter().zip(&told) {
            let calls = program.table.calls(address);
            let (inner, outer) = (calls.first().unwrap(), calls.last().unwrap());
            assert_eq!(text(outer.function), *function, "{address:x}");
            let ours = (inner.file.map(text), inner.line.map(u32::cast_signed));
            // Between functions there is no code: what the tool makes of that is no line.
            let expected = place.rsplit_once(':').unwrap();
            match expected.1.parse::<i32>().ok().filter(|&line| line > 0) {
                None => assert_eq!(ours.1, None, "{address:x}"),
                line => assert_eq!(ours, (Some(expected.0.to_owned()), line), "{address:x}"),
            }
        }
    }
}

#[test]
fn all_kinds_of_programs_are_found_with_inlining() {
    let cgo = SOURCE.replacen("import (", "import \"C\"\nimport (", 1);
    for go in Toolchain::oldest_and_newest() {
        for source in [SOURCE, &cgo] {
            for mode in ["-buildmode=exe", "-buildmode=pie"] {
                let program = read(&go.build(&[mode, STRIPPED], source));
                assert!(
                    program.table.has_inlining() && program.module.is_some(),
                    "{go:?} {mode}"
                );
                let handle = program.table.named("main.(*Server).handle").unwrap();
                let chains = (handle.start..handle.end).map(|address| program.table.calls(address));
                let names =
                    |calls: Vec<pclntab::Call<'_>>| calls.iter().map(|call| text(call.function)).collect::<Vec<_>>();
                let deepest = chains.max_by_key(Vec::len).unwrap();
                assert_eq!(names(deepest), ["main.inner", "main.outer", "main.(*Server).handle"]);
            }
        }
    }
}

#[test]
fn other_programs_have_no_table() {
    let file = File::open("/proc/self/exe").unwrap();
    let headers = ElfHeaders::read(&file).unwrap();
    assert!(!Program::is_marked(&headers) && Program::read(&file, &headers, u64::MAX).is_none());
}
