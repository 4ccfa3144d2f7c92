//! Tables against gimli, on real files: at every border of rows, and one byte on either side.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use leaktrace_common::{
    events::StackEnd,
    unwind::{Memory, Registers, Rule, step},
};

use super::{
    oracle::{Expected, Stretch, each_stretch},
    process::vdso,
    word_at,
};
use crate::unwind::{PackedModule, RuleInterner, UnwindError, build_all, table};

/// What a comparison has covered.
#[derive(Debug, Default)]
struct Covered {
    files: usize,
    functions: usize,
    rows: usize,
    lookups: usize,
    /// Lookups at which gimli knows the caller and the tables do not.
    given_up: usize,
    /// Lookups at which gimli knows the caller's frame pointer and the tables do not.
    frame_pointers_given_up: usize,
    /// Lookups that neither can unwind.
    beyond: usize,
    /// Lookups in what gimli refuses.
    broken: usize,
    /// Time in which the tables were built.
    building: Duration,
    /// Longest of these times, and the number of rows.
    slowest: (Duration, usize),
}

impl Covered {
    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.functions += other.functions;
        self.rows += other.rows;
        self.lookups += other.lookups;
        self.given_up += other.given_up;
        self.frame_pointers_given_up += other.frame_pointers_given_up;
        self.beyond += other.beyond;
        self.broken += other.broken;
        self.building += other.building;
        self.slowest = self.slowest.max(other.slowest);
    }
}

struct MadeUp;
impl Memory for MadeUp {
    fn word(&mut self, address: u64) -> Option<u64> {
        Some(word_at(address))
    }
}

/// Compares one address.
fn compare(stretch: &Stretch<'_>, address: u64, rule: &Rule, covered: &mut Covered) -> Result<(), String> {
    let before = Registers {
        instruction_pointer: address,
        stack_pointer: 0x7E00_0000_0000,
        frame_pointer: 0x7E80_0000_0000,
    };
    let mut after = before;
    let done = step(&mut after, rule, address, &mut MadeUp);
    covered.lookups += 1;
    let expected = stretch.expected(&before);
    let agree = match (expected, done) {
        (Expected::Gap, Err(StackEnd::Gap)) | (Expected::End, Err(StackEnd::Whole)) => true,
        (Expected::Beyond, Err(StackEnd::Unsupported)) => {
            covered.beyond += 1;
            true
        }
        (Expected::Broken, _) => {
            covered.broken += 1;
            true
        }
        (Expected::Caller { .. }, Err(StackEnd::Unsupported)) => {
            covered.given_up += 1;
            true
        }
        (Expected::Caller { stack_pointer, .. }, Err(StackEnd::Fault)) => stack_pointer <= before.stack_pointer,
        (
            Expected::Caller {
                instruction_pointer,
                stack_pointer,
                frame_pointer,
            },
            Ok(()),
        ) => {
            let lost = after.frame_pointer == 0;
            covered.frame_pointers_given_up += usize::from(lost && frame_pointer.is_some());
            after.instruction_pointer == instruction_pointer
                && after.stack_pointer == stack_pointer
                && (lost || frame_pointer == Some(after.frame_pointer))
        }
        _ => false,
    };
    if agree {
        return Ok(());
    }
    Err(format!(
        "{address:#x}: expected {expected:x?}, {rule:?} gave {done:?} {after:x?}"
    ))
}

fn compare_file(path: &Path) -> Result<Covered, String> {
    compare_image(&fs::read(path).map_err(|error| error.to_string())?)
}

/// Compares all addresses of an image at which either side changes.
fn compare_image(data: &[u8]) -> Result<Covered, String> {
    let start = Instant::now();
    let table = match table(data) {
        Ok(table) => table,
        Err(UnwindError::NotElf | UnwindError::OtherMachine) => return Ok(Covered::default()),
        Err(error) => {
            let functions = each_stretch(data, |_| ());
            return if functions.is_some() && error != UnwindError::NoCode {
                Err(format!("{functions:?} functions, but {error}"))
            } else {
                Ok(Covered::default())
            };
        }
    };
    let mut rules = RuleInterner::default();
    let packed = rules.pack(&table);
    let mut covered = Covered {
        files: 1,
        rows: table.rows.len(),
        building: start.elapsed(),
        slowest: (start.elapsed(), table.rows.len()),
        ..Covered::default()
    };
    if table.skipped != 0 {
        return Err(format!("{} entries skipped", table.skipped));
    }
    let mut borders: Vec<u64> = table.iter().map(|(address, _)| address).collect();
    borders.dedup();
    if borders.len() != table.rows.len() || !borders.is_sorted() {
        return Err("rows out of order".to_owned());
    }
    let mut wrong = None;
    let functions = each_stretch(data, |stretch| {
        let wanted = probes(stretch, &mut borders_from(&borders, stretch));
        for address in wanted {
            if let Err(why) = compare(stretch, address, packed.lookup(rules.rules(), address), &mut covered) {
                wrong.get_or_insert(why);
            }
        }
    });
    covered.functions = functions.unwrap_or(0);
    check_form(&packed)?;
    wrong.map_or(Ok(covered), Err)
}

/// The table's borders in a stretch, and next to it.
fn borders_from<'a>(borders: &'a [u64], stretch: &Stretch<'_>) -> impl Iterator<Item = u64> + 'a {
    let (start, end) = (stretch.start, stretch.end);
    let first = borders.partition_point(|border| *border < start);
    borders
        .get(first..)
        .unwrap_or_default()
        .iter()
        .copied()
        .take_while(move |border| *border <= end)
}

fn probes(stretch: &Stretch<'_>, borders: &mut dyn Iterator<Item = u64>) -> Vec<u64> {
    let mut all = vec![stretch.start, stretch.start + 1, stretch.end - 1];
    for border in borders {
        all.extend([border - 1, border, border + 1]);
    }
    all.retain(|address| (stretch.start..stretch.end).contains(address));
    all.sort_unstable();
    all.dedup();
    all
}

/// What the kernel side relies on.
pub fn check_form(packed: &PackedModule) -> Result<(), String> {
    let ends = packed.pages.last().copied();
    if ends != Some(packed.rows.len() as u32) {
        return Err(format!(
            "{} rows, but the last page ends at {ends:?}",
            packed.rows.len()
        ));
    }
    for page in packed.pages.windows(2) {
        let rows = &packed.rows[page[0] as usize..page[1] as usize];
        if rows.first().is_none_or(|row| row & 0xFFFF != 0) || !rows.is_sorted_by_key(|row| row & 0xFFFF) {
            return Err(format!("rows of a page out of order: {rows:x?}"));
        }
    }
    Ok(())
}

/// Compares files on all processors; panics with all that is wrong.
fn compare_all(paths: &[PathBuf]) -> Covered {
    let next = Mutex::new(paths.iter());
    let results = Mutex::new((Covered::default(), Vec::new()));
    let work = || {
        while let Some(path) = { next.lock().expect("no panic").next() } {
            let result = compare_file(path);
            let mut results = results.lock().expect("no panic");
            match result {
                Ok(covered) => results.0.add(&covered),
                Err(why) => results.1.push(format!("{}: {why}", path.display())),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (covered, wrong) = results.into_inner().expect("no panic");
    println!("{covered:#?}");
    assert!(wrong.is_empty(), "{} files differ:\n{}", wrong.len(), wrong.join("\n"));
    covered
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path).is_ok_and(|mut file| std::io::Read::read_exact(&mut file, &mut magic).is_ok())
        && magic == *b"\x7fELF"
}

/// Files of every kind that a Linux system has; those that are here.
fn sample() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = ["/bin/ls", "/bin/bash", "/usr/bin/perl", "/usr/bin/gcc", "/usr/bin/git"]
        .map(PathBuf::from)
        .into();
    for directory in ["/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib"] {
        for library in [
            "libc.so.6",
            "ld-linux-x86-64.so.2",
            "libstdc++.so.6",
            "libm.so.6",
            "libcrypto.so.3",
        ] {
            paths.push(Path::new(directory).join(library));
        }
    }
    let mut seen = HashSet::new();
    paths.retain(|path| path.canonicalize().is_ok_and(|real| seen.insert(real)));
    paths
}

#[test]
fn tables_equal_gimli_on_a_sample() {
    let covered = compare_all(&sample());
    assert!(covered.files >= 4 && covered.rows > 50_000, "{covered:?}");
    assert_eq!(
        (covered.given_up, covered.frame_pointers_given_up),
        (0, 0),
        "{covered:?}"
    );
}

#[test]
fn tables_built_together_are_those_built_alone() {
    let files: Vec<Vec<u8>> = sample().iter().map(|path| fs::read(path).expect("a file")).collect();
    let mut images: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    images.insert(1, b"no ELF file");
    let together = build_all(&images, |image| table(*image));
    let alone: Vec<_> = images.iter().map(|image| table(*image)).collect();
    assert!(together == alone && together[1] == Err(UnwindError::NotElf) && together[2].is_ok());
    assert!(build_all::<&[u8]>(&[], |image| table(*image)).is_empty());
}

/// The test's own file: Rust, with a `.debug_frame` or without.
#[test]
fn tables_equal_gimli_on_this_program() {
    let covered = compare_all(&[env::current_exe().expect("a path")]);
    assert!(covered.functions > 1000, "{covered:?}");
}

#[test]
fn tables_equal_gimli_on_the_vdso() {
    let covered = compare_image(&vdso()).expect("agreement");
    assert!(covered.functions > 3, "{covered:?}");
}

#[test]
fn tables_equal_gimli_on_every_file() {
    if env::var_os("LEAKTRACE_EXHAUSTIVE").is_none() {
        return;
    }
    let mut paths = Vec::new();
    let mut directories = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/lib")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(path),
                Ok(kind) if kind.is_file() && is_elf(&path) => paths.push(path),
                _ => {}
            }
        }
    }
    let start = Instant::now();
    let covered = compare_all(&paths);
    println!("{:?}", start.elapsed());
    assert!(covered.files > 100);
}
