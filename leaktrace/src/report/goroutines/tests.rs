use super::*;
use crate::profile::goroutines::{GoProgram, GoroutineCount, GoroutineStack, Leaks};
use crate::profile::{Ending, Stack, TargetInfo, Window};

fn frame(function: &str, line: u32) -> Frame {
    Frame {
        function: Some(function.to_owned()),
        file: Some("/src/main.go".to_owned()),
        line: Some(line),
        ..Frame::default()
    }
}

fn goroutines() -> Goroutines {
    let site = |id: &str, count, first_count, line| CreationSite {
        id: id.to_owned(),
        created_by: vec![frame("main.serve", line)],
        start: "main.serve.func1".to_owned(),
        count,
        first_count,
        leaked: 0,
        states: [("chan receive".to_owned(), count)].into(),
        longest_wait_ns: Some(180_000_000_000),
    };
    let stack = |count, site, whole| GoroutineStack {
        count,
        state: "chan receive".to_owned(),
        site,
        leaked: 0,
        blocked_on: Vec::new(),
        longest_wait_ns: None,
        stack: Stack {
            whole,
            end: if whole { Ending::Whole } else { Ending::Unknown },
            frames: vec![frame("runtime.gopark", 7), frame("main.serve.func1", 30)],
        },
    };
    Goroutines {
        target: TargetInfo {
            pids: vec![4711],
            command: "./server".to_owned(),
            host: "vm".to_owned(),
            kernel: "6.18".to_owned(),
            ..TargetInfo::default()
        },
        go: GoProgram {
            version: "go1.27.3".to_owned(),
            ..GoProgram::default()
        },
        window: Window {
            duration_ns: 10_000_000_000,
            ..Window::default()
        },
        count: 1200,
        first_count: 1000,
        num_goroutine: 1201,
        system: 5,
        states: [("chan receive".to_owned(), 1200)].into(),
        sites: vec![site("a", 1100, 900, 12), site("b", 100, 100, 20)],
        stacks: vec![stack(1100, 0, true), stack(100, 1, false)],
        timeline: vec![GoroutineCount::default(); 2],
        lost: [("ended_while_read".to_owned(), 3)].into(),
        ..Goroutines::default()
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn plain(top: usize) -> View {
    View { top, ..View::default() }
}

#[test]
fn the_full_report_is_as_documented() {
    insta::assert_snapshot!(written(|out| write_text(&goroutines(), &plain(1), out)));
}

#[test]
fn the_short_report_tells_what_changed() {
    let mut before = goroutines();
    before.count = 1150;
    before.sites[0].count = 1050;
    let text = written(|out| write_interval(Some(&before), &goroutines(), &plain(10), out));
    assert_eq!(
        text,
        "10.0 s: 1,200 goroutines (+50)\n    +50  to 1,100  main.serve  /src/main.go:12 → main.serve.func1\n"
    );
}

#[test]
fn folded_stacks_end_in_the_state() {
    let text = written(|out| write_folded(&goroutines(), out));
    assert_eq!(
        text,
        "[truncated];main.serve.func1;runtime.gopark;[chan receive] 100\nmain.serve.func1;runtime.gopark;[chan receive] 1100\n"
    );
}

#[test]
fn what_is_proven_is_said_where_it_is() {
    let mut told = goroutines();
    told.leaks = Some(Leaks {
        proven: 1000,
        examined: 1200,
        heap_bytes: 3 << 20,
        unreadable_bytes: 0,
    });
    told.stacks[0].leaked = 1000;
    told.stacks[0].blocked_on = ["channel 0xc0", "channel 0xd0", "channel 0xe0"]
        .map(str::to_owned)
        .into();
    let text = written(|out| write_text(&told, &plain(1), out));
    for line in [
        "leaked: 1,000 goroutines that nobody can wake, of 1,200 that wait for channels, mutexes or wait groups, in two \
         looks through 3.0 MiB of heap",
        "    1,100 chan receive; 1,000 leaked, waiting for channel 0xc0, channel 0xd0, …:",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
}
