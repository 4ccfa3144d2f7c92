//! Real commands, from the shell and compiled here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn words(program: &[&str]) -> Vec<OsString> {
    program.iter().map(OsString::from).collect()
}

impl Launched {
    /// The next event, which must come.
    fn expect(&mut self) -> Event {
        self.within(LIMIT).expect("an event in time")
    }

    /// The next event, if it comes in this time.
    fn within(&mut self, time: Duration) -> Option<Event> {
        runtime()
            .block_on(async { timeout(time, self.next()).await })
            .ok()
            .map(|event| event.expect("an event"))
    }

    fn maps(&self) -> String {
        fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap_or_default()
    }

    /// The letter for its state, as `/proc` shows it.
    fn state(&self) -> Option<char> {
        let line = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        line.rsplit_once(") ")?.1.chars().next()
    }

    fn is_traced(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid.cast_signed()), signal).unwrap();
    }

    /// All events to the end, each let go on; with what was readable of its memory when it was about to end.
    fn finish(&mut self) -> (Vec<Event>, String) {
        let (mut seen, mut maps) = (Vec::new(), String::new());
        loop {
            let event = self.expect();
            if event == Event::Exiting {
                maps = self.maps();
            }
            seen.push(event);
            if matches!(event, Event::Ended(_)) {
                return (seen, maps);
            }
            self.proceed();
        }
    }
}

/// The events of a command to its end, those of its loader left out, and its mappings when about to end.
fn events(program: &[&str]) -> (Vec<Event>, String) {
    let (mut events, maps) = launch(&words(program)).unwrap().finish();
    events.retain(|event| !matches!(event, Event::Mapped(_) | Event::Started));
    (events, maps)
}

fn ends_with(exit: Exit) -> Vec<Event> {
    vec![Event::Held, Event::Exiting, Event::Ended(exit)]
}

/// Waits until `condition` holds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let looks = 2000;
    assert!(
        (0..looks).any(|_| condition() || {
            thread::sleep(Duration::from_millis(5));
            false
        }),
        "{what}"
    );
}

/// A program compiled from `source`; none where there is no C compiler.
fn compiled(directory: &Path, source: &str, arguments: &[&str]) -> Option<PathBuf> {
    let (input, output) = (directory.join("program.c"), directory.join("program"));
    let headers =
        "#define _GNU_SOURCE\n#include <pthread.h>\n#include <signal.h>\n#include <stdlib.h>\n#include <string.h>
        #include <sys/syscall.h>\n#include <unistd.h>\n";
    fs::write(&input, [headers, source].concat()).unwrap();
    let mut cc = Command::new("cc");
    match cc
        .args(["-O1", "-w", "-pthread", "-o"])
        .arg(&output)
        .arg(&input)
        .args(arguments)
        .status()
    {
        Ok(status) => assert!(status.success(), "cc: {status}"),
        Err(error) => {
            eprintln!("skipped: no C compiler ({error})");
            return None;
        }
    }
    Some(output)
}

/// The events of a program made of `body`, with a thread that runs `thread`.
fn with_thread(thread: &str, body: &str) -> Option<(Vec<Event>, String)> {
    let directory = tempfile::tempdir().unwrap();
    let source = format!(
        "pthread_t other; void *work(void *unused) {{ {thread} return 0; }}
        int main(int count, char **arguments) {{ pthread_create(&other, 0, work, 0); {body} }}"
    );
    let program = compiled(directory.path(), &source, &[])?;
    Some(events(&[program.to_str().unwrap()]))
}

#[test]
fn is_held_before_its_first_instruction() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let mut launched = launch(&words(&["sh", "-c", "echo x > \"$0\"", file.to_str().unwrap()])).unwrap();
    assert_eq!(launched.expect(), Event::Held);
    assert_eq!(launched.state(), Some('t'));
    let maps = launched.maps();
    assert!(
        maps.contains("/ld-linux") && maps.contains("sh\n") && !maps.contains("libc.so"),
        "{maps}"
    );
    thread::sleep(Duration::from_millis(50));
    assert!(!file.exists());
    launched.proceed();
    launched.finish();
    assert_eq!(fs::read_to_string(file).unwrap(), "x\n");
}

#[test]
fn the_c_library_is_told_before_it_runs() {
    let mut launched = launch(&words(&["sh", "-c", "exit 3"])).unwrap();
    assert_eq!(launched.expect(), Event::Held);
    launched.proceed();
    let (mut mapped, mut started) = (Vec::new(), false);
    let last = loop {
        match launched.expect() {
            Event::Mapped(address) => mapped.push((address, launched.maps())),
            Event::Started => started = true,
            other => break other,
        }
        launched.proceed();
    };
    assert_eq!(last, Event::Exiting);
    assert!(started);
    let first = mapped
        .iter()
        .find(|(_, maps)| maps.contains("libc.so"))
        .expect("libc told");
    let line = format!("{:x}-", first.0);
    let line = first
        .1
        .lines()
        .find(|text| text.starts_with(&line))
        .expect("mapped where told");
    assert!(line.contains("r-xp"), "{line}");
    assert!(!first.1.contains("[heap]"), "something has allocated: {}", first.1);
    launched.proceed();
    assert_eq!(launched.expect(), Event::Ended(Exit::Status(3)));
    assert_eq!(launched.blocking_next(), None);
}

#[test]
fn every_way_to_end_is_told_with_memory_in_place() {
    let shell = |script| events(&["sh", "-c", script]);
    for (script, exit) in [
        ("exit 0", Exit::Status(0)),
        ("exit 77", Exit::Status(77)),
        ("kill -KILL $$; sleep 9", Exit::Signal(libc::SIGKILL)),
        ("kill -SEGV $$; sleep 9", Exit::Signal(libc::SIGSEGV)),
        ("kill -TERM $$; sleep 9", Exit::Signal(libc::SIGTERM)),
        ("kill -34 $$; sleep 9", Exit::Signal(34)),
    ] {
        let (events, maps) = shell(script);
        assert_eq!(events, ends_with(exit), "{script}");
        assert!(maps.contains("libc.so"), "{script}: {maps}");
    }
}

#[test]
fn every_way_to_end_of_a_threaded_program_too() {
    let waits = "for (;;) pause();";
    for (thread, body, exit) in [
        (waits, "return 5;", Exit::Status(5)),
        (waits, "_exit(6);", Exit::Status(6)),
        ("usleep(20000); exit(7);", waits, Exit::Status(7)),
        ("usleep(20000); _exit(8);", waits, Exit::Status(8)),
        (
            "usleep(20000); *(volatile int *)0 = 1;",
            waits,
            Exit::Signal(libc::SIGSEGV),
        ),
        (
            "for (;;) malloc(9);",
            "usleep(20000); kill(getpid(), SIGKILL); pause();",
            Exit::Signal(libc::SIGKILL),
        ),
        (
            "pthread_kill(pthread_self(), SIGTERM); pause();",
            waits,
            Exit::Signal(libc::SIGTERM),
        ),
        ("", "pthread_join(other, 0); pthread_exit(0);", Exit::Status(0)),
    ] {
        let Some((events, maps)) = with_thread(thread, body) else {
            return;
        };
        assert_eq!(events, ends_with(exit), "thread {thread} main {body}");
        assert!(
            maps.contains("libc.so") && maps.contains("[heap]"),
            "thread {thread} main {body}: {maps}"
        );
    }
}

#[test]
fn a_main_thread_that_leaves_is_not_the_end() {
    let Some((events, _)) = with_thread("usleep(50000); exit(9);", "pthread_exit(0);") else {
        return;
    };
    assert_eq!(events, [Event::Held, Event::LeaderGone, Event::Ended(Exit::Status(9))]);
}

#[test]
fn another_program_is_told_and_its_library_too() {
    let mut launched = launch(&words(&["sh", "-c", "exec sh -c 'exit 4'"])).unwrap();
    let (events, _) = launched.finish();
    let place = events
        .iter()
        .position(|event| *event == Event::Executed)
        .expect("exec told");
    let mapped = |events: &[Event]| events.iter().any(|event| matches!(event, Event::Mapped(_)));
    assert!(mapped(&events[..place]) && mapped(&events[place..]), "{events:?}");
    assert!(!events[..place].contains(&Event::Exiting), "{events:?}");
    assert_eq!(
        events[events.len() - 2..],
        [Event::Exiting, Event::Ended(Exit::Status(4))]
    );
}

#[test]
fn another_program_executed_by_a_thread_is_told() {
    let thread = "usleep(20000); execlp(\"sh\", \"sh\", \"-c\", \"sleep 0.2; exit 4\", (char *)0);";
    let Some((events, maps)) = with_thread(thread, "for (;;) pause();") else {
        return;
    };
    assert_eq!(
        events,
        [
            Event::Held,
            Event::Executed,
            Event::Exiting,
            Event::Ended(Exit::Status(4))
        ]
    );
    assert!(maps.contains("sh\n"), "{maps}");
}

#[test]
fn a_static_program_runs_straight_away() {
    let directory = tempfile::tempdir().unwrap();
    let source = "int main(void) { for (int i = 0; i < 5000; i++) getppid(); return 2; }";
    let input = directory.path().join("program.c");
    fs::write(&input, format!("#include <unistd.h>\n{source}")).unwrap();
    let program = directory.path().join("program");
    let linked = Command::new("cc")
        .args(["-static", "-o"])
        .args([&program, &input])
        .output();
    if !linked.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no C compiler, or no static C library");
        return;
    }
    let (events, _) = launch(&words(&[program.to_str().unwrap()])).unwrap().finish();
    let ended = Event::Ended(Exit::Status(2));
    assert_eq!(events, [Event::Held, Event::Started, Event::Exiting, ended]);
}

#[test]
fn job_control_works_as_without_a_tracer() {
    let mut launched = launch(&words(&["sleep", "30"])).unwrap();
    // Its loader is done once no event comes for a while.
    while launched.within(Duration::from_millis(500)).is_some() {
        launched.proceed();
    }
    assert_eq!(launched.state(), Some('S'));
    // Not SIGTSTP: where nobody could continue it, as under a CI service, the kernel lets that pass.
    launched.signal(Signal::SIGSTOP);
    // A group stop under a tracer that listens shows as stopped by the tracer.
    eventually("stops", || matches!(launched.state(), Some('T' | 't')));
    thread::sleep(Duration::from_millis(20));
    assert!(matches!(launched.state(), Some('T' | 't')), "stays stopped");
    launched.signal(Signal::SIGCONT);
    eventually("goes on", || launched.state() == Some('S'));
    launched.signal(Signal::SIGTERM);
    assert_eq!(launched.expect(), Event::Exiting);
    launched.proceed();
    assert_eq!(launched.expect(), Event::Ended(Exit::Signal(libc::SIGTERM)));
}

#[test]
fn handled_signals_reach_their_handler() {
    let script = "trap 'exit 12' TERM; trap ':' USR1; kill -USR1 $$; kill -TERM $$; exit 1";
    assert_eq!(events(&["sh", "-c", script]).0, ends_with(Exit::Status(12)));
}

#[test]
fn dropping_it_lets_it_run() {
    for stops in 0..2 {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let mut launched = launch(&words(&["sh", "-c", "echo x > \"$0\"", file.to_str().unwrap()])).unwrap();
        for _ in 0..stops {
            launched.expect();
            launched.proceed();
        }
        drop(launched);
        eventually("runs to its end", || {
            fs::read_to_string(&file).is_ok_and(|text| text == "x\n")
        });
    }
}

#[test]
fn dropping_it_while_it_is_held_ends_the_tracing() {
    let mut launched = launch(&words(&["sleep", "20"])).unwrap();
    assert_eq!(launched.expect(), Event::Held);
    assert!(launched.is_traced());
    let pid = launched.pid;
    let (_, nobody) = unbounded_channel();
    let (orders, _) = mpsc::channel();
    let other = Launched {
        pid,
        events: nobody,
        orders,
    };
    drop(launched);
    eventually("is traced by nobody", || !other.is_traced());
    eventually("sleeps", || other.state() == Some('S'));
    other.signal(Signal::SIGKILL);
}

impl Launched {
    /// Proceeds to the moment when the loader has done.
    fn start(&mut self) {
        while self.expect() != Event::Started {
            self.proceed();
        }
    }
}

#[test]
fn released_it_is_followed_to_its_end_untraced() {
    for (script, exit) in [
        ("grep -q 'TracerPid:.0$' /proc/$$/status && exit 3", Exit::Status(3)),
        ("kill -TERM $$", Exit::Signal(libc::SIGTERM)),
        ("exec sh -c 'exit 4'", Exit::Status(4)),
    ] {
        let mut launched = launch(&words(&["sh", "-c", script])).unwrap();
        launched.start();
        assert!(launched.is_traced() && launched.maps().contains("libc.so"), "{script}");
        launched.release();
        assert_eq!(launched.expect(), Event::Ended(exit), "{script}");
        assert_eq!(launched.blocking_next(), None);
    }
}

#[test]
fn released_when_held_it_runs_straight_away() {
    let mut launched = launch(&words(&["sh", "-c", "exit 5"])).unwrap();
    assert_eq!(launched.expect(), Event::Held);
    launched.release();
    assert_eq!(launched.expect(), Event::Ended(Exit::Status(5)));
}

/// Its tracer would be whoever started it, who then must not leave it stopped at every signal.
#[test]
fn released_it_may_ask_to_be_traced() {
    let directory = tempfile::tempdir().unwrap();
    let source = r#"#include <sys/ptrace.h>
        static volatile int seen; void note(int number) { seen++; }
        int main(int count, char **arguments) {
            if (count > 1) return 7;
            if (ptrace(PTRACE_TRACEME, 0, 0, 0)) return 1;
            signal(SIGUSR1, note); raise(SIGUSR1); raise(SIGUSR1);
            if (seen != 2 || ptrace(PTRACE_TRACEME, 0, 0, 0)) return 2;
            execl(arguments[0], arguments[0], "again", (char *)0); }"#;
    let Some(program) = compiled(directory.path(), source, &[]) else {
        return;
    };
    let mut launched = launch(&words(&[program.to_str().unwrap()])).unwrap();
    launched.start();
    launched.release();
    assert_eq!(launched.expect(), Event::Ended(Exit::Status(7)));
}

#[test]
fn a_proceed_too_many_is_forgotten() {
    let mut launched = launch(&words(&["sh", "-c", "exec true"])).unwrap();
    assert_eq!(launched.expect(), Event::Held);
    launched.proceed();
    let next = launched.expect();
    assert!(matches!(next, Event::Mapped(_)), "{next:?}");
    for _ in 0..9 {
        launched.proceed();
    }
    while launched.expect() != Event::Executed {
        launched.proceed();
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(launched.state(), Some('t'), "still held");
    launched.proceed();
    launched.finish();
}

#[test]
fn what_cannot_be_started_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    fs::write(&plain, "exit 0\n").unwrap();
    let error = |program: &[&str]| launch(&words(program)).unwrap_err().to_string();
    let missing = error(&["leaktrace-no-such-command", "x"]);
    assert!(
        missing.starts_with("cannot start 'leaktrace-no-such-command': no such command"),
        "{missing}"
    );
    assert!(error(&["/nowhere/at all"]).starts_with("cannot start '/nowhere/at all': no such command"));
    let denied = error(&[plain.to_str().unwrap()]);
    assert!(denied.contains("plain': permission denied"), "{denied}");
    assert!(error(&["/"]).contains("permission denied"));
    assert!(error(&["true", "a\0b"]).contains("NUL"));
    assert!(error(&[]).starts_with("no command to start"));
}

#[test]
fn a_script_without_a_first_line_is_run_by_the_shell() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, "exit 21\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, executable).unwrap();
    assert_eq!(events(&[script.to_str().unwrap()]).0, ends_with(Exit::Status(21)));
}

#[test]
fn signals_are_as_a_shell_would_leave_them() {
    let script = "cat /proc/self/status > \"$0\"";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    launch(&words(&["sh", "-c", script, file.to_str().unwrap()]))
        .unwrap()
        .finish();
    let text = fs::read_to_string(file).unwrap();
    let mask = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches([':', '\t']), 16).unwrap()
    };
    let pipe = 1 << (libc::SIGPIPE - 1);
    assert_eq!(
        (mask("SigBlk"), mask("SigIgn") & pipe, mask("SigCgt")),
        (0, 0, 0),
        "{text}"
    );
}

#[test]
fn runs_as_the_user_who_called_sudo() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, mode) in [(directory.path(), 0o777), (file.as_path(), 0o666)] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let (user, group) = (Uid::from_raw(65_534), Gid::from_raw(65_533));
    let variables = vec![("HOME", OsString::from("/home of theirs"))];
    let identity = Identity {
        user,
        group,
        groups: vec![group, Gid::from_raw(65_532)],
        variables,
    };
    let script = "(grep -E '^(Uid|Gid|Groups|CapEff):' /proc/self/status; echo \"$HOME\"; echo \"$SUDO_UID\") > \"$0\"";
    let (events, maps) = launch_as(&words(&["sh", "-c", script, file.to_str().unwrap()]), Some(identity))
        .unwrap()
        .finish();
    assert_eq!(events.last(), Some(&Event::Ended(Exit::Status(0))));
    assert!(maps.contains("libc.so"));
    let expected = "Uid:\t65534\t65534\t65534\t65534\nGid:\t65533\t65533\t65533\t65533\nGroups:\t65532 65533 \n\
        CapEff:\t0000000000000000\n/home of theirs\n\n";
    assert_eq!(fs::read_to_string(file).unwrap(), expected);
}

#[test]
fn python_runs_under_it() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: no python3");
        return;
    }
    let script = "import subprocess, threading, sys
threads = [threading.Thread(target=lambda: subprocess.run(['true'])) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]; sys.exit(33)";
    let (events, maps) = events(&["python3", "-c", script]);
    assert_eq!(events.last(), Some(&Event::Ended(Exit::Status(33))));
    assert!(
        events.contains(&Event::Exiting) && maps.contains("libc.so"),
        "{events:?}"
    );
}

/// Not a test by itself: started by the next one, to be killed.
#[test]
fn helper_that_is_killed() {
    let Ok(arguments) = std::env::var("LEAKTRACE_TEST_HELPER") else {
        return;
    };
    let (stops, file) = arguments.split_once(' ').unwrap();
    let mut launched = launch(&words(&["sh", "-c", "sleep 1; echo x > \"$0\"", file])).unwrap();
    for _ in 0..stops.parse().unwrap() {
        launched.expect();
        launched.proceed();
    }
    launched.within(Duration::from_millis(200));
    assert!(!Path::new(file).exists(), "killed too late");
    kill(Pid::this(), Signal::SIGKILL).unwrap();
}

#[test]
fn killing_leaktrace_lets_it_run() {
    // Held, at its C library, and running.
    for stops in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let mut helper = Command::new(std::env::current_exe().unwrap());
        helper.args(["--exact", "target::launch::tests::helper_that_is_killed"]);
        helper.env("LEAKTRACE_TEST_HELPER", format!("{stops} {}", file.display()));
        let status = helper.output().unwrap().status;
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGKILL),
            "{stops}"
        );
        eventually("runs to its end", || {
            fs::read_to_string(&file).is_ok_and(|text| text == "x\n")
        });
    }
}
