use std::collections::BTreeMap;

use super::super::layout::Layout;
use super::super::test_programs::Toolchain;
use super::super::test_told::{MODES, TOLD, Told};
use super::*;

/// A program that never asks for its profile.
fn without_profile() -> String {
    TOLD.replace("runtime.MemProfile(records, true)", "0, 0")
}

/// Numbers of the records with a stack: two sites can have the same, with objects of other sizes. Of a stack the runtime
/// tells no more than 32 frames this way.
fn by_stack(records: impl Iterator<Item = ([u64; 4], Vec<u64>)>) -> BTreeMap<Vec<u64>, Vec<[u64; 4]>> {
    let mut found: BTreeMap<Vec<u64>, Vec<[u64; 4]>> = BTreeMap::new();
    for (numbers, mut stack) in records {
        stack.truncate(32);
        found.entry(stack).or_default().push(numbers);
    }
    for numbers in found.values_mut() {
        numbers.sort_unstable();
    }
    found
}

#[test]
fn each_site_is_what_the_program_says_of_it() {
    for go in Toolchain::all_there() {
        for mode in MODES {
            for (rate, commands) in [("4096", "aactafct"), ("524288", "at")] {
                // No collection happens but where one is asked for: none at all in the second case.
                let variables = [("RATE", rate), ("GOGC", "off")];
                let mut told = Told::start(&go.build(mode, TOLD), &[], &variables);
                let (_, runtime) = told.runtime();
                told.ask(commands);
                let (answer, read) = told.while_quiet(|| Sampled::read(&runtime).unwrap().unwrap());
                let context = format!("{go:?} {mode:?} {rate}");
                assert_eq!(answer.of("rate"), [rate.parse::<u64>().unwrap()], "{context}");
                let said = answer.all("record").iter().map(|record| {
                    let (numbers, stack) = record.split_at(4);
                    (numbers.try_into().unwrap(), stack.to_vec())
                });
                let said = by_stack(said);
                let found = by_stack(read.sites.iter().map(|one| {
                    let numbers = [
                        one.allocations,
                        one.frees,
                        one.allocations * one.object_size,
                        one.frees * one.object_size,
                    ];
                    (numbers, one.stack.clone())
                }));
                assert_eq!(found, said, "{context}");
                assert!(said.len() > 4, "{context}: {said:?}");
                assert_eq!(read.rate.to_string(), rate, "{context}");
            }
        }
    }
}

#[test]
fn a_profile_that_is_off_is_told_so() {
    for go in Toolchain::all_there() {
        for mode in MODES {
            let mut told = Told::start(&go.build(mode, &without_profile()), &[], &[]);
            told.ask("at");
            assert_eq!(Sampled::read(&told.runtime().1).unwrap(), None, "{go:?} {mode:?}");
        }
        let mut told = Told::start(&go.build(MODES[0], TOLD), &[], &[("RATE", "0")]);
        told.ask("at");
        assert_eq!(Sampled::read(&told.runtime().1).unwrap(), None, "{go:?}");
    }
}

/// Our own memory as a list of sites.
struct List {
    words: Vec<u64>,
    first: u64,
}

fn list(words: Vec<u64>) -> List {
    let first = words.as_ptr() as u64;
    List { words, first }
}

fn one(list: &List, at: usize) -> std::io::Result<Option<(u64, Raw)>> {
    let memory = Memory {
        pid: std::process::id(),
    };
    let layout = Layout::of(Some(27)).unwrap().0;
    let address = list.first + 8 * at as u64;
    assert!(at < list.words.len());
    Pieces::of(memory).bucket(address, &layout.bucket, &layout.record)
}

#[test]
fn what_is_no_site_is_refused() {
    // Next of its kind, next of all, kind, hash, size, depth, stack, records.
    let mut words = vec![0, 77, 1, 0, 48, 2, 0x40_1000, 0x40_2000];
    words.extend([5, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    let good = list(words.clone());
    let (next, (size, stack, records)) = one(&good, 0).unwrap().unwrap();
    assert_eq!((next, size, stack), (77, 48, vec![0x40_1000, 0x40_2000]));
    let layout = Layout::of(Some(27)).unwrap().0;
    let (sites, is_published) = published(&[(size, Vec::new(), records)], &layout.record);
    assert!(is_published && (sites[0].allocations, sites[0].frees) == (5, 3));
    for (place, value) in [(2, 2), (2, u64::MAX), (5, MAX_DEPTH + 1), (5, u64::MAX)] {
        let mut bad = words.clone();
        bad[place] = value;
        assert_eq!(one(&list(bad), 0).unwrap(), None);
    }
}
