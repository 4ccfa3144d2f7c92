use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::target::test_programs::{compile, run};

const PLENTY: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_mins(1);
const SOURCE: &str = "__attribute__((noinline)) static int local(int x) { return x * 3; }\n\
    __attribute__((noinline)) int exported(int x) { return local(x) + 1; }\n\
    int main(int argc, char **argv) { return exported(argc); }";

/// A stripped program with `.gnu_debugdata`, made as distributions make it, and where `local` is.
fn packed(dir: &Path, packer: &[&str]) -> (PathBuf, u64) {
    let flags = ["cc", "-g", "-O1", "-rdynamic", "-Wl,--build-id"];
    let program = compile(dir, "program", &flags, SOURCE);
    let address = address_of(&program, "local");
    crate::target::test_programs::pack_symbols(&program, packer);
    (program, address)
}

fn address_of(program: &Path, name: &str) -> u64 {
    let nm = Command::new("nm").arg(program).output().unwrap();
    let text = String::from_utf8(nm.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
    u64::from_str_radix(line.split_whitespace().next().unwrap(), 16).unwrap()
}

fn copy_of(path: &Path) -> io::Result<Image> {
    let file = File::open(path)?;
    let build_id = ElfHeaders::read(&file)?.build_id(&file);
    copy(&file, build_id.as_deref(), &mut PLENTY.clone(), PATIENCE)
}

fn replace_section(program: &Path, contents: &[u8]) {
    let file = program.with_extension("section");
    std::fs::write(&file, contents).unwrap();
    run(Command::new("objcopy")
        .arg(format!("--update-section=.gnu_debugdata={}", file.display()))
        .arg(program));
}

fn section_of(program: &Path) -> Vec<u8> {
    let file = File::open(program).unwrap();
    let headers = ElfHeaders::read(&file).unwrap();
    ElfHeaders::contents(&file, headers.section(NAME).unwrap(), PLENTY).unwrap()
}

fn xz(dir: &Path, contents: &[u8], options: &[&str]) -> Vec<u8> {
    let path = dir.join("plain");
    std::fs::write(&path, contents).unwrap();
    Command::new("xz")
        .args(options)
        .arg("-c")
        .arg(&path)
        .output()
        .unwrap()
        .stdout
}

#[test]
fn local_and_exported_functions_are_in_one_table() {
    let dir = tempfile::tempdir().unwrap();
    for packer in [&["xz"][..], &["xz", "-9e"], &["xz", "--check=sha256"]] {
        let (program, local) = packed(dir.path(), packer);
        let headers = ElfHeaders::read(&File::open(&program).unwrap()).unwrap();
        assert!(is_offered(&headers), "{packer:?}");
        let image = copy_of(&program).unwrap();
        // Another process is to read it.
        let ours = format!("/proc/{}", std::process::id());
        let path = Path::new(&ours).join(image.path().strip_prefix("/proc/self").unwrap());
        assert_eq!(address_of(&path, "local"), local);
        assert!(address_of(&path, "exported") > 0 && address_of(&path, "main") > 0);
    }
}

#[test]
fn a_file_with_all_its_symbols_needs_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (program, _) = packed(dir.path(), &["xz"]);
    let section = dir.path().join("section");
    std::fs::write(&section, section_of(&program)).unwrap();
    let whole = compile(dir.path(), "whole", &["cc"], SOURCE);
    run(Command::new("objcopy")
        .arg(format!("--add-section=.gnu_debugdata={}", section.display()))
        .arg(&whole));
    assert!(!is_offered(&ElfHeaders::read(&File::open(&whole).unwrap()).unwrap()));
}

#[test]
fn damaged_nested_and_foreign_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (program, _) = packed(dir.path(), &["xz"]);
    let good = section_of(&program);
    // Another program's symbols, which its build id gives away.
    let other = compile(
        dir.path(),
        "other",
        &["cc", "-Wl,--build-id"],
        "int main(void) { return 7; }",
    );
    let other = xz(dir.path(), &std::fs::read(other).unwrap(), &[]);
    // A file whose only symbols are in a section of the same kind.
    let nested = xz(dir.path(), &std::fs::read(&program).unwrap(), &[]);
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let words = xz(dir.path(), &b"no ELF file at all ".repeat(100), &[]);
    for (what, contents) in [
        ("cut short", &good[..good.len() / 2]),
        ("empty", &[][..]),
        ("no xz", b"words"),
        ("flipped", &flipped),
        ("no ELF", &words),
        ("foreign", &other),
        ("nested", &nested),
    ] {
        replace_section(&program, contents);
        assert!(copy_of(&program).is_err(), "{what}");
    }
    replace_section(&program, &good);
    assert!(copy_of(&program).is_ok());
}

#[test]
fn what_would_grow_without_bound_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 16 << 20;
    let zeros = vec![0; limit as usize / 8];
    let bomb = xz(dir.path(), &zeros, &["-1", "-T1"]);
    assert!(bomb.len() < zeros.len() / 1000);
    // Streams may follow each other.
    let bomb = bomb.repeat(9);
    let started = Instant::now();
    let refused = unpack(&bomb, limit).unwrap_err();
    assert!(refused.to_string().contains("too large"), "{refused}");
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    assert!(unpack(&bomb, 1000).is_err());
}

#[test]
fn a_dictionary_of_gigabytes_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let greedy = xz(dir.path(), b"words", &["--lzma2=dict=1GiB"]);
    let refused = unpack(&greedy, 1000).unwrap_err();
    assert!(refused.to_string().contains("mem"), "{refused}");
    assert_eq!(unpack(&xz(dir.path(), b"words", &["-9"]), 1000).unwrap(), b"words");
}

#[test]
fn what_takes_too_long_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let bomb = xz(dir.path(), &vec![0; 8 << 20], &["-1"]);
    let late = unpack_within(bomb, PLENTY, Duration::ZERO).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn damaged_sections_do_no_harm(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        static PACKED: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let dir = tempfile::tempdir().unwrap();
            section_of(&packed(dir.path(), &["xz"]).0)
        });
        let mut packed = PACKED.clone();
        for (at, byte) in &damage {
            let at = at.index(packed.len());
            packed[at] = *byte;
        }
        let _ = unpack(&packed, 1 << 20);
    }

    #[test]
    fn damaged_files_within_do_no_harm(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        static INNER: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let dir = tempfile::tempdir().unwrap();
            unpack(&section_of(&packed(dir.path(), &["xz"]).0), PLENTY).unwrap()
        });
        let mut bytes = INNER.clone();
        for (position, (at, byte)) in damage.iter().enumerate() {
            // Most damage where it hurts: in the headers.
            let at = if position % 2 == 0 { at.index(64) } else { at.index(bytes.len()) };
            bytes[at] = *byte;
        }
        let file = in_memory(&bytes).unwrap();
        if let Ok(headers) = ElfHeaders::read(&file) {
            let mut table = SymbolTable::default();
            let _ = table.add(&file, &headers, (b".symtab", b".strtab"));
            let _ = Image::of_symbols(&headers, table.symbols(), &table.names).unwrap();
        }
    }
}
