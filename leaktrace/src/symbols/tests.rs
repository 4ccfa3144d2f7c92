use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::target::test_programs::{Running, compile, pack_symbols, run};
use crate::target::{ElfHeaders, Era, Mapping};

/// Prints its return addresses and waits. `last` ends in a call that does not return, so that its return address
/// lies in the function behind it.
const C: &str = r#"
#include <execinfo.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((noinline, noreturn)) void report(void) {
    void *frames[64];
    int count = backtrace(frames, 64);
    for (int i = 0; i < count; i++) printf("%p ", frames[i]);
    puts("");
    fflush(stdout);
    for (;;) getchar();
}
static inline __attribute__((always_inline)) void inlined(void) { report(); }
__attribute__((noinline)) void last(void) { inlined(); }
__attribute__((noinline)) void behind(void) { puts("never called"); }
__attribute__((noinline)) int f(int depth) { if (depth) last(); behind(); return 3; }
int main(int argc, char **argv) { return f(argc) + 1; }
"#;

fn stack_of(running: &Running) -> RawStack {
    RawStack {
        frames: (0..running.words.len()).map(|at| running.address(at)).collect(),
        end: StackEnd::Whole,
        era: Era::default(),
    }
}

fn start(program: &Path) -> (Running, AddressSpace, RawStack) {
    let running = Running::start(&mut Command::new(program));
    let space = AddressSpace::read(running.pid()).unwrap();
    let stack = stack_of(&running);
    (running, space, stack)
}

fn symbolize(space: &AddressSpace, stack: &RawStack) -> Stack {
    Symbolizer::new()
        .symbolize(space, std::slice::from_ref(stack))
        .remove(0)
}

fn functions(stack: &Stack) -> Vec<&str> {
    stack
        .frames
        .iter()
        .map(|frame| frame.function.as_deref().unwrap_or("?"))
        .collect()
}

fn build(dir: &Path, flags: &[&str]) -> std::path::PathBuf {
    compile(dir, "program", &[&["cc", "-Wl,--build-id"], flags].concat(), C)
}

#[test]
fn inlined_calls_files_and_lines() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), &["-g", "-O2"]);
    let (_running, space, raw) = start(&program);
    let stack = symbolize(&space, &raw);
    assert!(stack.whole);
    assert_eq!(functions(&stack)[..5], ["report", "inlined", "last", "f", "main"]);
    let frames = &stack.frames;
    assert_eq!(
        frames.iter().map(|frame| frame.inlined).take(4).collect::<Vec<_>>(),
        [false, true, false, false]
    );
    assert_eq!(frames[1].address, frames[2].address);
    assert_eq!(frames[1].address, raw.frames[1]);
    let line = |text: &str| C.lines().position(|line| line.contains(text)).map(|at| at as u32 + 1);
    assert_eq!(frames[1].line, line("void inlined(void)"));
    assert_eq!(frames[2].line, line("void last(void)"));
    assert_eq!(frames[4].line, line("int main("));
    assert!(frames[4].file.as_ref().unwrap().ends_with("/program.c"));
    assert_eq!(frames[4].module, program.to_str().unwrap());
    assert_eq!(frames[4].build_id.as_ref().map(String::len), Some(40));
    let place = space.locate(raw.frames[0]).unwrap();
    assert_eq!(frames[0].offset, place.offset);
    assert!(
        frames.iter().any(|frame| frame.module.contains("libc")),
        "main's caller is in libc"
    );
}

#[test]
fn symbols_without_debug_information() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, space, raw) = start(&build(dir.path(), &["-O1"]));
    let stack = symbolize(&space, &raw);
    // `f` would be `float`, were it taken for a mangled name.
    assert_eq!(functions(&stack)[..4], ["report", "last", "f", "main"]);
    assert!(stack.frames[0].file.is_none() && stack.frames[0].line.is_none());
}

#[test]
fn stripped_programs_show_module_offset_and_build_id() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), &["-O1", "-g"]);
    let nm = Command::new("nm").arg(&program).output().unwrap();
    let main = String::from_utf8(nm.stdout).unwrap().lines().find_map(|line| {
        line.strip_suffix(" T main")
            .map(|address| u64::from_str_radix(address, 16).unwrap())
    });
    run(Command::new("strip").arg(&program));
    let (_running, space, raw) = start(&program);
    let stack = symbolize(&space, &raw);
    let frame = &stack.frames[3];
    assert_eq!(
        (frame.function.as_ref(), frame.file.as_ref(), frame.line),
        (None, None, None)
    );
    assert_eq!(frame.module, program.to_str().unwrap());
    assert!(frame.build_id.is_some());
    let distance = frame.offset - main.unwrap();
    assert!((1..64).contains(&distance), "{distance} bytes into main");
}

#[test]
fn exported_functions_of_a_stripped_program_have_names() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), &["-O1", "-rdynamic"]);
    run(Command::new("strip").arg(&program));
    let (_running, space, raw) = start(&program);
    assert_eq!(
        functions(&symbolize(&space, &raw))[..4],
        ["report", "last", "f", "main"]
    );
}

#[test]
fn local_functions_of_a_stripped_program_have_names_by_mini_debug_information() {
    let dir = tempfile::tempdir().unwrap();
    let source = C.replace("int f(int depth)", "static int f(int depth)");
    let flags = ["cc", "-O1", "-rdynamic", "-Wl,--build-id"];
    let program = compile(dir.path(), "program", &flags, &source);
    pack_symbols(&program, &["xz"]);
    let (_running, space, raw) = start(&program);
    let mut symbolizer = Symbolizer::new();
    let stack = symbolizer.symbolize(&space, std::slice::from_ref(&raw)).remove(0);
    // Three are exported; `f` is in neither table that a stripped file has.
    assert_eq!(functions(&stack)[..4], ["report", "last", "f", "main"]);
    assert_eq!(symbolizer.failures(), Failures::default());
    // Damaged, it costs what it would have told, and that is counted.
    let section = dir.path().join("section");
    std::fs::write(&section, "no xz data").unwrap();
    let damaged = dir.path().join("damaged");
    run(Command::new("objcopy")
        .arg(format!("--update-section=.gnu_debugdata={}", section.display()))
        .arg(&program)
        .arg(&damaged));
    let (_running, space, raw) = start(&damaged);
    let stack = symbolizer.symbolize(&space, &[raw]).remove(0);
    assert_eq!(functions(&stack)[..4], ["report", "last", "?", "main"]);
    assert_eq!(symbolizer.failures().without_debug, 1);
}

#[test]
fn code_that_the_program_has_written_is_named_by_its_perf_map() {
    let mut child = Running::start(Command::new("sh").args(["-c", "echo started; read word"]));
    let mut space = AddressSpace::read(child.pid()).unwrap();
    child.kill();
    let path = std::path::PathBuf::from(format!("/tmp/perf-{}.map", child.pid()));
    std::fs::write(&path, "7000000 100 malloc\n7000100 100 make things\n").unwrap();
    let generated = Mapping {
        start: 0x700_0000,
        end: 0x700_1000,
        executable: true,
        ..Mapping::default()
    };
    space.set_mappings_for_tests(vec![generated]);
    let raw = RawStack {
        frames: vec![0x700_0080, 0x700_0100, 0x700_0101, 0x700_0900, 0x600_0000],
        end: StackEnd::Gap,
        era: Era::default(),
    };
    let mut symbolizer = Symbolizer::new();
    symbolizer.follow(&space);
    // Held open, it gives names when it is gone.
    std::fs::remove_file(&path).unwrap();
    child.end();
    let mut stack = symbolizer.symbolize(&space, &[raw]).remove(0);
    assert_eq!(functions(&stack), ["malloc", "malloc", "make things", "?", "?"]);
    let modules: Vec<&str> = stack.frames.iter().map(|frame| frame.module.as_str()).collect();
    assert_eq!(
        modules,
        ["[perf map]", "[perf map]", "[perf map]", "[anon]", "[unknown]"]
    );
    assert_eq!((stack.frames[0].offset, stack.whole), (0x700_0080, false));
    trim::trim(&mut stack);
    assert_eq!(stack.frames.len(), 5, "what a perf map calls malloc is the program's");
}

#[test]
fn deleted_replaced_and_gone_still_has_names() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root, as a deleted file is reached through map_files alone");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), &["-g", "-O2"]);
    let running = Running::start(&mut Command::new(&program));
    std::fs::rename(
        compile(dir.path(), "other", &["cc"], "int main(void) { return 0; }"),
        &program,
    )
    .unwrap();
    let space = AddressSpace::read(running.pid()).unwrap();
    let raw = stack_of(&running);
    std::fs::remove_file(&program).unwrap();
    running.end();
    let stack = symbolize(&space, &raw);
    assert_eq!(functions(&stack)[..5], ["report", "inlined", "last", "f", "main"]);
    assert!(stack.frames[4].line.is_some());
    assert_eq!(stack.frames[4].module, program.to_str().unwrap());
}

/// Splits the debug information of `program` off into `debug`.
fn split(program: &Path, debug: &Path) {
    std::fs::create_dir_all(debug.parent().unwrap()).unwrap();
    run(Command::new("objcopy").arg("--only-keep-debug").arg(program).arg(debug));
    run(Command::new("strip").arg(program));
}

#[test]
fn debug_files_are_found_by_link() {
    let dir = tempfile::tempdir().unwrap();
    for (name, flags) in [
        ("by id", &["-g", "-O2"][..]),
        ("by checksum", &["-g", "-O2", "-Wl,--build-id=none"]),
    ] {
        let program = build(dir.path(), flags);
        let debug = dir.path().join(".debug/program.debug");
        split(&program, &debug);
        run(Command::new("objcopy")
            .arg(format!("--add-gnu-debuglink={}", debug.display()))
            .arg(&program));
        let (_running, space, raw) = start(&program);
        let stack = symbolize(&space, &raw);
        assert_eq!(
            functions(&stack)[..5],
            ["report", "inlined", "last", "f", "main"],
            "{name}"
        );
        assert!(stack.frames[4].line.is_some());
        // One that does not fit is not used.
        let other = compile(
            dir.path(),
            "other",
            &["cc", "-g", "-Wl,--build-id"],
            "int main(void) { return 0; }",
        );
        std::fs::rename(other, &debug).unwrap();
        assert_eq!(functions(&symbolize(&space, &raw))[..2], ["?", "?"], "{name}");
    }
}

#[test]
fn debug_files_are_found_by_build_id() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), &["-g", "-O2"]);
    let file = std::fs::File::open(&program).unwrap();
    let build_id = ElfHeaders::read(&file).unwrap().build_id(&file).unwrap();
    let (first, rest) = build_id.split_at(2);
    let root = dir.path().join("root");
    split(
        &program,
        &root.join(format!("usr/lib/debug/.build-id/{first}/{rest}.debug")),
    );
    let (_running, space, raw) = start(&program);
    let mut symbolizer = Symbolizer {
        host: Root::open(&root).ok(),
        ..Symbolizer::new()
    };
    let stack = symbolizer.symbolize(&space, &[raw]).remove(0);
    assert_eq!(functions(&stack)[..5], ["report", "inlined", "last", "f", "main"]);
    assert!(stack.frames[4].line.is_some());
    assert_eq!(symbolizer.failures(), Failures::default());
}

const CPP: &str = r#"
#include <execinfo.h>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>
static bool armed;
static void report() {
    void *frames[64];
    int count = backtrace(frames, 64);
    for (int i = 1; i < count; i++) std::printf("%p ", frames[i]);
    std::puts("");
    std::fflush(stdout);
    for (;;) std::getchar();
}
void *operator new(std::size_t size) {
    if (armed) report();
    return std::malloc(size);
}
void operator delete(void *block) noexcept { std::free(block); }
void operator delete(void *block, std::size_t) noexcept { std::free(block); }
namespace shop {
template <class T> struct Basket {
    std::vector<T> items;
    __attribute__((noinline)) void add(T item) { items.push_back(item); }
};
}
int main() {
    void *warm[1];
    backtrace(warm, 1);
    shop::Basket<long> basket;
    armed = true;
    basket.add(7);
    return basket.items.size();
}
"#;

#[test]
fn cpp_containers_begin_at_the_program_s_call() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [&["g++", "-g", "-O2"][..], &["g++", "-g", "-O0"], &["g++", "-O0"]] {
        let program = compile(dir.path(), "program", flags, CPP);
        let (_running, space, raw) = start(&program);
        let mut stack = symbolize(&space, &raw);
        let all = functions(&stack).join("\n");
        assert!(all.starts_with("operator new(unsigned long)\n"), "{all}");
        trim::trim(&mut stack);
        let names = functions(&stack);
        assert!(
            names[0].starts_with("std::vector<long, std::allocator<long> >::"),
            "{flags:?}: {all}"
        );
        assert!(names.contains(&"shop::Basket<long>::add(long)"), "{flags:?}: {all}");
        assert!(names.contains(&"main"), "{flags:?}: {all}");
    }
}

const RUST: &str = r#"
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};
static ARMED: AtomicBool = AtomicBool::new(false);
unsafe extern "C" { fn backtrace(frames: *mut *mut u8, size: i32) -> i32; }
struct Reporting;
#[inline(never)]
fn report() {
    let mut frames = [std::ptr::null_mut(); 64];
    let count = unsafe { backtrace(frames.as_mut_ptr(), 64) } as usize;
    let line: Vec<String> = frames[2..count].iter().map(|&frame| format!("{frame:p}")).collect();
    println!("{}", line.join(" "));
    std::thread::sleep(std::time::Duration::from_secs(600));
}
unsafe impl GlobalAlloc for Reporting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ARMED.swap(false, Ordering::SeqCst) { report(); }
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) { unsafe { System.dealloc(block, layout) } }
}
#[global_allocator]
static ALLOCATOR: Reporting = Reporting;
mod shop {
    #[inline(never)]
    pub fn fill(wanted: usize) -> Vec<u64> {
        let mut items = Vec::new();
        super::ARMED.store(true, super::Ordering::SeqCst);
        for item in 0..wanted as u64 { items.push(item); }
        items
    }
}
fn main() { std::process::exit(shop::fill(std::env::args().count() + 9).len() as i32) }
"#;

#[test]
fn rust_buffers_begin_at_the_program_s_call() {
    let dir = tempfile::tempdir().unwrap();
    // The standard library comes in the compiler's usual mangling either way.
    for flags in [
        &["-Copt-level=0"][..],
        &["-Copt-level=2"],
        &["-Copt-level=2", "-Csymbol-mangling-version=v0"],
    ] {
        let program = compile(dir.path(), "program", &[&["rustc", "-g"], flags].concat(), RUST);
        let (_running, space, raw) = start(&program);
        let mut stack = symbolize(&space, &raw);
        let all = functions(&stack).join("\n");
        // The allocator of the program is the program's own function; what called it is not.
        stack
            .frames
            .retain(|frame| frame.function.as_ref().is_none_or(|name| !name.contains("Reporting")));
        trim::trim(&mut stack);
        let names = functions(&stack);
        assert!(names[0].contains("alloc::vec::Vec<"), "{flags:?}: {all}");
        assert!(
            names.contains(&"program::shop::fill") && names.contains(&"program::main"),
            "{flags:?}: {all}"
        );
        assert!(!all.contains("17h"), "{flags:?}: {all}");
    }
}

#[test]
fn a_library_cut_short_during_the_trace_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let library = compile(
        dir.path(),
        "libpart.so",
        &["cc", "-g", "-O1", "-shared", "-fPIC", "-Wl,--build-id"],
        C,
    );
    let source = "int f(int); int main(void) { return f(1); }";
    let program = compile(
        dir.path(),
        "caller",
        &["cc", "-O1", "-Wl,-rpath,.", "./libpart.so"],
        source,
    );
    let running = Running::start(Command::new(&program).current_dir(dir.path()));
    let space = AddressSpace::read(running.pid()).unwrap();
    let raw = stack_of(&running);
    let mut symbolizer = Symbolizer::new();
    let first = RawStack {
        frames: raw.frames[..1].to_vec(),
        end: StackEnd::Gap,
        era: Era::default(),
    };
    let stack = symbolizer.symbolize(&space, &[first]).remove(0);
    assert_eq!((functions(&stack), stack.whole), (vec!["report"], false));
    std::fs::File::options()
        .write(true)
        .open(&library)
        .unwrap()
        .set_len(0)
        .unwrap();
    // What was opened before is complete; what is opened now has nothing left to give.
    assert_eq!(
        functions(&symbolizer.symbolize(&space, std::slice::from_ref(&raw))[0])[1],
        "inlined"
    );
    let mut late = Symbolizer::new();
    assert_eq!(functions(&late.symbolize(&space, &[raw])[0])[..2], ["?", "?"]);
    assert_eq!((late.failures().changed, late.failures().files), (1, 0));
}

#[test]
fn a_library_overwritten_during_the_trace_gives_no_wrong_names() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["cc", "-g", "-O1", "-shared", "-fPIC", "-Wl,--build-id=none"];
    let library = compile(dir.path(), "libpart.so", &flags, C);
    let other = compile(
        dir.path(),
        "libother.so",
        &flags,
        &C.replace("inlined", "renamed").replace("puts(", "perror("),
    );
    let source = "int f(int); int main(void) { return f(1); }";
    let program = compile(
        dir.path(),
        "caller",
        &["cc", "-O1", "-Wl,-rpath,.", "./libpart.so"],
        source,
    );
    let running = Running::start(Command::new(&program).current_dir(dir.path()));
    let space = AddressSpace::read(running.pid()).unwrap();
    std::fs::copy(other, library).unwrap();
    let mut symbolizer = Symbolizer::new();
    let stack = symbolizer.symbolize(&space, &[stack_of(&running)]).remove(0);
    assert_eq!(functions(&stack)[..2], ["?", "?"]);
    assert_eq!((symbolizer.failures().changed, symbolizer.failures().files), (1, 0));
}

#[test]
fn a_file_that_takes_too_long_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, space, raw) = start(&build(dir.path(), &["-g"]));
    let mut symbolizer = Symbolizer {
        patience: Duration::ZERO,
        ..Symbolizer::new()
    };
    let stack = symbolizer.symbolize(&space, std::slice::from_ref(&raw)).remove(0);
    assert_eq!(functions(&stack)[0], "?");
    assert!(symbolizer.failures().too_slow > 0);
    symbolizer.patience = PATIENCE;
    assert_eq!(
        functions(&symbolizer.symbolize(&space, &[raw])[0])[0],
        "?",
        "it is not asked again"
    );
}

#[test]
fn a_million_symbols_are_searched_in_seconds() {
    use object::elf::Sym64;
    use object::{LittleEndian as Little, U16, U32, U64};
    let symbol = |at: u32| Sym64 {
        st_name: U32::new(Little, 1 + at * 8),
        st_info: object::elf::SymbolInfo(2),
        st_other: object::elf::SymbolOther(0),
        st_shndx: U16::new(Little, object::elf::SHN_ABS),
        st_value: U64::new(Little, u64::from(at) * 4),
        st_size: U64::new(Little, 4),
    };
    let symbols: Vec<Sym64<Little>> = (0..1_000_000).map(symbol).collect();
    let mut names = b"\0".to_vec();
    for at in 0..1_000_000 {
        names.extend(format!("{at:07x}\0").bytes());
    }
    let headers = ElfHeaders::read(&std::fs::File::open("/proc/self/exe").unwrap()).unwrap();
    let table = object::pod::bytes_of_slice(&symbols);
    let image = Image::of_symbols(&headers, table, &names).unwrap();
    let started = std::time::Instant::now();
    let offsets: Vec<u64> = (0..BATCH as u64).map(|at| at * 6000 + 2).collect();
    let answer = Worker::start()
        .unwrap()
        .ask((0, 0), &vec![image].into(), offsets.clone(), PATIENCE);
    let calls = answer.unwrap().calls;
    for (offset, calls) in offsets.iter().zip(calls) {
        assert_eq!(calls[0].function, Some(format!("{:07x}", offset / 4)));
    }
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn less_is_held_where_memory_is_short() {
    assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   1024 kB\n"), Some(1 << 20));
    assert_eq!((available(""), available("MemAvailable: x kB")), (None, None));
    assert!((1..=MAX_BYTES).contains(&budget()));
}

#[test]
fn places_without_files_are_named() {
    let space = AddressSpace::read(std::process::id()).unwrap();
    let vdso = space
        .mappings()
        .iter()
        .find(|mapping| mapping.path == Path::new("[vdso]"))
        .unwrap();
    let raw = RawStack {
        frames: vec![vdso.start + 8, 16, 0],
        end: StackEnd::Fault,
        era: Era::default(),
    };
    let stack = symbolize(&space, &raw);
    let modules: Vec<_> = stack
        .frames
        .iter()
        .map(|frame| (frame.module.as_str(), frame.offset))
        .collect();
    assert_eq!(modules[..2], [("[vdso]", 8), ("[unknown]", 0)]);
    assert_eq!(stack.frames.len(), 3);
    assert!(!stack.whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn damaged_debug_information_does_no_harm(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60),
    ) {
        use std::io::Write as _;
        static BYTES: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::read(compile(dir.path(), "program", &["g++", "-g", "-O2"], CPP)).unwrap()
        });
        let mut bytes = BYTES.clone();
        let debug = bytes.len() / 3;
        for (at, byte) in &damage {
            // Names and debug information fill the last two thirds, the section headers their end.
            let position = debug + at.index(bytes.len() - debug);
            bytes[position] = *byte;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let build_id = ElfHeaders::read(&file).ok().and_then(|headers| headers.build_id(&file));
        if let Ok(image) = Image::copy(&file, build_id.as_deref(), false, &mut MAX_BYTES.clone()) {
            let images: Arc<[Image]> = vec![image].into();
            let offsets: Vec<u64> = (0x1000..0x2000).step_by(24).collect();
            let answer = Worker::start().unwrap().ask((0, 0), &images, offsets.clone(), PATIENCE);
            prop_assert_eq!(answer.map(|answer| answer.calls.len()), Some(offsets.len()));
        }
    }
}
