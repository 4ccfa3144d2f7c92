//! The invariants of `ARCHITECTURE.md`, checked against the sources. Tests only.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A word that may stand in the code of some rooms only.
struct Rule {
    word: &'static str,
    /// Beginnings of paths below `leaktrace/src`.
    rooms: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        word: "aya",
        rooms: &["kernel/"],
    },
    Rule {
        word: "aya_obj",
        rooms: &["kernel/"],
    },
    Rule {
        word: "aya_log",
        rooms: &["kernel/"],
    },
    Rule {
        word: "blazesym",
        rooms: &["symbols/"],
    },
    // The thread that follows a command speaks to the session through tokio's channel.
    Rule {
        word: "tokio",
        rooms: &["session/", "serve/", "target/launch"],
    },
    Rule {
        word: "hyper",
        rooms: &["serve/"],
    },
    Rule {
        word: "hyper_util",
        rooms: &["serve/"],
    },
    Rule {
        word: "ptrace",
        rooms: &["target/launch"],
    },
    Rule {
        word: "clap",
        rooms: &["cli.rs", "generate.rs", "main.rs"],
    },
];

/// Rooms that work on what they are given, and what such a room must not name.
const PURE: &[&str] = &[
    "analysis/",
    "probes/",
    "profile.rs",
    "profile/",
    "unwind/",
    "units.rs",
    "settings/",
    "serve/gate.rs",
    "serve/index.rs",
    "serve/route.rs",
    "go/bytes.rs",
    "go/pclntab/",
    "go/reach/mark.rs",
    "go/reach/paths.rs",
];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "Instant::now",
    "SystemTime",
    "nix",
    "libc",
    "println!",
    "eprintln!",
];

/// Rooms, and the rooms above them in the picture, which they must not know.
const BELOW: &[(&str, &[&str])] = &[
    (
        "analysis/",
        &[
            "target", "probes", "kernel", "unwind", "session", "symbols", "report", "cli",
        ],
    ),
    (
        "report/",
        &["target", "probes", "kernel", "unwind", "session", "symbols", "serve"],
    ),
    (
        "serve/",
        &[
            "target", "probes", "kernel", "unwind", "session", "symbols", "go", "settings", "cli",
        ],
    ),
    (
        "profile",
        &[
            "target", "probes", "kernel", "unwind", "session", "symbols", "analysis", "report", "cli",
        ],
    ),
    (
        "target/",
        &[
            "go", "probes", "kernel", "unwind", "session", "symbols", "report", "cli",
        ],
    ),
    (
        "kernel/",
        &[
            "target", "probes", "unwind", "session", "symbols", "analysis", "profile", "report", "cli",
        ],
    ),
    (
        "unwind/",
        &[
            "target", "probes", "kernel", "session", "symbols", "analysis", "profile", "report", "cli",
        ],
    ),
    (
        "go/",
        &[
            "probes", "kernel", "unwind", "session", "symbols", "analysis", "report", "cli",
        ],
    ),
    (
        "symbols/",
        &["probes", "kernel", "unwind", "session", "analysis", "report", "cli"],
    ),
];

/// Path below `leaktrace/src`, and the code without comments and tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let named = files.iter().filter_map(|file| {
        let name = file.strip_prefix(&root).ok()?.to_str()?.to_owned();
        let text = fs::read_to_string(file).expect("a source of this crate");
        (!is_test(&name)).then(|| (name, code(&text)))
    });
    named.collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of this crate").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// Files that are compiled for tests only.
fn is_test(name: &str) -> bool {
    let words: Vec<&str> = name.trim_end_matches(".rs").split(['/', '_']).collect();
    words.contains(&"tests") || words.contains(&"test") || ["architecture.rs", "profile/fixture.rs"].contains(&name)
}

fn code(text: &str) -> String {
    let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = program.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether `word` stands in `text` as a whole word.
fn names(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|t| t.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|t| t.chars().next());
        !(before.is_some_and(part) || word.ends_with(part) && after.is_some_and(part))
    })
}

/// Rooms of this crate that `text` uses, as `crate::room` or in `use crate::{room, …}`.
fn uses(text: &str, room: &str) -> bool {
    let grouped = text
        .split("use crate::{")
        .skip(1)
        .filter_map(|rest| rest.split(';').next());
    names(text, &format!("crate::{room}"))
        || grouped
            .flat_map(str::lines)
            .flat_map(|line| line.split(", "))
            .any(|item| item.trim_start().split([':', ',', '}']).next() == Some(room))
}

#[test]
fn each_dependency_has_its_room() {
    for (name, code) in sources() {
        for Rule { word, rooms } in RULES {
            let allowed = rooms.iter().any(|room| name.starts_with(room));
            assert!(
                allowed || !names(&code, word),
                "{name} names {word}: only {rooms:?} may"
            );
        }
    }
}

#[test]
fn pure_rooms_do_nothing_but_compute() {
    for (name, code) in sources() {
        if PURE.iter().any(|room| name.starts_with(room)) {
            for word in IMPURE {
                assert!(!names(&code, word), "{name} names {word}: this room is pure");
            }
        }
    }
}

#[test]
fn rooms_do_not_know_those_above_them() {
    for (name, code) in sources() {
        for (room, above) in BELOW.iter().filter(|(room, _)| name.starts_with(room)) {
            for other in *above {
                assert!(!uses(&code, other), "{name} uses {other}: {room} stands below it");
            }
        }
    }
}

#[test]
fn what_both_sides_share_depends_on_neither() {
    let common = Path::new(env!("CARGO_MANIFEST_DIR")).join("../leaktrace-common");
    let manifest = fs::read_to_string(common.join("Cargo.toml")).expect("the manifest");
    assert!(!manifest.contains("aya-ebpf"), "leaktrace-common is for userspace too");
    let library = fs::read_to_string(common.join("src/lib.rs")).expect("the library");
    assert!(
        library.contains("#![no_std]"),
        "leaktrace-common is for the kernel side too"
    );
    let kernel_side = common.join("../leaktrace-ebpf/Cargo.toml");
    let kernel_side = fs::read_to_string(kernel_side).expect("the manifest");
    assert!(!kernel_side.contains("userspace"), "the kernel side has no aya");
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert!(names("use aya::Ebpf;", "aya") && !names("use aya_obj::Object;", "aya") && !names("maya", "aya"));
    assert!(uses(
        "use crate::{\n    kernel::{Tracer, Way},\n    target::Process,\n};",
        "target"
    ));
    assert!(uses("use crate::{settings::TraceSettings, target::Process};", "target"));
    assert!(uses("crate::target::elf::Image", "target") && !uses("use crate::targets::X;", "target"));
    assert_eq!(code("a // aya\n#[cfg(test)]\nmod tests { aya }"), "a ");
    assert!(is_test("symbols/tests.rs") && is_test("target/test_programs.rs") && !is_test("kernel/tables.rs"));
    let sources = sources();
    assert!(
        sources
            .iter()
            .any(|(name, code)| name == "kernel/object.rs" && names(code, "aya"))
    );
    assert!(
        sources
            .iter()
            .any(|(name, code)| name.starts_with("symbols/") && names(code, "blazesym"))
    );
}
