use proptest::prelude::*;

use super::super::test_programs::Toolchain;
use super::super::test_told::{MODES, Told};
use super::*;

fn bytes(parts: &[MemoryPart], what: &str) -> u64 {
    parts.iter().find(|part| part.what == what).map_or(0, |part| part.bytes)
}

#[test]
fn parts_of_a_real_program_are_what_it_says_itself() {
    for go in Toolchain::all_there() {
        for mode in MODES {
            let mut told = Told::of(&go, mode);
            let (space, runtime) = told.runtime();
            told.ask("act");
            let (answer, parts) = told.while_quiet(|| memory_parts(&space, &runtime).unwrap());
            let context = format!("{go:?} {mode:?}: {parts:?} {:?}", answer.of("heap"));
            let all: u64 = space.resident().unwrap().iter().map(|one| one.bytes).sum();
            let sum: u64 = parts.iter().map(|part| part.bytes).sum();
            // It is quiet; the scavenger alone may give pages back in between.
            assert!(sum.abs_diff(all) <= 1 << 20, "{sum} of {all}: {context}");
            let &[_, in_use, free, stacks] = answer.of("heap") else {
                panic!("{context}")
            };
            let objects = bytes(&parts, "Go heap: pages with objects");
            // What it keeps for its answers it has not written to.
            assert!(objects <= in_use && objects + (12 << 20) > in_use, "{context}");
            assert!(bytes(&parts, "Go heap: free pages") <= free, "{context}");
            let found = bytes(&parts, "Go heap: goroutine stacks and the collector's buffers");
            assert!(found > 51 * 2048 && found <= stacks + (4 << 20), "{context}");
            assert!(bytes(&parts, "program and libraries") > 500_000, "{context}");
            assert!(bytes(&parts, "thread stacks") > 0, "{context}");
            assert_eq!(bytes(&parts, "Go heap: pages that were not told apart"), 0, "{context}");
            told.ask("fct");
            let (freed, after) = told.while_quiet(|| memory_parts(&space, &runtime).unwrap());
            let context = format!("{context} {after:?} {:?}", freed.of("heap"));
            let less = bytes(&after, "Go heap: pages with objects");
            assert!(less < objects && less <= freed.of("heap")[1], "{context}");
            assert!(bytes(&after, "Go heap: free pages") <= freed.of("heap")[2], "{context}");
        }
    }
}

#[test]
fn mappings_are_told_by_what_they_are() {
    let mapping = |start: u64, path: &str| Mapping {
        start,
        end: start + 0x10_0000,
        path: path.into(),
        ..Mapping::default()
    };
    let file = |start, path, inode| Mapping {
        inode,
        ..mapping(start, path)
    };
    let map = Map {
        arenas: HashSet::from([0xc0_0000_0000 >> ARENA_BITS]),
        code: HashSet::from([((0, 0), 7)]),
        variables: std::iter::once(0x50_0000..0x60_0000).collect(),
        stacks: vec![0x7f00_0000_1000],
        named: true,
    };
    for (mapping, part) in [
        (mapping(0xc0_0010_0000, ""), Part::Heap),
        (mapping(0xc0_0010_0000, "[anon: Go: heap]"), Part::Heap),
        (mapping(0x7e00_0000_0000, "[anon: Go: gc bits]"), Part::Runtime),
        (mapping(0x7e00_0000_0000, "[anon: glibc: malloc]"), Part::Anonymous),
        (mapping(0x7e00_0000_0000, ""), Part::Anonymous),
        (mapping(0x7f00_0000_0000, ""), Part::Threads),
        (mapping(0x7ffd_0000_0000, "[stack]"), Part::Threads),
        (mapping(0x55_0000, ""), Part::Code),
        (mapping(0x70_0000, "[heap]"), Part::CHeap),
        (mapping(0x7ffe_0000_0000, "[vdso]"), Part::Kernel),
        (file(0x40_0000, "/bin/server", 7), Part::Code),
        (file(0x7e00_0000_0000, "/var/data", 8), Part::Files),
        (file(0x7e00_0000_0000, "/memfd:shared", 7), Part::Files),
    ] {
        assert_eq!(map.part(&mapping), part, "{mapping:?}");
    }
}

#[test]
fn each_part_has_its_place() {
    for (index, (part, _)) in PARTS.iter().enumerate() {
        assert_eq!(*part as usize, index);
    }
}

proptest! {
    #[test]
    fn parts_add_up(heap in proptest::collection::vec((0..1_u64 << 40, proptest::option::of((0..1_u64 << 41, 0..1_u64 << 41))), 0..9), other in 0..1_u64 << 40) {
        let mut sums = Sums::default();
        for &(resident, used) in &heap {
            sums.add_heap(resident, used);
        }
        sums.add(Part::Files, other);
        let all: u64 = heap.iter().map(|(resident, _)| resident).sum();
        prop_assert_eq!(sums.told(false).iter().map(|part| part.bytes).sum::<u64>(), all + other);
    }
}
