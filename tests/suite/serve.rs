//! `leaktrace serve`: the heap of a native program over HTTP, to the byte, whatever its clients do.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use leaktrace_tests::child::{Ended, PATIENCE};
use leaktrace_tests::fixture::{Fixture, Running};
use leaktrace_tests::http::{self, Answer, connect};
use leaktrace_tests::needs::Need;
use leaktrace_tests::pprof;
use leaktrace_tests::served::{Served, serve};
use leaktrace_tests::tracer::leaktrace;
use leaktrace_tests::trial::{TRACES, traced, trial};
use leaktrace_tests::truth::Truth;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

pub fn trials() -> Vec<Trial> {
    let with_go = [TRACES, &[Need::Program("go")]].concat();
    vec![
        trial("serve::heap_to_the_byte", &with_go, heap_to_the_byte),
        trial("serve::differences", &with_go, differences),
        trial("serve::older_profiles_as_base", &with_go, older_profiles_as_base),
        traced("serve::pages", pages),
        traced("serve::refusals", refusals),
        traced("serve::many_at_once", many_at_once),
        trial("serve::exact_under_requests", &with_go, exact_under_requests),
        traced("serve::clients_that_stall", clients_that_stall),
        traced("serve::the_process_ends", the_process_ends),
        traced("serve::told_to_end", told_to_end),
        trial("serve::another_program", &with_go, another_program),
        traced("serve::nowhere_to_listen", nowhere_to_listen),
        traced("serve::everybody_may_ask", everybody_may_ask),
    ]
}

/// A fixture that is served, at its first gate.
fn served(name: &str) -> Result<(Running, Served)> {
    let running = Fixture::compile(name)?.start(&[])?;
    let served = serve(running.pid(), &[])?;
    Ok((running, served))
}

/// A truth as a profile has it: objects and bytes allocated, objects and bytes in use.
fn expected(truth: &Truth) -> BTreeMap<String, Vec<i64>> {
    let values = |name: &String, one: &leaktrace_tests::truth::Amounts| {
        let values = [one.allocated_count, one.allocated_bytes, one.live_count, one.live_bytes];
        (name.clone(), values.map(u64::cast_signed).to_vec())
    };
    truth.sites.iter().map(|(name, one)| values(name, one)).collect()
}

const KINDS: [&str; 4] = [
    "alloc_objects/count",
    "alloc_space/bytes",
    "inuse_objects/count",
    "inuse_space/bytes",
];

/// As `go tool pprof` reads it from the address, and in the text form.
fn heap_to_the_byte() -> Result<()> {
    let (mut running, served) = served("malloc")?;
    let truth = running.play()?;
    for (name, default) in [
        ("heap", "inuse_space/bytes"),
        ("allocs", "alloc_space/bytes"),
        ("heap?gc=1", "inuse_space/bytes"),
    ] {
        let raw = pprof::read(&served.at(name))?;
        ensure!(
            raw.kinds == KINDS && raw.default.as_deref() == Some(default),
            "{name}: {raw:?}"
        );
        ensure!(
            raw.by_function() == expected(&truth),
            "{name}: {raw:?}, true is {truth:?}"
        );
    }
    let top = pprof::tool(&["-top", "-unit=B", "-sample_index=inuse_space", &served.at("heap")])?;
    ensure!(top.contains("1045B   100%   100%      1045B   100%  kept"), "{top}");
    let text = served.get("heap?debug=1")?.text();
    let total = truth.total();
    let head = format!(
        "heap profile: {}: {} [{}: {}] @ heap/2",
        total.live_count, total.live_bytes, total.allocated_count, total.allocated_bytes
    );
    ensure!(text.lines().next() == Some(head.as_str()), "{text}");
    ensure!(text.contains("\n10: 1045 [10: 1045] @ 0x"), "{text}");
    ensure!(
        text.contains("\tkept\t") && text.contains("fixtures/malloc.c:4\n"),
        "{text}"
    );
    // What reads the old form reads it too.
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), &text)?;
    let legacy = pprof::read(&file.path().to_string_lossy())?;
    let sum: i64 = legacy.samples.iter().filter_map(|sample| sample.values.last()).sum();
    ensure!(sum == total.live_bytes.cast_signed(), "{legacy:?}");
    served.stop()?;
    running.end_well()
}

/// Asks in a thread, and lets the fixture run while the answer is waited for.
fn in_between(served: &Served, name: &str, what: impl FnOnce() -> Result<Truth>) -> Result<(Answer, Truth)> {
    let url = served.at(name);
    let asked = thread::spawn(move || http::get(&url));
    thread::sleep(Duration::from_millis(500));
    let truth = what()?;
    let answer = asked.join().map_err(|_| anyhow!("the client has panicked"))??;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok((answer, truth))
}

fn read_saved(answer: &Answer) -> Result<pprof::Raw> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), &answer.body)?;
    pprof::read(&file.path().to_string_lossy())
}

/// What happens between two looks, all of it and nothing else.
fn differences() -> Result<()> {
    let (mut running, served) = served("malloc")?;
    let (answer, truth) = in_between(&served, "heap?seconds=2", || running.play())?;
    ensure!(
        answer.header("content-disposition") == "attachment; filename=\"heap-delta\"",
        "{answer:?}"
    );
    ensure!(
        read_saved(&answer)?.by_function() == expected(&truth),
        "true is {truth:?}"
    );
    let nothing = pprof::read(&served.at("allocs?seconds=1"))?;
    ensure!(nothing.samples.is_empty(), "{nothing:?}");
    served.stop()?;
    running.end_well()
}

/// As people use it: keep a profile, later see what has become more, with pprof's own subtraction.
fn older_profiles_as_base() -> Result<()> {
    let (mut running, served) = served("malloc")?;
    let base = tempfile::NamedTempFile::new()?;
    fs::write(base.path(), served.get("heap")?.body)?;
    running.play()?;
    for option in ["-base", "-diff_base"] {
        let base = base.path().to_string_lossy();
        let top = pprof::tool(&["-top", "-sample_index=inuse_objects", option, &base, &served.at("heap")])?;
        let kept = top.lines().find(|line| line.ends_with(" kept")).unwrap_or_default();
        ensure!(kept.split_whitespace().next() == Some("10"), "{top}");
    }
    served.stop()?;
    running.end_well()
}

/// The index page and all that it leads to.
fn pages() -> Result<()> {
    let (mut running, served) = served("malloc")?;
    running.play()?;
    let index = served.get("")?;
    ensure!(index.header("content-type") == "text/html; charset=utf-8", "{index:?}");
    let text = index.text();
    ensure!(
        text.contains(&format!("malloc (process {})", running.pid())) && text.contains("1,045 B"),
        "{text}"
    );
    ensure!(
        !text.contains("<script") && !text.contains("src="),
        "the page needs more than itself: {text}"
    );
    for link in text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        let url = match link.strip_prefix('/') {
            Some(rooted) => format!("http://{}/{rooted}", http::host(&served.url)),
            None => served.at(link),
        };
        let (answer, head) = (http::get(&url)?, http::request(&url, "HEAD", "")?);
        ensure!(
            answer.status == 200 && !answer.body.is_empty(),
            "{link}: {}",
            answer.status
        );
        ensure!(head.status == 200 && head.body.is_empty(), "{link}: {head:?}");
        ensure!(
            head.header("content-type") == answer.header("content-type"),
            "{link}: {head:?}"
        );
    }
    let host = http::host(&served.url);
    for from in [format!("http://{host}/"), format!("http://{host}/debug/pprof")] {
        let answer = http::get(&from)?;
        ensure!(
            answer.status == 302 && answer.header("location") == "/debug/pprof/",
            "{from}: {answer:?}"
        );
    }
    let saved = http::get(&format!("http://{host}/profile.json"))?.text();
    ensure!(
        leaktrace_tests::profile::Profile::parse(&saved)?
            .of_function("kept")
            .live_bytes
            == 1045
    );
    let picture = http::get(&format!("http://{host}/flamegraph.svg"))?;
    ensure!(
        picture.header("content-type") == "image/svg+xml" && picture.text().contains("kept"),
        "{picture:?}"
    );
    let line = fs::read(format!("/proc/{}/cmdline", running.pid()))?;
    ensure!(
        served.get("cmdline")?.body == line.strip_suffix(b"\0").unwrap_or(&line),
        "cmdline"
    );
    served.stop()?;
    running.end_well()
}

/// What is not there is said in a line, with the status that fits.
fn refusals() -> Result<()> {
    let (running, served) = served("malloc")?;
    for (method, name, headers, status, word) in [
        ("GET", "mutex", "", 404, "no mutex profile"),
        ("GET", "block", "", 404, "no block profile"),
        ("GET", "threadcreate", "", 404, "heap, allocs"),
        ("GET", "nonsense", "", 404, "no such profile"),
        ("GET", "../../etc/passwd", "", 404, "no such profile"),
        ("GET", "goroutine", "", 404, "no Go program"),
        ("GET", "goroutineleak?debug=2", "", 404, "no Go program"),
        ("GET", "profile?seconds=1", "", 501, "perf"),
        ("GET", "trace", "", 501, "no execution trace"),
        ("GET", "symbol", "", 501, "symbols"),
        ("GET", "heap?seconds=0", "", 400, "from 1 to 3600"),
        ("GET", "heap?seconds=soon", "", 400, "from 1 to 3600"),
        ("GET", "heap?seconds=1&debug=1", "", 400, "leave one out"),
        ("POST", "heap", "", 405, "only GET"),
        ("DELETE", "heap", "", 405, "only GET"),
        ("GET", "heap", "Content-Length: 1\r\n", 413, "no body"),
        ("POST", "symbol", "Transfer-Encoding: chunked\r\n", 413, "no body"),
        ("GET", "heap", "Host: rebound.example\r\n", 403, "127.0.0.1"),
    ] {
        let answer = http::request(&served.at(name), method, headers)?;
        let text = answer.text();
        ensure!(
            answer.status == status && text.contains(word),
            "{method} {name} {headers}: {answer:?}"
        );
        ensure!(text.lines().count() == 1 && text.ends_with('\n'), "{text:?}");
    }
    // By a name of this machine.
    let ours = http::request(&served.at("heap"), "GET", "Host: localhost:1\r\n")?;
    ensure!(ours.status == 200, "{ours:?}");
    served.stop()?;
    running.play_to_the_end()
}

/// All are answered, and all with the same.
fn many_at_once() -> Result<()> {
    let (mut running, served) = served("malloc")?;
    let truth = running.play()?;
    let url = served.at("heap?debug=1");
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let url = url.clone();
            thread::spawn(move || http::get(&url))
        })
        .collect();
    for client in clients {
        let answer = client.join().map_err(|_| anyhow!("a client has panicked"))??;
        let text = answer.text();
        ensure!(answer.status == 200, "{text}");
        let head = format!(
            "heap profile: {}: {} ",
            truth.total().live_count,
            truth.total().live_bytes
        );
        ensure!(text.starts_with(&head), "{text}");
    }
    served.stop()?;
    running.end_well()
}

/// A program that allocates as fast as it can, and clients that ask as fast as they can: nothing is lost, and every answer
/// is whole.
fn exact_under_requests() -> Result<()> {
    let (mut running, served) = served("hammer")?;
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = ["heap", "allocs?debug=1", "heap?seconds=1", ""]
        .into_iter()
        .map(|name| {
            let (url, done) = (served.at(name), Arc::clone(&done));
            thread::spawn(move || -> Result<u32> {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = http::get(&url)?;
                    let length: usize = answer.header("content-length").parse()?;
                    ensure!(answer.status == 200 && answer.body.len() == length, "{}", answer.text());
                    asked += 1;
                }
                Ok(asked)
            })
        })
        .collect();
    let truth = running.play();
    done.store(true, Ordering::Relaxed);
    for client in clients {
        let asked = client.join().map_err(|_| anyhow!("a client has panicked"))??;
        ensure!(asked > 0, "a client was never answered");
    }
    let found = pprof::read(&served.at("heap"))?.by_function();
    for (name, values) in expected(&truth?) {
        ensure!(
            found.get(&name) == Some(&values),
            "{name}: {:?}, true is {values:?}",
            found.get(&name)
        );
    }
    let text = served.get("heap?debug=1")?.text();
    ensure!(!text.contains("# lost"), "{text}");
    served.stop()?;
    running.end_well()
}

/// Clients that say nothing, say half of something, or take nothing of what they asked for keep nobody else waiting, and
/// the trace loses nothing. In the end they are let go.
fn clients_that_stall() -> Result<()> {
    let (mut running, served) = served("malloc")?;
    let mut stalled = Vec::new();
    for at in 0..30 {
        let mut stream = connect(&served.url)?;
        match at % 3 {
            0 => {}
            1 => stream.write_all(b"GET /debug/pprof/heap HTTP/1.1\r\nHost: local")?,
            _ => stream.write_all(&b"GET /profile.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200))?,
        }
        stalled.push(stream);
    }
    let truth = running.play()?;
    let since = Instant::now();
    let text = served.get("heap?debug=1")?.text();
    let took = since.elapsed();
    ensure!(took < Duration::from_secs(5), "it took {took:?}");
    ensure!(text.starts_with(&format!(
        "heap profile: {}: {} ",
        truth.total().live_count,
        truth.total().live_bytes
    )));
    // Those who have not asked are hung up on; those who do not read are, too, when nothing more fits.
    let mut silent = stalled.swap_remove(0);
    silent.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut nothing = Vec::new();
    let heard = silent
        .read_to_end(&mut nothing)
        .context("a client that says nothing is still connected")?;
    ensure!(heard == 0 || nothing.starts_with(b"HTTP/1.1 408"), "{nothing:?}");
    served.stop()?;
    running.end_well()
}

fn ended_line(ended: &Ended, pid: u32) -> Result<()> {
    let line = format!("leaktrace: process {pid} has ended");
    ensure!(ended.err.contains(&line), "{:?}", ended.err);
    Ok(())
}

/// Who still waits gets an answer of what there was, and leaktrace ends well.
fn the_process_ends() -> Result<()> {
    let (mut running, served) = served("malloc")?;
    let pid = running.pid();
    let since = Instant::now();
    let (answer, truth) = {
        let url = served.at("heap?seconds=600");
        let asked = thread::spawn(move || http::get(&url));
        thread::sleep(Duration::from_millis(500));
        let truth = running.play()?;
        running.end_well()?;
        (asked.join().map_err(|_| anyhow!("the client has panicked"))??, truth)
    };
    ensure!(since.elapsed() < PATIENCE, "it was waited for");
    ensure!(
        answer.status == 200 && answer.header("x-leaktrace-note").contains("shorter"),
        "{answer:?}"
    );
    ensure!(truth.total().live_bytes == 1045);
    ended_line(&served.finish(Duration::from_secs(10))?, pid)
}

/// Told to end, it ends at once and cleanly, also with requests under way; the process runs on unharmed.
fn told_to_end() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (running, served) = served("malloc")?;
        let url = served.at("heap?seconds=600");
        let asked = thread::spawn(move || http::get(&url));
        thread::sleep(Duration::from_millis(300));
        served.child.signal(signal)?;
        let ended = served.finish(Duration::from_secs(10))?;
        let answer = asked.join().map_err(|_| anyhow!("the client has panicked"))??;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(ended.err.len() == 1, "{:?}", ended.err);
        running.play_to_the_end()?;
    }
    Ok(())
}

/// A program that takes the place of the one served is served in its turn; no difference is made between the two.
fn another_program() -> Result<()> {
    let next = Fixture::compile("many")?;
    let mut running = Fixture::compile("becomes")?.start(&[next.text()?])?;
    let mut served = serve(running.pid(), &[])?;
    let url = served.at("heap?seconds=6");
    let asked = thread::spawn(move || http::get(&url));
    thread::sleep(Duration::from_millis(500));
    running.go()?;
    running.child.out.expect("READY")?;
    served.child.err.expect("leaktrace: tracing many")?;
    let truth = running.play()?;
    let raw = pprof::read(&served.at("heap"))?;
    let found = raw.by_function();
    for (name, values) in expected(&truth) {
        ensure!(
            found.get(&name) == Some(&values),
            "{name}: {:?}, true is {values:?}",
            found.get(&name)
        );
    }
    ensure!(!found.contains_key("gone"), "{found:?}");
    let answer = asked.join().map_err(|_| anyhow!("the client has panicked"))??;
    ensure!(
        answer.status == 503 && answer.text().contains("another program"),
        "{answer:?}"
    );
    served.stop()?;
    running.end_well()
}

/// Said in one line, before the process is touched; wrong usage where it is that.
fn nowhere_to_listen() -> Result<()> {
    let running = Fixture::compile("malloc")?.start(&[])?;
    let pid = running.pid().to_string();
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for (listen, code, word) in [
        (address.as_str(), 1, "another program does already"),
        ("192.0.2.1:6060", 1, "no such address"),
        ("6060", 2, "127.0.0.1:6060"),
        (":6060", 2, "0.0.0.0:6060"),
        ("example.com:80", 2, "no address"),
        ("127.0.0.1:99999", 2, "no port"),
    ] {
        let ended = leaktrace(&["serve", "--pid", &pid, "--listen", listen])?;
        ensure!(
            ended.status.code() == Some(code) && ended.out.is_empty(),
            "{listen}: {ended:?}"
        );
        ensure!(
            ended.err.len() == 1 && ended.err[0].contains(word),
            "{listen}: {:?}",
            ended.err
        );
    }
    let nobody = leaktrace(&["serve", "--pid", "999999999", "--listen", "127.0.0.1:0"])?;
    ensure!(
        nobody.status.code() == Some(1) && nobody.err[0].contains("no process"),
        "{nobody:?}"
    );
    running.play_to_the_end()
}

/// Not for this machine alone: said once, and any name will do.
fn everybody_may_ask() -> Result<()> {
    let running = Fixture::compile("malloc")?.start(&[])?;
    let pid = running.pid().to_string();
    let mut command = leaktrace_tests::tracer::command();
    command.args(["serve", "--pid", &pid, "--listen", "0.0.0.0:0", "--max-stacks", "16"]);
    let mut child = leaktrace_tests::child::Child::spawn(&mut command)?;
    let url = child.out.expect("http://0.0.0.0:")?;
    let served = Served {
        child,
        url: url.replace("0.0.0.0", "127.0.0.1"),
    };
    let answer = http::request(&served.at("heap"), "GET", "Host: build-7.example\r\n")?;
    ensure!(answer.status == 200, "{answer:?}");
    let ended = served.stop()?;
    let warnings = ended
        .err
        .iter()
        .filter(|line| line.contains("whoever reaches it"))
        .count();
    ensure!(warnings == 1, "{:?}", ended.err);
    running.play_to_the_end()
}
