//! A profile made by hand, with one of everything that a report must show, for tests.

use super::{
    Accounting, CutStacks, Ending, Frame, Profile, Reach, SCHEMA, Site, Stack, TargetInfo, TimelinePoint, Tool,
    Verdict, Window,
};

const EXE: &str = "/usr/bin/orders";
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libjson.so.5";
const LONG: &str = "std::vector<orders::Item, std::allocator<orders::Item> >::_M_realloc_insert<orders::Item const&>\
                    (__gnu_cxx::__normal_iterator<orders::Item*, std::vector<orders::Item> >, orders::Item const&)";

const SECOND: u64 = 1_000_000_000;

/// Half a minute of a server that leaks in one place and has a cache in another.
pub(crate) fn profile() -> Profile {
    Profile {
        schema: SCHEMA.to_owned(),
        tool: Tool {
            name: "leaktrace".to_owned(),
            version: "0.1.0".to_owned(),
        },
        target: target(),
        window: Window {
            start_unix_ns: 1_700_000_000 * SECOND,
            end_unix_ns: 1_700_000_030 * SECOND,
            duration_ns: 30 * SECOND,
        },
        accounting: accounting(),
        sites: vec![leaking(), cache(), stripped(), churning()],
        timeline: (0..=10).map(timeline_point).collect(),
        go: None,
    }
}

/// The same process, nothing outstanding.
pub(crate) fn empty() -> Profile {
    Profile {
        accounting: Accounting {
            sample_bytes: 1,
            complete: true,
            stacks: 3,
            whole_stacks: 3,
            ..Accounting::default()
        },
        sites: Vec::new(),
        timeline: Vec::new(),
        go: None,
        ..profile()
    }
}

fn target() -> TargetInfo {
    TargetInfo {
        pids: vec![4711],
        command: "/usr/bin/orders --port 8080".to_owned(),
        exe: EXE.to_owned(),
        build_id: Some("1f2e3d4c5b6a79880f1e2d3c4b5a69788f7e6d5c".to_owned()),
        language: "c++".to_owned(),
        allocators: vec!["glibc".to_owned()],
        host: "web1".to_owned(),
        kernel: "6.18.5".to_owned(),
        exit: None,
    }
}

fn accounting() -> Accounting {
    Accounting {
        stacks: 3,
        whole_stacks: 2,
        whole_allocations: Some(1_261_001),
        cut_stacks: [(
            "no_unwind_info".to_owned(),
            CutStacks {
                stacks: 1,
                allocations: 1209,
            },
        )]
        .into(),
        allocations: 1_262_210,
        frees: 1_214_000,
        allocated_bytes: 1_013_007_376,
        freed_bytes: 1_000_000_000,
        live_bytes: 13_007_376,
        live_count: 48_210,
        sample_bytes: 1,
        lost: [("table_full".to_owned(), 1204), ("table_full_bytes".to_owned(), 98_304)].into(),
        notes: [("unmatched_frees".to_owned(), 12), ("failed_calls".to_owned(), 1)].into(),
        complete: false,
    }
}

fn timeline_point(index: u64) -> TimelinePoint {
    TimelinePoint {
        at_ns: index * 3 * SECOND,
        live_bytes: 351_376 + index * 1_265_600,
        live_count: 1210 + index * 4700,
        resident_bytes: 52_428_800 + index * 1_265_600,
        go: None,
    }
}

fn leaking() -> Site {
    Site {
        id: "00f1e2d3c4b5a697".to_owned(),
        live_bytes: 12_656_000,
        live_count: 47_000,
        allocated_bytes: 12_656_000,
        allocated_count: 47_000,
        oldest_age_ns: 29 * SECOND + SECOND / 2,
        growth_bytes_per_s: 421_866.666,
        estimate_error: None,
        verdict: Verdict::Growing,
        why: "412 KiB/s over 30.0 s, and 51 % of the live bytes are from the older half of that time".to_owned(),
        reach: Reach::Unknown,
        held_by: None,
        holders: Vec::new(),
        heap: super::Heap::Native,
        go: None,
        stack: Stack {
            whole: true,
            end: Ending::Whole,
            frames: vec![
                inlined(frame(
                    0x1a40,
                    "orders::Item::Item(orders::Item const&)",
                    Some(("src/item.cc", 41)),
                )),
                inlined(frame(0x1a40, LONG, Some(("/usr/include/c++/12/bits/vector.tcc", 459)))),
                frame(
                    0x1a40,
                    "orders::parse(char const*; unsigned long)",
                    Some(("src/parse.cc", 212)),
                ),
                frame(
                    0x2210,
                    "orders::handle(orders::Request const&)",
                    Some(("src/server.cc", 88)),
                ),
                frame(0x1109, "main", Some(("src/main.cc", 17))),
                foreign(
                    "/usr/lib/x86_64-linux-gnu/libc.so.6",
                    0x7f10_0000_0000,
                    0x2724a,
                    Some("__libc_start_call_main"),
                ),
            ],
        },
    }
}

fn cache() -> Site {
    Site {
        id: "1111222233334444".to_owned(),
        live_bytes: 262_144,
        live_count: 1,
        allocated_bytes: 262_144,
        allocated_count: 1,
        growth_bytes_per_s: 0.0,
        estimate_error: Some(0.12),
        verdict: Verdict::Stable,
        why: "no growth over 30.0 s, at 256 KiB".to_owned(),
        reach: Reach::Reachable,
        held_by: Some("global orders::cache".to_owned()),
        stack: Stack {
            whole: true,
            end: Ending::Whole,
            frames: vec![
                frame(0x3000, "orders::Cache::fill()", None),
                frame(0x1120, "main", None),
            ],
        },
        ..leaking()
    }
}

fn stripped() -> Site {
    Site {
        id: "5555666677778888".to_owned(),
        live_bytes: 89_232,
        live_count: 1209,
        allocated_bytes: 89_232,
        allocated_count: 1209,
        growth_bytes_per_s: -16.0,
        verdict: Verdict::Unknown,
        why: "live bytes vary too much over 30.0 s to say whether they grow".to_owned(),
        stack: Stack {
            whole: false,
            end: Ending::NoUnwindInfo,
            frames: vec![
                foreign(LIBRARY, 0x7f20_0000_0000, 0x4f10, Some("json_new")),
                foreign(LIBRARY, 0x7f20_0000_0000, 0x8a2c, None),
            ],
        },
        ..leaking()
    }
}

fn churning() -> Site {
    Site {
        id: "9999aaaabbbbcccc".to_owned(),
        live_bytes: 0,
        live_count: 0,
        allocated_bytes: 1_000_000_000,
        allocated_count: 1_214_000,
        oldest_age_ns: 0,
        growth_bytes_per_s: 0.0,
        verdict: Verdict::Churn,
        why: "all 1,214,000 blocks allocated were freed again".to_owned(),
        stack: Stack {
            whole: true,
            end: Ending::Whole,
            frames: vec![
                frame(0x2400, "orders::reply(int)", Some(("src/server.cc", 120))),
                frame(0x1109, "main", Some(("src/main.cc", 17))),
            ],
        },
        ..leaking()
    }
}

fn frame(offset: u64, function: &str, source: Option<(&str, u32)>) -> Frame {
    Frame {
        address: 0x5555_5555_4000 + offset,
        module: EXE.to_owned(),
        build_id: target().build_id,
        function: Some(function.to_owned()),
        offset,
        file: source.map(|(file, _)| file.to_owned()),
        line: source.map(|(_, line)| line),
        inlined: false,
    }
}

fn inlined(frame: Frame) -> Frame {
    Frame { inlined: true, ..frame }
}

fn foreign(module: &str, base: u64, offset: u64, function: Option<&str>) -> Frame {
    Frame {
        address: base + offset,
        module: module.to_owned(),
        build_id: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        function: function.map(str::to_owned),
        offset,
        ..Frame::default()
    }
}
