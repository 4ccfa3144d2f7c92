//! `step` against framehop, frame by frame, and against `backtrace()`: on this process's own stack, and on programs of
//! hard stacks, at each of their instructions.

use std::{
    arch::asm,
    env,
    hint::black_box,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command},
};

use leaktrace_common::{
    events::StackEnd,
    unwind::{Memory, Registers},
};
use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::process::{Code, Stopped, Walk};

/// Where the caller is: its registers, for a walk while it still runs.
#[expect(clippy::inline_always, reason = "the registers are to be the caller's")]
#[inline(always)]
fn here() -> Registers {
    let (instruction_pointer, stack_pointer, frame_pointer): (u64, u64, u64);
    // SAFETY: reads three registers.
    unsafe {
        asm!(
            "lea {ip}, [rip]", "mov {sp}, rsp", "mov {bp}, rbp",
            ip = out(reg) instruction_pointer, sp = out(reg) stack_pointer, bp = out(reg) frame_pointer,
        );
    };
    Registers {
        instruction_pointer,
        stack_pointer,
        frame_pointer,
    }
}

#[inline(never)]
fn walk_own() -> Walk {
    let mut code = Code::of("self");
    let mut memory = Stopped::of("self");
    black_box(code.walk(here(), &mut memory))
}

#[inline(never)]
fn nested(depth: usize) -> Walk {
    let walk = if depth == 0 { walk_own() } else { nested(depth - 1) };
    black_box(walk)
}

#[test]
fn own_stack_is_whole() {
    let shallow = nested(0);
    let deep = nested(50);
    assert_eq!((shallow.end, deep.end), (StackEnd::Whole, StackEnd::Whole));
    assert_eq!(deep.frames.len(), shallow.frames.len() + 50);
}

#[test]
fn own_stack_is_whole_in_a_callback_of_c() {
    unsafe extern "C" fn order(_: *const libc::c_void, result: *const libc::c_void) -> libc::c_int {
        let walk = walk_own();
        // SAFETY: both elements are `Cell<usize>`s that outlive the sort.
        let cell = unsafe { &*result.cast::<std::cell::Cell<usize>>() };
        cell.set(if walk.end == StackEnd::Whole {
            walk.frames.len()
        } else {
            0
        });
        0
    }
    let cells = [const { std::cell::Cell::new(0_usize) }; 2];
    // SAFETY: the array has two elements of that size.
    unsafe { libc::qsort(cells.as_ptr().cast_mut().cast(), 2, size_of_val(&cells[0]), Some(order)) };
    assert!(cells.iter().any(|cell| cell.get() > 3));
}

/// Builds the program of hard stacks. Panics without the compiler.
fn compile(directory: &Path, compiler: &str, options: &[&str]) -> std::path::PathBuf {
    let program = directory.join("corners");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/unwind/tests/corners.c");
    let done = Command::new(compiler)
        .args(["-w", "-O2", "-fomit-frame-pointer"])
        .args(options)
        .arg("-o")
        .args([&program, &source])
        .status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "{compiler} {options:?}: install it to run the tests"
    );
    program
}

/// A program stopped by ptrace.
struct Traced {
    child: Child,
    memory: Stopped,
}

impl Traced {
    fn start(program: &Path) -> Self {
        let mut command = Command::new(program);
        // SAFETY: ptrace(2) is safe after fork.
        unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
        let child = command.spawn().expect("it was just built");
        waitpid(Pid::from_raw(child.id() as i32), None).expect("a child");
        Self {
            memory: Stopped::of(&child.id().to_string()),
            child,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Runs on, to the next int3 or by one instruction; answers whether it stopped at an int3, or `None` at the end.
    fn run(&mut self, single: bool) -> Option<bool> {
        let mut signal = None;
        loop {
            let go = if single { ptrace::step } else { ptrace::cont };
            go(self.pid(), signal).expect("a stopped child");
            self.memory.forget();
            match waitpid(self.pid(), None).expect("a child") {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => return Some(self.at_int3()),
                // A signal of its own is delivered.
                WaitStatus::Stopped(_, other) => signal = Some(other),
                WaitStatus::Exited(_, 0) => return None,
                other => panic!("{other:?}"),
            }
        }
    }

    fn at_int3(&mut self) -> bool {
        let before = ptrace::getregs(self.pid()).expect("a stopped child").rip - 1;
        self.memory.word(before).is_some_and(|word| word as u8 == 0xCC)
    }

    fn registers(&self) -> Registers {
        let all = ptrace::getregs(self.pid()).expect("a stopped child");
        Registers {
            instruction_pointer: all.rip,
            stack_pointer: all.rsp,
            frame_pointer: all.rbp,
        }
    }

    /// What `backtrace()` said, without its own innermost frame.
    fn truth(&mut self) -> Vec<u64> {
        let all = ptrace::getregs(self.pid()).expect("a stopped child");
        (1..all.rsi)
            .map(|index| self.memory.word(all.rdi + index * 8).expect("the array"))
            .collect()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It has ended already, or a comparison failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops of [`corners.c`](corners.c) after the first.
const CHECKS: usize = 12;

/// Walks at each int3; answers the number of frames at each.
fn walk_checks(program: &Path, has_truth: bool) -> Vec<usize> {
    let mut traced = Traced::start(program);
    traced.run(false).expect("the first int3");
    let mut code = Code::of(&traced.child.id().to_string());
    let mut depths = Vec::new();
    while traced.run(false).is_some() {
        let walk = code.walk(traced.registers(), &mut traced.memory);
        assert_eq!(walk.end, StackEnd::Whole, "{walk:x?}");
        if has_truth {
            assert_eq!(walk.frames[1..], traced.truth());
        }
        depths.push(walk.frames.len());
    }
    depths
}

fn compilers() -> Vec<&'static str> {
    let clang = Command::new("clang").arg("--version").output().is_ok();
    if clang { vec!["gcc", "clang"] } else { vec!["gcc"] }
}

#[test]
fn hard_stacks_are_as_backtrace_says() {
    let directory = tempfile::tempdir().expect("a directory");
    for compiler in compilers() {
        for options in [
            &[][..],
            &["-no-pie", "-z", "lazy"],
            &["-static", "-g"],
            &["-mavx", "-O3"],
        ] {
            let program = compile(directory.path(), compiler, options);
            let depths = walk_checks(&program, true);
            assert_eq!(depths.len(), CHECKS, "{compiler} {options:?}: {depths:?}");
            assert!(depths.iter().any(|depth| *depth > 100));
        }
    }
}

/// The same stacks where the program's own code has `.debug_frame` only.
#[test]
fn hard_stacks_are_whole_with_debug_frame_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = walk_checks(&compile(directory.path(), "gcc", &[]), true);
    let options = ["-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    for more in ["-gz=none", "-gz=zlib"] {
        let program = compile(directory.path(), "gcc", &[&options[..], &[more]].concat());
        assert_eq!(walk_checks(&program, false), plain);
    }
}

/// At each instruction: prologues, epilogues, the linkage table before and after binding, signal frames, the vDSO.
#[test]
fn steps_equal_framehop_at_every_instruction() {
    let directory = tempfile::tempdir().expect("a directory");
    let most = if env::var_os("LEAKTRACE_EXHAUSTIVE").is_some() {
        usize::MAX
    } else {
        20_000
    };
    let program = compile(directory.path(), "gcc", &["-z", "lazy"]);
    let mut traced = Traced::start(&program);
    traced.run(false).expect("the first int3");
    let mut code = Code::of(&traced.child.id().to_string());
    let (mut whole, mut resolver, mut unsupported, mut stale, mut gaps) = (0, 0, 0, 0, 0);
    while whole < most && traced.run(true).is_some() {
        let walk = code.walk(traced.registers(), &mut traced.memory);
        let last = walk.frames.last().copied().unwrap_or(0);
        match walk.end {
            StackEnd::Whole => whole += 1,
            // The resolver of lazily bound calls keeps its CFA in rbx.
            StackEnd::Unsupported if code.path(last).contains("/ld-linux") => resolver += 1,
            StackEnd::Unsupported => unsupported += 1,
            // gcc does not say that a realigned frame's epilogue has restored rbp: wrong at the return itself.
            StackEnd::Fault => stale += 1,
            // What the compiler adds to each file to run its constructors and destructors has no tables.
            StackEnd::Gap => gaps += 1,
            other => panic!("{other:?} at {:x?}", traced.registers()),
        }
    }
    println!("{whole} whole, {resolver} in the resolver, {unsupported} unsupported, {stale} stale, {gaps} gaps");
    assert!(whole > 10_000 && resolver < whole / 10 && unsupported < whole / 200);
    assert!(stale < 5 && gaps < whole / 200);
}
