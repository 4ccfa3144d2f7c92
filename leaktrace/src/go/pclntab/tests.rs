use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::test_programs::{SOURCE, Toolchain};
use super::*;
use crate::go::Program;
use crate::target::ElfHeaders;

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let of = |go: &Toolchain| {
        let file = std::fs::File::open(go.build(&["-ldflags=-s -w"], SOURCE)).unwrap();
        let headers = ElfHeaders::read(&file).unwrap();
        Program::read(&file, &headers, u64::MAX).unwrap().table
    };
    Toolchain::oldest_and_newest().iter().map(of).collect()
});

#[test]
fn names_are_shown_as_go_prints_them() {
    for (name, expected) in [
        ("main.main", "main.main"),
        ("main.apply[go.shape.int]", "main.apply[...]"),
        ("main.(*Set[go.shape.[]string]).Add", "main.(*Set[...]).Add"),
        ("main.apply[...]", "main.apply[...]"),
        ("odd]name[", "odd]name["),
    ] {
        assert_eq!(shown(name), expected);
    }
}

#[test]
fn addresses_outside_are_in_no_function() {
    for table in TABLES.iter() {
        let last = table.functions().last().unwrap();
        for address in [0, table.text - 1, last.end, u64::MAX] {
            assert!(table.find(address).is_none() && table.calls(address).is_empty());
        }
    }
}

#[test]
fn data_that_is_not_the_functions_is_not_taken() {
    for table in TABLES.iter() {
        let mut table = Table::new(table.bytes.clone(), table.text).unwrap();
        for data in [Vec::new(), vec![0xff; 1 << 16], table.bytes.clone()] {
            assert!(!table.take_data(data) && !table.has_inlining());
        }
    }
}

#[test]
fn work_is_bounded_over_all_look_ups() {
    let mut table = Table::new(TABLES[0].bytes.clone(), TABLES[0].text).unwrap();
    let main = table.named("main.main").unwrap();
    assert!(table.calls(main.start)[0].line.is_some());
    table.fuel = AtomicU64::new(0);
    assert!(table.is_exhausted());
    assert_eq!(table.calls(main.start)[0].line, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Damage in the header, in the list of functions, and anywhere.
    #[test]
    fn damaged_tables_never_panic(
        which in 0..2_usize,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60),
        addresses in proptest::collection::vec(any::<prop::sample::Index>(), 40),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let sound = &TABLES[which];
        let (mut bytes, mut data) = (sound.bytes.clone(), sound.data.clone());
        for (position, (at, byte)) in damage.iter().enumerate() {
            match position % 4 {
                0 => bytes[8 + at.index(64)] = *byte,
                1 => bytes[sound.header.entries + at.index(8 * sound.header.functions)] = *byte,
                2 => { let at = at.index(data.len()); data[at] = *byte }
                _ => { let at = at.index(bytes.len()); bytes[at] = *byte }
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Some(mut table) = Table::new(bytes, sound.text) {
            table.fuel = AtomicU64::new(1 << 20);
            table.take_data(data);
            for at in addresses {
                let address = sound.text + at.index(1 << 20) as u64;
                let _ = table.calls(address);
            }
            let _ = table.functions().take(5000).filter_map(|function| table.name(&function)).count();
        }
    }
}
