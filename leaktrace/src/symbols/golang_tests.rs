use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use leaktrace_common::events::StackEnd;

use super::super::image::Image;
use super::super::worker::Worker;
use super::super::{RawStack, Symbolizer};
use super::*;
use crate::go::test_programs::{SOURCE, Toolchain};
use crate::profile::Frame;
use crate::target::ElfHeaders;
use crate::target::test_programs::Running;
use crate::target::{AddressSpace, Era};

fn read(path: &Path) -> (File, ElfHeaders) {
    let file = File::open(path).unwrap();
    let headers = ElfHeaders::read(&file).unwrap();
    (file, headers)
}

/// An address at which two calls are inlined into `main.(*Server).handle`.
fn inlined_twice(table: &Table) -> u64 {
    let handle = table.named("main.(*Server).handle").unwrap();
    (handle.start..handle.end)
        .find(|&address| table.calls(address).len() == 3)
        .unwrap()
}

/// The frames of an address of a running program.
fn frames(program: &Path, address: u64) -> Vec<Frame> {
    let running = Running::start(&mut Command::new(program));
    let space = AddressSpace::read(running.pid()).unwrap();
    let bias = space
        .executable_mappings()
        .find_map(|(mapping, module)| {
            let module = module.filter(|module| module.path == program)?;
            Some(mapping.start - module.virtual_address(mapping, mapping.start)?)
        })
        .unwrap();
    let stack = RawStack {
        frames: vec![bias + address + 1],
        end: StackEnd::Whole,
        era: Era::default(),
    };
    Symbolizer::new().symbolize(&space, &[stack]).remove(0).frames
}

#[test]
fn stripped_programs_have_names_lines_and_inlined_calls() {
    for go in Toolchain::oldest_and_newest() {
        for mode in ["-buildmode=exe", "-buildmode=pie"] {
            let program = go.build(&[mode, "-ldflags=-s -w"], SOURCE);
            let (file, headers) = read(&program);
            let table = Program::read(&file, &headers, u64::MAX).unwrap().table;
            let frames = frames(&program, inlined_twice(&table));
            let shown: Vec<_> = frames
                .iter()
                .map(|frame| {
                    (
                        frame.function.as_deref().unwrap(),
                        frame.line.unwrap() > 10,
                        frame.inlined,
                    )
                })
                .collect();
            assert_eq!(
                shown,
                [
                    ("main.inner", true, true),
                    ("main.outer", true, true),
                    ("main.(*Server).handle", true, false)
                ]
            );
            assert!(
                frames
                    .iter()
                    .all(|frame| frame.file.as_deref().unwrap().ends_with("/main.go"))
            );
        }
    }
}

#[test]
fn generic_functions_are_named_as_go_prints_them() {
    for go in Toolchain::oldest_and_newest() {
        let (file, headers) = read(&go.build(&["-ldflags=-s -w"], SOURCE));
        let table = Program::read(&file, &headers, u64::MAX).unwrap().table;
        let apply = table
            .functions()
            .find(|function| table.name(function).unwrap().starts_with(b"main.apply"));
        let calls = calls(&table, apply.unwrap().start);
        assert_eq!(calls.last().unwrap().function.as_deref(), Some("main.apply[...]"));
    }
}

/// Names apart (see the head of this room), debug information says the same.
#[test]
fn calls_are_those_of_the_debug_information() {
    for go in Toolchain::oldest_and_newest() {
        let (file, headers) = read(&go.build(&[], SOURCE));
        let table = Program::read(&file, &headers, u64::MAX).unwrap().table;
        let mut addresses: Vec<u64> = Vec::new();
        for (index, function) in table.functions().enumerate() {
            let address = function.start + index as u64 * 13 % (function.end - function.start);
            // Where there is no line there is no code.
            if table.calls(address).first().is_some_and(|call| call.line.is_some()) {
                addresses.push(address);
            }
        }
        let build_id = headers.build_id(&file);
        let images: Arc<[Image]> =
            [Image::copy(&file, build_id.as_deref(), false, &mut u64::MAX.clone()).unwrap()].into();
        let answer = Worker::start()
            .unwrap()
            .ask((0, 0), &images, addresses.clone(), Duration::from_mins(2))
            .unwrap();
        let (mut equal, mut inlined) = (0, 0);
        for (&address, debug) in addresses.iter().zip(&answer.calls) {
            let ours = calls(&table, address);
            let lines = |calls: &Calls| calls.iter().map(|call| call.line).collect::<Vec<_>>();
            // (Of a method's wrapper, Go 1.19's debug information does not tell that the method is inlined.)
            if lines(&ours) == lines(debug) {
                equal += 1;
                inlined += usize::from(ours.len() > 1);
            }
        }
        assert!(inlined > 100, "{inlined}");
        assert!(
            equal * 100 > addresses.len() * 99,
            "{go:?}: {equal} of {}",
            addresses.len()
        );
    }
}
