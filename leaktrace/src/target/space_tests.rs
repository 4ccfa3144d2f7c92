use std::process::Command;

use super::super::test_programs::{Running, compile, run};
use super::*;

/// Says the address of its `marker`, and maps the library of its argument, if there is one, each time it reads a
/// line: the place where `marker` of the library lies is said, and the library is closed at the next line.
const HOST: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int marker(void) { return 42; }
int main(int argc, char **argv) {
    printf("%p %p\n", (void *)marker, (void *)printf);
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        void *lib = dlopen(argv[1], RTLD_NOW);
        printf("%p\n", dlsym(lib, "in_library"));
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin)) break;
        dlclose(lib);
        printf("closed\n");
        fflush(stdout);
    }
}
"#;

fn code(start: u64, end: u64, name: &str) -> (u64, Code) {
    let mapping = Arc::new(Mapping {
        start,
        end,
        executable: true,
        ..Mapping::default()
    });
    (
        start,
        Code {
            born: 0,
            died: None,
            end,
            mapping,
            module: None,
            name: name.into(),
        },
    )
}

fn shape(code: &BTreeMap<u64, Code>) -> Vec<(u64, u64, &str)> {
    code.iter()
        .map(|(&start, code)| (start, code.end, &*code.name))
        .collect()
}

#[test]
fn newer_code_covers_older() {
    let old = || BTreeMap::from([code(10, 20, "a"), code(20, 30, "b"), code(40, 50, "c")]);
    for (start, end, left) in [
        (10, 20, vec![(20, 30, "b"), (40, 50, "c")]),
        (12, 15, vec![(10, 12, "a"), (15, 20, "a"), (20, 30, "b"), (40, 50, "c")]),
        (15, 45, vec![(10, 15, "a"), (45, 50, "c")]),
        (0, 100, vec![]),
        (30, 40, vec![(10, 20, "a"), (20, 30, "b"), (40, 50, "c")]),
        (5, 12, vec![(12, 20, "a"), (20, 30, "b"), (40, 50, "c")]),
    ] {
        let mut code = old();
        cut(&mut code, start, end);
        assert_eq!(shape(&code), left, "{start}..{end}");
    }
}

#[test]
fn our_own_code_is_found_in_the_file() {
    let space = AddressSpace::read(std::process::id()).unwrap();
    let here = our_own_code_is_found_in_the_file as *const () as u64;
    let place = space.locate(here).unwrap();
    let module = place.module.unwrap();
    assert_eq!(module.path, std::env::current_exe().unwrap());
    assert_eq!(&*place.name, module.name);
    // What lies at that address of the file is what lies in memory.
    let text = module.headers().section(b".text").unwrap();
    let delta = place.offset - text.sh_addr.get(object::LittleEndian);
    let in_file = super::super::files::read_at(module.file(), text.sh_offset.get(object::LittleEndian) + delta, 16, 16);
    // SAFETY: the code of a function of ours; in a test program it is longer than 16 bytes.
    let in_memory = unsafe { std::slice::from_raw_parts(here as *const u8, 16) };
    assert_eq!(in_file.unwrap(), in_memory);
}

#[test]
fn places_without_a_file_have_a_name() {
    let space = AddressSpace::read(std::process::id()).unwrap();
    let vdso = space
        .mappings()
        .iter()
        .find(|mapping| mapping.path == Path::new("[vdso]"))
        .unwrap();
    let place = space.locate(vdso.start + 16).unwrap();
    assert!(place.module.is_none());
    assert_eq!((&*place.name, place.offset), ("[vdso]", 16));
    let local = 0_u64;
    let stack = space.locate(std::ptr::from_ref(&local) as u64).unwrap();
    assert!(stack.module.is_none());
    assert!(space.locate(8).is_none());
}

#[test]
fn a_file_that_is_deleted_or_replaced_is_still_the_one_mapped() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root, as a deleted file is reached through map_files alone");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "host", &["cc", "-g", "-Wl,--build-id"], HOST);
    let build_id = ElfBuildId::of(&program);
    let running = Running::start(&mut Command::new(&program));
    let other = compile(
        dir.path(),
        "other",
        &["cc", "-Wl,--build-id"],
        "int main(void) { return 1; }",
    );
    std::fs::rename(&other, &program).unwrap();
    let space = AddressSpace::read(running.pid()).unwrap();
    let module = space.locate(running.address(0)).unwrap().module.unwrap();
    assert_eq!((&module.path, module.deleted), (&program, true));
    assert!(build_id.0.is_some());
    assert_eq!(module.build_id, build_id.0);
    assert_ne!(module.build_id, ElfBuildId::of(&program).0);
}

struct ElfBuildId(Option<String>);

impl ElfBuildId {
    fn of(path: &Path) -> Self {
        let file = std::fs::File::open(path).unwrap();
        Self(super::super::headers::ElfHeaders::read(&file).unwrap().build_id(&file))
    }
}

#[test]
fn places_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "host", &["cc"], HOST);
    let running = Running::start(&mut Command::new(&program));
    let address = running.address(0);
    let mut space = AddressSpace::read(running.pid()).unwrap();
    assert!(!space.refresh().unwrap());
    running.end();
    assert!(space.refresh().is_err());
    let module = space.locate(address).unwrap().module.unwrap();
    assert!(std::fs::read(module.link_path()).unwrap().starts_with(b"\x7fELF"));
}

#[test]
fn libraries_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "host", &["cc"], HOST);
    let first = compile(
        dir.path(),
        "first.so",
        &["cc", "-shared", "-fPIC"],
        "int in_library(void) { return 1; }",
    );
    let mut running = Running::start(Command::new(&program).arg(&first));
    let mut space = AddressSpace::read(running.pid()).unwrap();
    let before = space.executable_modules().len();
    let address = running.ask();
    assert!(space.locate(address).is_none());
    assert!(space.refresh().unwrap());
    assert_eq!(space.executable_modules().len(), before + 1);
    let place = space.locate(address).unwrap();
    assert_eq!(place.module.as_ref().unwrap().path, first);

    running.tell();
    assert!(space.refresh().unwrap());
    assert_eq!(space.executable_modules().len(), before);
    let gone = space.locate(address).unwrap();
    assert!(Arc::ptr_eq(&gone.module.unwrap(), &place.module.unwrap()));
    assert_eq!(gone.offset, place.offset);

    // Another library at the same name; the kernel maps it where the first was.
    let second = "int other(void) { return 3; }\nint in_library(void) { return 2; }";
    let second = compile(dir.path(), "second.so", &["cc", "-shared", "-fPIC"], second);
    run(Command::new("mv").arg(&second).arg(&first));
    let again = running.ask();
    assert!(space.refresh().unwrap());
    let newest = space.locate(again).unwrap().module.unwrap();
    assert!(!newest.deleted);
    assert_eq!(
        again & !0xfff,
        address & !0xfff,
        "the kernel is expected to use the same place again"
    );
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&first).unwrap());
    assert_eq!(newest.identity.1, inode);

    // Each address belongs to what was there at the time, and to nothing where the time is not known for certain.
    let path_in = |address, from, to| {
        let module = space.locate_in(address, Era { from, to })?.module?;
        Some((module.path.clone(), module.identity))
    };
    let first = path_in(address, 0, 0).unwrap();
    assert_ne!(first.1, newest.identity);
    assert_eq!(space.era(), 1);
    assert_eq!(path_in(again, 1, 1).unwrap().1, newest.identity);
    for (from, to) in [(0, 1), (1, 1), (1, 2)] {
        let other = path_in(address, from, to);
        assert!(other.is_none_or(|found| found.1 != first.1), "{from}..={to}");
    }
    assert!(path_in(again, 0, 0).is_none_or(|found| found.1 != newest.identity));
    let host = running.address(0);
    assert!(path_in(host, 0, 0) == path_in(host, 0, 1) && path_in(host, 0, 1).is_some());
}
