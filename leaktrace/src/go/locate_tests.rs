use std::fs::File;

use super::super::Program;
use super::super::test_programs::{SOURCE, Toolchain};
use super::super::tests::symbols;
use super::*;
use crate::go::BuildInfo;
use crate::target::ElfHeaders;

/// What is found without symbols is what the symbols say. (Of one program: a stripped one has other addresses.)
#[test]
fn variables_are_found_where_the_symbols_have_them() {
    for go in Toolchain::all_there() {
        for mode in ["-buildmode=exe", "-buildmode=pie"] {
            let path = go.build(&[mode], SOURCE);
            let symbols = symbols(&go, &path);
            let address = |name: &str| {
                let named = symbols
                    .iter()
                    .find(|(_, names)| names.iter().any(|known| known == name));
                *named.unwrap_or_else(|| panic!("no {name}")).0
            };
            let file = File::open(path).unwrap();
            let headers = ElfHeaders::read(&file).unwrap();
            let program = Program::read(&file, &headers, u64::MAX).unwrap();
            let (module, words) = (program.module.unwrap(), Words::read(&file, &headers));
            let minor = BuildInfo::read(&file, &headers).unwrap().minor();
            let layout = Layout::of(minor).unwrap().0;
            let found = Globals::find(&program.table, &words, layout, |address| module.is_zeroed(address));
            let expected = Globals {
                goroutines: Some(Goroutines {
                    list: address("runtime.allgs"),
                    pointer: address("runtime.allgptr"),
                    length: address("runtime.allglen"),
                }),
                heap: Some(address("runtime.mheap_")),
                stats: Some(address("runtime.memstats")),
                semaphores: Some(address("runtime.semtable")),
                controller: Some(address("runtime.gcController")),
                own_profile: Some(OwnProfile {
                    buckets: address("runtime.mbuckets"),
                    rate: address("runtime.MemProfileRate"),
                    disabled: Some(address("runtime.disableMemoryProfiling")),
                }),
            };
            assert_eq!(found, expected, "{go:?} {mode}");
            assert!(wait_reasons(&program.table, &words).contains(&address("runtime.waitReasonStrings")));
        }
    }
}

#[test]
fn code_that_is_something_else_gives_nothing() {
    let code: Vec<Instruction> = Decoder::with_ip(64, &[0x90; 64], 0, DecoderOptions::NONE)
        .iter()
        .collect();
    let layout = Layout::of(None).unwrap().0;
    assert_eq!(goroutines(&code), None);
    assert_eq!(heap(&code, layout), None);
    assert_eq!((receiver(&code, Some(0)), semaphores(&code, |_| true)), (None, None));
    assert_eq!(OwnProfile::find(|_| code.clone()), None);
}
