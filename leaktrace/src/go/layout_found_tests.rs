use std::path::Path;

use super::super::test_programs::{SOURCE, Toolchain};
use super::*;

fn found(program: &Path) -> (Found, BuildInfo) {
    let file = File::open(program).unwrap();
    let headers = ElfHeaders::read(&file).unwrap();
    let info = BuildInfo::read(&file, &headers).unwrap();
    (Found::of(&info, &file, &headers).unwrap(), info)
}

#[test]
fn debug_information_says_what_is_written_down() {
    for go in Toolchain::all_there() {
        for flags in [
            &["-buildmode=exe"][..],
            &["-buildmode=pie"],
            &["-ldflags=-compressdwarf=false"],
        ] {
            let (found, info) = found(&go.build(flags, SOURCE));
            assert_eq!((found.source, &found.unfit), (Source::Debug, &Vec::new()), "{go:?}");
            assert_eq!(&found.layout, Layout::of(info.minor()).unwrap().0, "{go:?}");
        }
    }
}

#[test]
fn stripped_programs_have_what_is_written_of_their_version() {
    let go = Toolchain::oldest_and_newest();
    let (found, info) = found(&go[1].build(&["-ldflags=-s -w"], SOURCE));
    assert_eq!(found.source, Source::Known);
    assert_eq!(&found.layout, Layout::of(info.minor()).unwrap().0);
}

#[test]
fn programs_with_debug_information_need_no_version() {
    for go in Toolchain::oldest_and_newest() {
        let program = go.build(&[], SOURCE);
        let file = File::open(&program).unwrap();
        let headers = ElfHeaders::read(&file).unwrap();
        let own = BuildInfo::read(&file, &headers).unwrap();
        let known = Layout::of(own.minor()).unwrap().0;
        for version in ["go1.99.1", "devel"] {
            let claimed = BuildInfo {
                version: version.to_owned(),
                ..BuildInfo::default()
            };
            let found = Found::of(&claimed, &file, &headers).unwrap();
            assert_eq!(
                (&found.layout, found.source),
                (known, Source::Debug),
                "{go:?} {version}"
            );
        }
    }
}

#[test]
fn a_structure_without_a_field_is_unfit_and_damage_is_no_layout() {
    let mut fields = json!({"a": 8, "b": 16, "size": 24}).as_object().unwrap().clone();
    let member = |offset| super::super::debug_info::Member { offset, size: None };
    let structure = Structure {
        size: 40,
        members: [("a".to_owned(), member(32))].into(),
    };
    assert_eq!(set_over(&mut fields, "x", &structure).as_deref(), Some("b"));
    assert_eq!(Value::Object(fields), json!({"a": 32, "b": 16, "size": 40}));
}
