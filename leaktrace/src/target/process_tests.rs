use std::process::Command;

use super::super::test_programs::{Running, compile, run};
use super::*;

const WAIT: &str = r#"
#include <stdio.h>
int main(void) { puts("ready"); fflush(stdout); getchar(); }
"#;

#[test]
fn tells_what_a_process_is() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "waiter", &["cc", "-Wl,--build-id"], WAIT);
    let running = Running::start(Command::new(&program).args(["two words", "bell\x07", "tab\t"]));
    let process = Process::open(running.pid()).unwrap();
    assert_eq!(
        (process.pid, process.comm.as_str(), process.language),
        (running.pid(), "waiter", "c")
    );
    assert_eq!(process.exe, program);
    assert_eq!(
        process.command,
        format!("{} two words bell\\u{{7}} tab\\t", program.display())
    );
    assert_eq!(process.build_id.as_ref().map(String::len), Some(40));
    assert!(process.start_time > 0);
    assert_eq!(process.threads().unwrap(), 1);
    assert_eq!(process.seccomp().unwrap(), Seccomp::Off);
    assert!((100_000..100_000_000).contains(&process.resident_bytes().unwrap()));
}

#[test]
fn notices_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "waiter", &["cc"], WAIT);
    let mut running = Running::start(&mut Command::new(&program));
    let pid = running.pid();
    let process = Process::open(pid).unwrap();
    assert!(process.is_alive());
    running.kill();
    let mut wait = [PollFd::new(process.exited_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut wait, 10_000u16), Ok(1));
    assert!(!process.is_alive());
    assert!(matches!(Process::open(pid), Err(TargetError::Zombie(_))));
    assert!(process.resident_bytes().is_err());
    running.end();
    assert!(matches!(Process::open(pid), Err(TargetError::NoSuchProcess(_))));
    assert!(process.threads().is_err() && process.seccomp().is_err() && !process.is_alive());
}

#[test]
fn a_main_thread_that_left_is_told_from_an_end() {
    let source = r#"
        #include <pthread.h>
        #include <stdio.h>
        #include <unistd.h>
        static void *stay(void *none) { pause(); return none; }
        static void say(const char *what) { puts(what); fflush(stdout); }
        int main(void) {
            pthread_t t;
            pthread_create(&t, 0, stay, 0);
            say("ready");
            getchar();
            say("leaving");
            pthread_exit(0);
        }"#;
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "leaver", &["cc", "-pthread"], source);
    let mut running = Running::start(&mut Command::new(&program));
    let process = Process::open(running.pid()).unwrap();
    assert!(!process.main_thread_gone());
    assert_eq!(running.tell(), "leaving");
    let looks = || std::iter::repeat_with(|| std::thread::sleep(std::time::Duration::from_millis(10))).take(1000);
    assert!(looks().any(|()| process.main_thread_gone()));
    let error = Process::open(running.pid()).unwrap_err();
    assert!(matches!(error, TargetError::MainThreadGone(_)), "{error}");
    running.kill();
    // Its threads die one after the other.
    assert!(looks().any(|()| !process.main_thread_gone()));
}

#[test]
fn refuses_what_cannot_be_traced() {
    let own = std::process::id();
    assert!(matches!(Process::open(own), Err(TargetError::Ourselves(_))));
    // SAFETY: `gettid` takes nothing and cannot fail.
    let thread = unsafe { libc::gettid() } as u32;
    if thread != own {
        let error = Process::open(thread).unwrap_err().to_string();
        assert!(error.contains(&format!("--pid {own}")), "{error}");
    }
    if Path::new("/proc/2/comm").exists() {
        assert!(matches!(Process::open(2), Err(TargetError::KernelThread(2))));
    }
    assert!(matches!(Process::open(u32::MAX), Err(TargetError::NoSuchProcess(_))));
}

#[test]
fn errors_are_one_line_that_says_what_to_do() {
    let source = || io::Error::from(io::ErrorKind::InvalidData);
    for error in [
        explain(7, "x")(io::Error::from_raw_os_error(libc::ENOENT)),
        explain(7, "x")(io::Error::from_raw_os_error(libc::EACCES)),
        explain(7, "the state")(source()),
        TargetError::ThirtyTwoBit(7),
    ] {
        let text = error.to_string();
        assert!(
            !text.contains('\n') && text.contains('7') && text.contains([':', ';']),
            "{text}"
        );
    }
    let error = explain(7, "x")(io::Error::from_raw_os_error(libc::EPERM));
    assert!(error.to_string().contains("sudo"));
}

/// A 32-bit program that needs no 32-bit libraries to build: it prints and waits through system calls alone.
#[test]
fn refuses_a_32_bit_program() {
    let source = r#"
        void _start(void) {
            static const char text[] = "ready\n";
            int n = 4;
            __asm__ volatile("int $0x80" : "+a"(n) : "b"(1), "c"(text), "d"(6) : "memory");
            for (;;) { n = 29; __asm__ volatile("int $0x80" : "+a"(n) :: "memory"); }
        }"#;
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "cc",
        "-m32",
        "-static",
        "-nostdlib",
        "-fno-pic",
        "-no-pie",
        "-O1",
        "-fno-stack-protector",
    ];
    let program = compile(dir.path(), "small", &flags, source);
    let mut started = Command::new(&program);
    let Ok(mut probe) = started.stdout(std::process::Stdio::null()).spawn() else {
        eprintln!("skipped: this kernel runs no 32-bit programs");
        return;
    };
    let error = Process::open(probe.id());
    probe.kill().unwrap();
    probe.wait().unwrap();
    assert!(matches!(error, Err(TargetError::ThirtyTwoBit(_))), "{error:?}");
}

#[test]
fn a_filter_on_one_thread_is_seen() {
    let source = r#"
        #include <linux/filter.h>
        #include <linux/seccomp.h>
        #include <pthread.h>
        #include <stdio.h>
        #include <sys/prctl.h>
        #include <unistd.h>
        static void *filtered(void *none) {
            struct sock_filter allow[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
            struct sock_fprog program = { 1, allow };
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
            puts("ready"); fflush(stdout);
            pause();
            return none;
        }
        int main(void) { pthread_t t; pthread_create(&t, 0, filtered, 0); pause(); }"#;
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "filtered", &["cc", "-pthread"], source);
    let running = Running::start(&mut Command::new(&program));
    let process = Process::open(running.pid()).unwrap();
    assert_eq!(process.seccomp().unwrap(), Seccomp::Filter);
    assert_eq!(process.threads().unwrap(), 2);
}

#[test]
fn languages_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let language = |path: &Path| {
        let file = open_regular(path).unwrap();
        language::guess(&file, &ElfHeaders::read(&file).unwrap())
    };
    let cpp = "#include <string>\nint main(int c, char **v) { return std::string(v[0]).size() + c; }";
    let rust = "fn main() { println!(\"{:?}\", vec![std::env::args()]); }";
    for (name, compiler, source, expected) in [
        ("c", &["cc"][..], WAIT, "c"),
        ("cpp", &["g++"], cpp, "c++"),
        ("cpp-static", &["g++", "-static"], cpp, "c++"),
        ("rust", &["rustc"], rust, "rust"),
        ("rust-v0", &["rustc", "-Csymbol-mangling-version=v0"], rust, "rust"),
    ] {
        let program = compile(dir.path(), name, compiler, source);
        assert_eq!(language(&program), expected, "{name}");
        if !name.ends_with("static") {
            run(Command::new("strip").arg(&program));
            assert_eq!(language(&program), expected, "{name}, stripped");
        }
    }
}

#[test]
fn the_mark_of_the_go_linker_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "program", &["cc"], WAIT);
    run(Command::new("objcopy")
        .arg("--add-section=.go.buildinfo=/proc/version")
        .arg(&program));
    let file = open_regular(&program).unwrap();
    assert_eq!(language::guess(&file, &ElfHeaders::read(&file).unwrap()), "go");
}

#[test]
fn names_with_parentheses_do_not_confuse_the_state() {
    let text = format!("12 (a) R (b)) S 1 2 3 4 5 4194560 {} 777 0\n", "0 ".repeat(12).trim());
    let stat = parse_stat(&text).unwrap();
    assert_eq!((stat.state, stat.flags, stat.start_time), ('S', 4_194_560, 777));
    assert!(parse_stat("12 (a").is_none());
}
