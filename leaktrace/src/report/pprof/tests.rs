use std::collections::BTreeMap;
use std::io::Read;
use std::process::Command;

use flate2::read::GzDecoder;
use prost::Message as _;

use super::*;
use crate::profile::{Frame, Stack, fixture};

fn written(profile: &Profile) -> Vec<u8> {
    let mut out = Vec::new();
    PprofReport.write(profile, &View::default(), &mut out).expect("writes");
    out
}

fn decoded(profile: &Profile) -> proto::Profile {
    let mut bytes = Vec::new();
    GzDecoder::new(written(profile).as_slice())
        .read_to_end(&mut bytes)
        .expect("gzip");
    proto::Profile::decode(bytes.as_slice()).expect("a profile")
}

fn text(profile: &proto::Profile, index: i64) -> &str {
    &profile.string_table[usize::try_from(index).expect("an index")]
}

fn function_name<'a>(profile: &'a proto::Profile, line: &proto::Line) -> &'a str {
    text(profile, profile.function[line.function_id as usize - 1].name)
}

/// What the format and its readers ask of every profile.
fn assert_sound(profile: &proto::Profile) {
    assert_eq!(profile.string_table[0], "");
    assert!(
        profile
            .mapping
            .iter()
            .map(|mapping| mapping.id)
            .eq(1..=profile.mapping.len() as u64)
    );
    assert!(
        profile
            .location
            .iter()
            .map(|location| location.id)
            .eq(1..=profile.location.len() as u64)
    );
    assert!(
        profile
            .function
            .iter()
            .map(|function| function.id)
            .eq(1..=profile.function.len() as u64)
    );
    for location in profile.location.iter().filter(|location| location.mapping_id > 0) {
        let mapping = &profile.mapping[location.mapping_id as usize - 1];
        assert!(
            (mapping.memory_start..mapping.memory_limit).contains(&location.address),
            "{location:?} {mapping:?}"
        );
    }
    for sample in &profile.sample {
        assert_eq!(sample.value.len(), profile.sample_type.len());
        assert!(!sample.location_id.is_empty());
        assert!(
            sample
                .location_id
                .iter()
                .all(|id| (1..=profile.location.len() as u64).contains(id))
        );
    }
}

#[test]
fn values_and_types_are_the_profile_s() {
    let (profile, pprof) = (fixture::profile(), decoded(&fixture::profile()));
    assert_sound(&pprof);
    let types: Vec<_> = pprof
        .sample_type
        .iter()
        .map(|kind| (text(&pprof, kind.r#type), text(&pprof, kind.unit)))
        .collect();
    let expected = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    assert_eq!(types, expected);
    assert_eq!(text(&pprof, pprof.default_sample_type), "inuse_space");
    for (site, sample) in profile.sites.iter().zip(&pprof.sample) {
        let values = [
            site.allocated_count,
            site.allocated_bytes,
            site.live_count,
            site.live_bytes,
        ];
        assert_eq!(sample.value, values.map(|value| value as i64));
    }
    assert_eq!(pprof.time_nanos, 1_700_000_000_000_000_000);
    assert_eq!((pprof.duration_nanos, pprof.period), (30_000_000_000, 1));
    let comments: Vec<_> = pprof.comment.iter().map(|comment| text(&pprof, *comment)).collect();
    assert!(comments.contains(&"lost: table_full 1204"), "{comments:?}");
}

#[test]
fn inlined_calls_share_a_location_innermost_first() {
    let pprof = decoded(&fixture::profile());
    let first = &pprof.location[pprof.sample[0].location_id[0] as usize - 1];
    let names: Vec<_> = first.line.iter().map(|line| function_name(&pprof, line)).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(
        (names[0], names[2]),
        (
            "orders::Item::Item(orders::Item const&)",
            "orders::parse(char const*; unsigned long)"
        )
    );
    assert_eq!(first.line[2].line, 212);
    assert_eq!(first.address, 0x5555_5555_5a3f, "the call, not what comes after it");
}

#[test]
fn the_main_executable_is_the_first_mapping() {
    let pprof = decoded(&fixture::profile());
    let main = &pprof.mapping[0];
    assert_eq!(text(&pprof, main.filename), "/usr/bin/orders");
    assert_eq!(text(&pprof, main.build_id), "1f2e3d4c5b6a79880f1e2d3c4b5a69788f7e6d5c");
    assert_eq!(
        (main.memory_start, main.memory_limit, main.file_offset),
        (0x5555_5555_4000, 0x5555_5555_7000, 0)
    );
    assert!(main.has_functions && main.has_line_numbers && main.has_inline_frames);
    let empty = decoded(&fixture::empty());
    assert_sound(&empty);
    assert_eq!(
        (empty.mapping.len(), text(&empty, empty.mapping[0].filename)),
        (1, "/usr/bin/orders")
    );
}

#[test]
fn what_is_missing_is_said() {
    let pprof = decoded(&fixture::profile());
    let [known, unnamed, cut] = [0, 1, 2].map(|at| &pprof.location[pprof.sample[2].location_id[at] as usize - 1]);
    assert_eq!(function_name(&pprof, &known.line[0]), "json_new");
    assert!(unnamed.line.is_empty() && unnamed.mapping_id > 0);
    assert_eq!(function_name(&pprof, &cut.line[0]), "[truncated]");
}

#[test]
fn hostile_addresses_stay_within_their_mappings() {
    let mut profile = fixture::profile();
    let at = |address, offset, module: &str| Frame {
        address,
        offset,
        module: module.to_owned(),
        ..Frame::default()
    };
    let frames = vec![
        at(0, 0, "/a"),
        at(5, 9, "/a"),
        at(u64::MAX, 1, "/b"),
        at(0x40_1234, 0x40_1234, "/usr/bin/orders"),
        at(0x7fff, 0x10, ""),
        at(0x7f00_0000_1234, 0x1234, "[vdso]"),
    ];
    profile.sites[0].stack = Stack {
        frames,
        ..Stack::default()
    };
    profile.sites[1].stack = Stack {
        whole: true,
        ..Stack::default()
    };
    assert_sound(&decoded(&profile));
    profile.sites[0].live_bytes = u64::MAX;
    PprofReport
        .write(&profile, &View::default(), &mut Vec::new())
        .expect_err("too large");
}

type Value = fn(&Site) -> u64;

/// Bytes by the function in which they were allocated, as `go tool pprof -top` counts.
fn by_innermost_function(profile: &Profile, value: Value) -> BTreeMap<String, u64> {
    let mut flat = BTreeMap::new();
    for site in &profile.sites {
        let name = site
            .stack
            .frames
            .first()
            .and_then(|frame| frame.function.clone())
            .expect("a name");
        *flat.entry(name).or_default() += value(site);
    }
    flat.retain(|_, value| *value > 0);
    flat
}

fn go_top(file: &std::path::Path, index: &str) -> Option<BTreeMap<String, u64>> {
    let index = format!("-sample_index={index}");
    let empty = file.parent().expect("a folder");
    let output = Command::new("go")
        .args([
            "tool",
            "pprof",
            "-top",
            "-nodecount=100",
            "-nodefraction=0",
            "-unit=B",
            &index,
        ])
        .arg(file)
        .env("HOME", empty)
        .env("PPROF_BINARY_PATH", empty)
        .output();
    let Ok(output) = output else {
        println!("skipped: `go` cannot be run (Debian: golang-go)");
        return None;
    };
    let (text, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}");
    let rows = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("flat "))
        .skip(1);
    let rows = rows.filter_map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        let flat = words.first()?.trim_end_matches('B').parse().expect("a number");
        // With an inline mark behind the name.
        Some((words.get(5..)?.join(" ").trim_end_matches(" (inline)").to_owned(), flat))
    });
    Some(rows.filter(|(_, flat)| *flat > 0).collect())
}

#[test]
fn go_tool_pprof_shows_the_same_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("profile.pb.gz");
    std::fs::write(&file, written(&fixture::profile())).expect("writes");
    let values: [(&str, Value); 4] = [
        ("inuse_space", |site| site.live_bytes),
        ("inuse_objects", |site| site.live_count),
        ("alloc_space", |site| site.allocated_bytes),
        ("alloc_objects", |site| site.allocated_count),
    ];
    for (index, value) in values {
        let Some(top) = go_top(&file, index) else { return };
        assert_eq!(top, by_innermost_function(&fixture::profile(), value), "{index}");
    }
}

#[test]
fn a_difference_has_what_changed_and_nothing_else() {
    let before = fixture::profile();
    let mut after = before.clone();
    after.window.duration_ns += 5_000_000_000;
    after.window.end_unix_ns += 5_000_000_000;
    after.sites[0].live_bytes += 100;
    after.sites[0].allocated_count += 1;
    after.sites[1].live_count -= 1;
    let gone = after.sites.pop().expect("a site");
    let how = Written {
        first: First::Allocated,
        since: Some(&before),
        note: Some("a remark"),
    };
    let pprof = sheet(&after, &how).expect("fits").encode().expect("fits");
    assert_sound(&pprof);
    let values: Vec<_> = pprof.sample.iter().map(|sample| sample.value.clone()).collect();
    let gone = [
        gone.allocated_count,
        gone.allocated_bytes,
        gone.live_count,
        gone.live_bytes,
    ];
    assert_eq!(
        values,
        [
            vec![1, 0, 0, 100],
            vec![0, 0, -1, 0],
            gone.map(|value| -(value as i64)).to_vec()
        ]
    );
    assert_eq!(text(&pprof, pprof.default_sample_type), "alloc_space");
    assert_eq!(pprof.duration_nanos, 5_000_000_000);
    assert_eq!(pprof.time_nanos, before.window.end_unix_ns as i64);
    let comments: Vec<_> = pprof.comment.iter().map(|comment| text(&pprof, *comment)).collect();
    assert!(comments.contains(&"a remark"), "{comments:?}");
    let same = sheet(&before, &how).expect("fits");
    assert!(same.rows.is_empty());
}

#[test]
fn the_old_text_form_is_as_documented() {
    let mut out = Vec::new();
    write_text(&fixture::profile(), Some("gc=1 was not done"), &mut out).expect("writes");
    insta::assert_snapshot!(String::from_utf8(out).expect("text"));
}
