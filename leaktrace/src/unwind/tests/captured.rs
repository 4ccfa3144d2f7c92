//! `step` against framehop, frame by frame, on the stacks of real programs, caught at moments that nobody chose.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use leaktrace_common::{events::StackEnd, unwind::Registers};
use nix::{
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::process::{Code, Stopped};

/// A program that works, to be stopped from time to time.
struct Caught {
    child: Child,
    memory: Stopped,
    code: Option<(String, Code)>,
    /// State of the pauses' random numbers.
    random: u64,
}

/// What the stacks of a program were.
#[derive(Debug, Default)]
struct Seen {
    whole: usize,
    frames: usize,
    deepest: usize,
    /// Ended where neither unwinder knows on.
    cut: usize,
}

impl Caught {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: ptrace(2) is safe after fork.
        unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
        let child = command.spawn().expect("it is installed");
        waitpid(Pid::from_raw(child.id() as i32), None).expect("a child");
        Self {
            memory: Stopped::of(&child.id().to_string()),
            child,
            code: None,
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Lets it run for a random while; false when it has ended meanwhile.
    fn run(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ptrace::cont(self.pid(), None).expect("a stopped child");
        sleep(Duration::from_micros(200 + self.random % 3000));
        kill(self.pid(), Signal::SIGSTOP).expect("it is not waited for yet");
        self.memory.forget();
        loop {
            match waitpid(self.pid(), None).expect("a child") {
                WaitStatus::Stopped(_, Signal::SIGSTOP) => return true,
                WaitStatus::Stopped(_, other) => ptrace::cont(self.pid(), other).expect("a stopped child"),
                _ => return false,
            }
        }
    }

    /// Walks its stack with both unwinders, which must agree at each frame.
    fn walk(&mut self, seen: &mut Seen) {
        let process = self.child.id().to_string();
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("a child");
        let code = maps
            .lines()
            .filter(|line| line.contains("r-xp"))
            .collect::<Vec<_>>()
            .join("\n");
        let (_, code) = match self.code.take() {
            Some((known, kept)) if known == code => self.code.insert((known, kept)),
            _ => self.code.insert((code, Code::of(&process))),
        };
        let all = ptrace::getregs(Pid::from_raw(self.child.id() as i32)).expect("a stopped child");
        let registers = Registers {
            instruction_pointer: all.rip,
            stack_pointer: all.rsp,
            frame_pointer: all.rbp,
        };
        let walk = code.walk(registers, &mut self.memory);
        seen.frames += walk.frames.len();
        seen.deepest = seen.deepest.max(walk.frames.len());
        if walk.end == StackEnd::Whole {
            seen.whole += 1;
        } else {
            seen.cut += 1;
        }
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Catches so many stacks of a program that starts over when it ends.
fn catch(count: usize, command: impl Fn() -> Command) -> Seen {
    let mut seen = Seen::default();
    while seen.whole + seen.cut < count {
        let mut caught = Caught::start(&mut command());
        let before = seen.whole + seen.cut;
        while seen.whole + seen.cut < count && caught.run() {
            caught.walk(&mut seen);
        }
        assert!(seen.whole + seen.cut > before, "it ends before it can be stopped once");
    }
    println!("{seen:?}");
    seen
}

fn wanted(sampled: usize) -> usize {
    if env::var_os("LEAKTRACE_EXHAUSTIVE").is_some() {
        sampled * 20
    } else {
        sampled
    }
}

/// Whether a program is here: it need not be.
fn installed(program: &str) -> bool {
    Path::new(program).exists()
}

const PYTHON: &str = "import json, re
def f(n): return f(n - 1) + 1 if n else len(json.dumps([{'a': [i, str(i)]} for i in range(50)]))
while True: f(20); re.findall('a+b', 'aab' * 500); sorted(range(200), key=lambda x: -x)";

const PERL: &str = "sub f { my $n = shift; return $n ? f($n - 1) + 1 : length join ',', sort { $b <=> $a } 1 .. 200 }
while (1) { f(15); my %h = map { $_ => [$_] } 1 .. 100; my $s = 'aab' x 500; $s =~ s/a+b/x/g }";

#[test]
fn captured_stacks_of_python_equal_framehop() {
    const PROGRAM: &str = "/usr/bin/python3";
    if !installed(PROGRAM) {
        return;
    }
    let count = wanted(150);
    let seen = catch(count, || {
        let mut command = Command::new(PROGRAM);
        command.args(["-c", PYTHON]);
        command
    });
    assert!(seen.whole * 100 >= count * 98 && seen.deepest > 15, "{seen:?}");
}

#[test]
fn captured_stacks_of_perl_equal_framehop() {
    const PROGRAM: &str = "/usr/bin/perl";
    if !installed(PROGRAM) {
        return;
    }
    let count = wanted(150);
    let seen = catch(count, || {
        let mut command = Command::new(PROGRAM);
        command.args(["-e", PERL]);
        command
    });
    assert!(seen.whole * 100 >= count * 98 && seen.frames > count * 5, "{seen:?}");
}

/// The largest tables that there are. In the exhaustive run, where they are built by optimised code.
#[test]
fn captured_stacks_of_clang_equal_framehop() {
    const PROGRAM: &str = "/usr/bin/clang";
    if env::var_os("LEAKTRACE_EXHAUSTIVE").is_none() || !installed(PROGRAM) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().join("much.c");
    let functions = (0..400).map(|n| {
        format!("int f{n}(int *p, int n) {{ int s = 0; for (int i = 0; i < n; i++) s += p[i] * {n} + (s >> 3); return s; }}\n")
    });
    fs::write(&source, functions.collect::<String>()).expect("a file");
    let count = wanted(50);
    let seen = catch(count, || {
        let mut command = Command::new(PROGRAM);
        // In this process: the driver's child would not be traced.
        command
            .args(["-fintegrated-cc1", "-O2", "-c", "-o", "/dev/null"])
            .arg(&source);
        command
    });
    assert!(seen.whole * 100 >= count * 95 && seen.deepest > 20, "{seen:?}");
}
