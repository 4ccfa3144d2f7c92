//! An inspection for people: aligned, and no wider than the terminal where a path can be shortened. Pure.

use super::findings::{AllocatorFound, CodeFile, GoSeen, Inspection, OtherCode, ProbePlanned, Totals, Unwinding};
use crate::{
    report::wrap::wrapped,
    symbols::source::NameSource,
    units::{count, duration, number, size},
};

/// Columns where nothing is known of the terminal.
const USUAL_WIDTH: usize = 100;
/// Longest instruction shown.
const MOST_INSTRUCTION: usize = 26;
/// Digits of a build id that tell it from others at a glance.
const SHORT_BUILD_ID: usize = 8;

/// The text; `width` is the terminal's.
pub fn text(found: &Inspection, width: Option<usize>) -> String {
    let width = width.unwrap_or(USUAL_WIDTH);
    let mut lines = process(found, width);
    lines.extend(probes(&found.probes, &found.totals, width));
    lines.extend(found.go.iter().flat_map(|go| golang(go, width)));
    lines.extend(code(found, width));
    lines.extend(totals(&found.totals, width));
    if !found.notes.is_empty() {
        lines.extend([String::new(), "Not seen".to_owned()]);
        lines.extend(found.notes.iter().flat_map(|note| bullet(note, width)));
    }
    lines.push(String::new());
    lines.push("Nothing was attached, and nothing of the process was changed.".to_owned());
    lines.join("\n") + "\n"
}

fn process(found: &Inspection, width: usize) -> Vec<String> {
    let process = &found.process;
    let threads = process
        .threads
        .map(|threads| format!(", {}", count(threads.into(), "thread")));
    let build_id = process.build_id.as_deref().unwrap_or("none");
    let allocators: Vec<String> = found.allocators.iter().map(allocator).collect();
    let allocators = if allocators.is_empty() {
        "none found".to_owned()
    } else {
        allocators.join(", ")
    };
    let trace = match &found.refused {
        None => "would be attached".to_owned(),
        Some(why) => format!("would be refused: {why}"),
    };
    [
        ("process", format!("{}{}", process.pid, threads.unwrap_or_default())),
        ("command", process.command.clone()),
        ("program", process.exe.clone()),
        ("language", process.language.to_owned()),
        ("build id", build_id.to_owned()),
        ("allocators", allocators),
        ("trace", trace),
    ]
    .into_iter()
    .flat_map(|(name, value)| named(name, &value, width))
    .collect()
}

/// `program    /usr/bin/orders`, wrapped below itself.
fn named(name: &str, value: &str, width: usize) -> Vec<String> {
    let lines = wrapped(&one_line(value), width.saturating_sub(11), "");
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names
        .zip(lines)
        .map(|(name, line)| format!("{name:<10} {line}"))
        .collect()
}

/// The Go runtime: what it is, where things are, what works.
fn golang(go: &GoSeen, width: usize) -> Vec<String> {
    let words = [
        go.version.clone(),
        go.build_mode.clone(),
        go.cgo.then(|| "with C".to_owned()),
        go.stripped.then(|| "without symbols".to_owned()),
    ];
    let mut program: Vec<String> = words.into_iter().flatten().collect();
    program.extend(go.experiments.iter().map(|name| format!("experiment {name}")));
    let layout = match (go.layout_from, &go.layout_of) {
        (Some("debug_info"), _) => "from its own debug information".to_owned(),
        (Some("version"), _) => "that of its version".to_owned(),
        (Some(_), Some(version)) => format!("that of {version}, the nearest version that is known"),
        _ => "not known".to_owned(),
    };
    let mut lines = vec![String::new(), "Go".to_owned()];
    lines.extend(named("program", &program.join(", "), width));
    lines.extend(named("layout", &layout, width));
    let rows = go.places.iter().map(|(name, at)| {
        let at = at.as_deref().unwrap_or("not found");
        [(*name).to_owned(), at.to_owned()]
    });
    lines.extend(rows.map(|[name, at]| format!("{name:<22}{at}")));
    let parts = go.parts.iter().map(|part| match &part.why {
        None => format!("{}: yes", part.name),
        Some(why) => format!("{}: no: {why}", part.name),
    });
    lines.extend(parts.flat_map(|part| bullet(&part, width)));
    lines
}

fn allocator(found: &AllocatorFound) -> String {
    let traced = if found.traced { "traced" } else { "not traced" };
    format!("{} ({traced})", found.name)
}

fn probes(probes: &[ProbePlanned], totals: &Totals, width: usize) -> Vec<String> {
    if probes.is_empty() {
        return vec![String::new(), "Probes: none".to_owned()];
    }
    let title = format!(
        "Probes: {}, planned in {}",
        number(probes.len() as u64),
        duration(totals.plan_ns)
    );
    let mut rows = vec![
        [
            "function",
            "probed at",
            "by the kernel",
            "instruction",
            "offset",
            "file",
        ]
        .map(str::to_owned),
    ];
    rows.extend(probes.iter().map(|probe| {
        [
            probe.function.clone(),
            if probe.returns { "entry, return" } else { "entry" }.to_owned(),
            cost(probe).to_owned(),
            shortened(probe.instruction.as_deref().unwrap_or("not readable"), MOST_INSTRUCTION),
            format!("{:#x}", probe.offset),
            file_name(&probe.module).to_owned(),
        ]
    }));
    let mut lines = vec![String::new(), title];
    lines.extend(table(&rows, &[4], width));
    lines
}

/// What the kernel does with the instruction. Long `nop`s it emulates only from Linux 6.16.
fn cost(probe: &ProbePlanned) -> &'static str {
    let instruction = probe.instruction.as_deref().unwrap_or_default();
    let is_long_nop = instruction != "nop" && (instruction.contains("nop") || instruction.contains("xchg"));
    match (probe.emulated, is_long_nop) {
        (true, true) => "emulated (6.16)",
        (true, false) => "emulated",
        (false, _) => "single-stepped",
    }
}

fn code(found: &Inspection, width: usize) -> Vec<String> {
    let mut rows = vec![["stacks by", "rows", "KiB", "built in", "names from", "build id", "file"].map(str::to_owned)];
    rows.extend(found.files.iter().map(file));
    rows.extend(found.other_code.iter().map(other));
    let mut lines = vec![String::new(), "Code".to_owned()];
    lines.extend(table(&rows, &[1, 2, 3], width));
    let separate = found.files.iter().filter_map(|file| match &file.names {
        Some(NameSource::DebugFile(path)) => Some(format!("names of {} from {path}", file_name(&file.path))),
        _ => None,
    });
    let guessed = found.files.iter().filter_map(|file| match &file.unwinding {
        Unwinding::Guess { why } => Some(format!("stacks through {}: {why}", file_name(&file.path))),
        Unwinding::FramePointers | Unwinding::Tables { skipped: 0, .. } => None,
        Unwinding::Tables { skipped, .. } => {
            let entries = if *skipped == 1 {
                "1 broken entry"
            } else {
                &format!("{} broken entries", number(*skipped))
            };
            Some(format!(
                "{}: {entries} of its unwinding information left out",
                file_name(&file.path)
            ))
        }
    });
    lines.extend(separate.chain(guessed).flat_map(|line| bullet(&line, width)));
    lines
}

fn file(file: &CodeFile) -> [String; 7] {
    let [by, rows, kib, built] = unwinding(&file.unwinding);
    let names = match &file.names {
        Some(NameSource::GoTable) => "Go's table",
        Some(NameSource::DebugInfo) => "debug info",
        Some(NameSource::DebugFile(_)) => "debug file",
        Some(NameSource::Symtab) => ".symtab",
        Some(NameSource::MiniDebugInfo) => ".gnu_debugdata",
        Some(NameSource::Dynsym) => ".dynsym",
        Some(NameSource::Nothing) => "none",
        None => "not seen",
    };
    let id = file.build_id.as_deref().unwrap_or("none");
    let id = id.chars().take(SHORT_BUILD_ID).collect();
    let deleted = if file.deleted { " (deleted)" } else { "" };
    [
        by,
        rows,
        kib,
        built,
        names.to_owned(),
        id,
        format!("{}{deleted}", file.path),
    ]
}

fn other(code: &OtherCode) -> [String; 7] {
    let [by, rows, kib, built] = unwinding(&code.unwinding);
    let mappings = match code.mappings {
        1 => String::new(),
        mappings => format!(" in {} mappings", number(mappings)),
    };
    let what = format!("{}, {}{mappings}", code.name, size(code.bytes));
    [by, rows, kib, built, "-".to_owned(), "-".to_owned(), what]
}

/// How, rows, KiB and time.
fn unwinding(unwinding: &Unwinding) -> [String; 4] {
    match unwinding {
        Unwinding::Tables {
            rows,
            bytes,
            build_ns,
            frame_pointers,
            ..
        } => [
            if *frame_pointers { "tables, fp" } else { "tables" }.to_owned(),
            number(*rows),
            number(bytes.div_ceil(1024)),
            duration(*build_ns),
        ],
        Unwinding::FramePointers => ["frame ptrs", "-", "-", "-"].map(str::to_owned),
        Unwinding::Guess { .. } => ["guess", "-", "-", "-"].map(str::to_owned),
    }
}

fn totals(totals: &Totals, width: usize) -> Vec<String> {
    let sentence = format!(
        "Unwinding tables: {} and {}, {} of kernel memory, built in {} on {}; memory map read in {}. By fp: \
         frame pointers, which Go code keeps. By guess: frame pointers where nothing else is there, so that frames of \
         code without them may be missing.",
        count(totals.rows, "row"),
        count(totals.rules, "distinct rule"),
        size(totals.table_bytes),
        duration(totals.build_ns),
        count(totals.threads, "thread"),
        duration(totals.map_ns),
    );
    let mut lines = vec![String::new()];
    lines.extend(wrapped(&sentence, width, ""));
    lines
}

fn bullet(text: &str, width: usize) -> Vec<String> {
    wrapped(&format!("- {}", one_line(text)), width.saturating_sub(2), "  ")
        .iter()
        .map(|line| format!("  {line}"))
        .collect()
}

/// Columns aligned, those in `right` to the right; the last one loses its beginning where the line is too wide.
fn table<const N: usize>(rows: &[[String; N]], right: &[usize], width: usize) -> Vec<String> {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.clone().map(|cell| one_line(&cell))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let mut line = "  ".to_owned();
        for (at, (cell, widest)) in row.iter().zip(widths).enumerate() {
            if at + 1 == N {
                let room = width.saturating_sub(line.chars().count());
                line.push_str(&shortened_start(cell, room));
            } else if right.contains(&at) {
                line = format!("{line}{cell:>widest$}  ");
            } else {
                line = format!("{line}{cell:<widest$}  ");
            }
        }
        line
    };
    rows.iter().map(line).collect()
}

/// What the target names may hold anything.
fn one_line(text: &str) -> String {
    crate::report::one_line(text).into_owned()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The end is kept: of a path, that is the file. Never shorter than that tells a file.
fn shortened_start(text: &str, room: usize) -> String {
    let (length, room) = (text.chars().count(), room.max(20));
    if length <= room {
        return text.to_owned();
    }
    ['…'].into_iter().chain(text.chars().skip(length + 1 - room)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inspect::{code::code, findings::ProcessSeen, probing::probing},
        target::AddressSpace,
    };

    /// Ourselves, as found.
    fn found() -> Inspection {
        let space = AddressSpace::read(std::process::id()).expect("our own memory map");
        let (planned, code) = (probing(&space), code(&space));
        Inspection {
            go: None,
            schema: super::super::SCHEMA,
            process: ProcessSeen {
                pid: 1,
                command: "evil\x1b[31m\nname".to_owned(),
                exe: "/tests".to_owned(),
                build_id: None,
                language: "rust",
                threads: Some(2),
            },
            refused: planned.refused,
            allocators: planned.allocators,
            probes: planned.probes,
            notes: planned.notes,
            files: code.files,
            other_code: code.other,
            totals: code.totals,
        }
    }

    #[test]
    fn our_own_process_is_told_and_fits() {
        let found = found();
        let malloc = found
            .probes
            .iter()
            .find(|probe| probe.function == "malloc")
            .expect("malloc");
        assert!(malloc.returns && malloc.instruction.is_some(), "{malloc:?}");
        let free = found
            .probes
            .iter()
            .find(|probe| probe.function == "free")
            .expect("free");
        assert!(!free.returns);
        let rows: u64 = found.files.iter().map(|file| rows_of(&file.unwinding)).sum();
        let other: u64 = found.other_code.iter().map(|code| rows_of(&code.unwinding)).sum();
        assert!(rows > 1000 && rows + other == found.totals.rows, "{:?}", found.totals);
        let text = text(&found, Some(100));
        assert!(
            text.contains("glibc (traced)") && text.contains("1, 2 threads"),
            "{text}"
        );
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    }

    fn rows_of(unwinding: &Unwinding) -> u64 {
        match unwinding {
            Unwinding::Tables { rows, .. } => *rows,
            Unwinding::FramePointers | Unwinding::Guess { .. } => 0,
        }
    }

    #[test]
    fn the_json_is_the_contract() {
        let found = found();
        let json = serde_json::to_value(&found).expect("JSON");
        assert_eq!(json["schema"], "leaktrace.inspect/1");
        assert_eq!(json["files"][0]["unwinding"]["by"], "tables");
        assert!(json["totals"]["rules"].as_u64() > Some(10));
        let sources = [
            "go_table",
            "debug_info",
            "debug_file",
            "mini_debug_info",
            "symtab",
            "dynsym",
            "nothing",
        ];
        let from = json["files"][0]["names"]["from"].as_str().expect("a source");
        assert!(sources.contains(&from), "{from}");
    }

    #[test]
    fn a_refusal_is_said() {
        let refused = Inspection {
            refused: Some("no allocator to trace found".to_owned()),
            probes: Vec::new(),
            ..found()
        };
        let text = text(&refused, None);
        assert!(
            text.contains("would be refused: no allocator") && text.contains("Probes: none"),
            "{text}"
        );
    }
}
