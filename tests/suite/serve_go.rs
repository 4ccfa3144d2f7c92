//! `leaktrace serve` and Go programs: goroutines over HTTP, in Go's own words.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use leaktrace_tests::child::{Child, PATIENCE};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::golang::{self, Build, Test, Toolchain, Truth};
use leaktrace_tests::http;
use leaktrace_tests::needs::Need;
use leaktrace_tests::pprof;
use leaktrace_tests::served::{Served, serve};
use leaktrace_tests::trial::TRACES;
use libtest_mimic::Trial;

/// Run with each version of Go.
const TESTS: &[(&str, Test)] = &[
    ("goroutines_as_go_tells_them", as_go_tells_them),
    ("leaked_goroutines", leaked_goroutines),
    ("heap_of_a_go_program", heap),
    ("a_program_that_becomes_gos", becomes_go),
];

pub fn trials() -> Vec<Trial> {
    let needs = [TRACES, &[Need::Program("go")]].concat();
    golang::trials("serve", &needs, TESTS)
}

fn started(toolchain: &Toolchain, name: &str) -> Result<(Child, Served)> {
    let child = toolchain.start(name, Build::Stripped)?;
    let served = serve(child.pid(), &[])?;
    Ok((child, served))
}

/// How many goroutines are on each stack, by the lines that tell of it; the main one, which is busy telling, left out. Old
/// versions of Go keep 32 calls of a stack, and the newest 128.
fn blocks(text: &str, shown: fn(&str) -> String) -> BTreeMap<String, u64> {
    let mut blocks = BTreeMap::new();
    let (_, rest) = text.split_once('\n').unwrap_or_default();
    for block in rest.split("\n\n").filter(|block| !block.contains("\tmain.main+")) {
        let (head, lines) = block.split_once('\n').unwrap_or((block, ""));
        if let Some(count) = head
            .split_once(" @ 0x")
            .and_then(|(count, _)| count.parse::<u64>().ok())
        {
            let lines: Vec<String> = lines.lines().take(20).map(shown).collect();
            *blocks.entry(lines.join("\n")).or_default() += count;
        }
    }
    blocks
}

/// Function, file and line. Go has made-up addresses for what is inlined.
fn without_addresses(line: &str) -> String {
    let words: Vec<&str> = line.split('\t').filter(|word| !word.is_empty()).collect();
    let name = words
        .get(2)
        .map_or("", |name| name.rsplit_once("+0x").map_or(name, |(name, _)| name));
    format!("{name} {}", words.get(3).unwrap_or(&""))
}

/// The text of counts, the traces of a panic as they are read in all other tests, and pprof's form by pprof itself.
fn as_go_tells_them(toolchain: &Toolchain) -> Result<()> {
    let (mut child, served) = started(toolchain, "goroutines")?;
    counts(&mut child, &served)?;
    traces(&mut child, &served)?;
    samples(&served)?;
    growth(&mut child, &served)?;

    let index = served.get("")?.text();
    for name in ["heap", "allocs", "goroutine", "goroutineleak", "cmdline"] {
        ensure!(index.contains(&format!("<td><code>{name}</code></td>")), "{index}");
    }
    ensure!(index.contains("<b>126</b><span>goroutines</span>"), "{index}");
    end(child, served)
}

/// The text of counts.
fn counts(child: &mut Child, served: &Served) -> Result<()> {
    child.write("counts\n")?;
    let line = child.out.expect("COUNTS ")?;
    let gos: String = serde_json::from_str(line.trim_start_matches("COUNTS "))?;
    let ours = served.get("goroutine?debug=1")?.text();
    ensure!(ours.starts_with("goroutine profile: total 126\n"), "{ours:.200}");
    let (found, expected) = (blocks(&ours, without_addresses), blocks(&gos, without_addresses));
    ensure!(expected.values().sum::<u64>() == 125, "Go says {gos}");
    ensure!(found == expected, "found {found:#?}\n\nGo says {expected:#?}");
    // Where nothing is inlined, to the letter.
    let (found, expected) = (blocks(&ours, str::to_owned), blocks(&gos, str::to_owned));
    let same = expected
        .iter()
        .filter(|(block, count)| found.get(*block) == Some(count))
        .count();
    ensure!(same >= 5, "{same} are the same: found {ours}\n\nGo says {gos}");
    Ok(())
}

/// The traces of a panic, read as in all other tests.
fn traces(child: &mut Child, served: &Served) -> Result<()> {
    let mut truth = Truth::ask(child)?;
    let gos = truth.told();
    let as_printed = std::mem::take(&mut truth.stacks);
    truth.stacks = served.get("goroutine?debug=2")?.text();
    ensure!(truth.told() == gos, "found {}\n\nGo says {gos:?}", truth.stacks);
    let header = truth.stacks.lines().next().unwrap_or_default();
    ensure!(
        header.starts_with("goroutine 1 [") && header.ends_with("]:"),
        "{header}"
    );
    ensure!(
        creators(&truth.stacks) == creators(&as_printed),
        "found {}\n\nGo says {as_printed}",
        truth.stacks
    );
    Ok(())
}

/// pprof's own form, as it reads it itself.
fn samples(served: &Served) -> Result<()> {
    let raw = pprof::read(&served.at("goroutine"))?;
    ensure!(raw.kinds == ["goroutine/count"] && raw.default.is_none(), "{raw:?}");
    let total: i64 = raw.samples.iter().filter_map(|sample| sample.values.first()).sum();
    let receiving = raw
        .samples
        .iter()
        .filter(|sample| sample.labels.contains("state:[chan receive]"));
    let receiving: i64 = receiving.filter_map(|sample| sample.values.first()).sum();
    ensure!((total, receiving) == (126, 59), "{raw:?}");
    Ok(())
}

/// How many goroutines were made where, and by which, in Go's own words.
fn creators(traces: &str) -> BTreeMap<String, u64> {
    let mut creators = BTreeMap::new();
    for paragraph in traces
        .split("\n\n")
        .filter(|paragraph| !paragraph.starts_with("goroutine 1 "))
    {
        let made = paragraph
            .split_once("\ncreated by ")
            .map_or("", |(_, made)| made.trim_end());
        *creators.entry(made.to_owned()).or_default() += 1;
    }
    creators
}

/// More goroutines, then fewer, between two looks.
fn growth(child: &mut Child, served: &Served) -> Result<()> {
    for (command, answer, change) in [("grow 40\n", "GROWN", 40), ("shrink\n", "SHRUNK", -40)] {
        let url = served.at("goroutine?seconds=2");
        let asked = thread::spawn(move || pprof::read(&url));
        thread::sleep(Duration::from_millis(700));
        child.write(command)?;
        child.out.expect(answer)?;
        let raw = asked.join().map_err(|_| anyhow!("the client has panicked"))??;
        let of_grow = raw
            .samples
            .iter()
            .filter(|one| one.functions.iter().any(|name| name.starts_with("main.grow")));
        let sum: i64 = of_grow.filter_map(|sample| sample.values.first()).sum();
        ensure!(sum == change, "{command}: {raw:?}");
    }
    Ok(())
}

/// Neither the process nor leaktrace has come to harm; who asks too late is told so.
fn end(mut child: Child, served: Served) -> Result<()> {
    let pid = child.pid();
    child.write("end\n")?;
    let ended = child.finish(PATIENCE)?;
    ensure!(
        ended.status.success(),
        "the fixture ended with {}: {:?}",
        ended.status,
        ended.err
    );
    let ended = served.finish(Duration::from_secs(15))?;
    ensure!(
        ended.err.contains(&format!("leaktrace: process {pid} has ended")),
        "{:?}",
        ended.err
    );
    Ok(())
}

/// 24 are leaked. A word that looks like a pointer to what one waits for makes it count as reachable, and with it the one
/// that it could wake: seldom is there one such word, or are there two.
const LEAKED: std::ops::RangeInclusive<i64> = 21..=24;

/// None that can be woken, and nearly all that cannot, in each of the forms.
fn leaked_goroutines(toolchain: &Toolchain) -> Result<()> {
    let (child, served) = started(toolchain, "leaks")?;
    let raw = pprof::read(&served.at("goroutineleak"))?;
    ensure!(raw.kinds == ["goroutineleak/count"], "{raw:?}");
    let total: i64 = raw.samples.iter().filter_map(|sample| sample.values.first()).sum();
    let own = |functions: &[String]| functions.iter().any(|name| name.starts_with("main.leaked"));
    ensure!(raw.samples.iter().all(|sample| own(&sample.functions)), "{raw:?}");
    ensure!(LEAKED.contains(&total), "{raw:?}");
    let text = served.get("goroutineleak?debug=1")?.text();
    let counted = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("goroutineleak profile: total "));
    let counted: i64 = counted.context("no total")?.parse()?;
    ensure!(LEAKED.contains(&counted), "{text}");
    let full = served.get("goroutineleak?debug=2")?.text();
    let marked = full
        .lines()
        .filter(|line| line.starts_with("goroutine ") && line.contains(" (leaked)"))
        .count() as i64;
    ensure!(LEAKED.contains(&marked), "{marked} are marked");
    // All are told of, as Go does.
    ensure!(
        full.contains("main.heldReceive(...)"),
        "none of those that can be woken is told of"
    );
    let refused = http::get(&served.at("goroutineleak?seconds=1&debug=1"))?;
    ensure!(refused.status == 400, "{refused:?}");
    served.stop()?;
    let mut child = child;
    child.write("end\n")?;
    // The fixture sees that all the others can be woken.
    child.out.expect("WOKEN")?;
    Ok(())
}

/// The heap, as estimates that are near the truth, and what becomes more.
fn heap(toolchain: &Toolchain) -> Result<()> {
    let (mut child, served) = started(toolchain, "retained")?;
    let base = tempfile::NamedTempFile::new()?;
    for (times, name) in [(1, "heap"), (2, "heap?gc=1")] {
        child.write("keep 2000\n")?;
        child.out.expect("KEPT")?;
        // Whether objects are live is asked once a second.
        thread::sleep(Duration::from_millis(2500));
        let raw = pprof::read(&served.at(name))?;
        ensure!(raw.default.as_deref() == Some("inuse_space/bytes"), "{raw:?}");
        near(&raw, "main.keepLarge", 3, times * 2000 * 10_000)?;
        near(&raw, "main.keepSmall", 3, times * 200_000 * 100)?;
        near(&raw, "main.keepSmall", 2, times * 200_000)?;
        near(&raw, "main.throwAway", 1, times * 8000 * 10_000)?;
        if times == 1 {
            std::fs::write(base.path(), served.get("heap")?.body)?;
        }
    }
    let older = base.path().to_string_lossy();
    let top = pprof::tool(&["-top", "-diff_base", &older, &served.at("heap")])?;
    ensure!(top.contains("main.keepLarge"), "{top}");
    let text = served.get("heap?debug=1")?.text();
    ensure!(text.contains("# Go's heap is sampled: estimates from "), "{text}");
    end(child, served)
}

/// Within a third: a few hundred samples are rarely that far off.
fn near(raw: &pprof::Raw, function: &str, kind: usize, truth: i64) -> Result<()> {
    let sums = raw.by_function();
    let found = sums
        .get(function)
        .and_then(|values| values.get(kind))
        .copied()
        .unwrap_or(0);
    ensure!(
        (found - truth).abs() * 3 < truth,
        "{function}: {} {found}, true is {truth}; {sums:?}",
        raw.kinds.get(kind).map_or("", String::as_str)
    );
    Ok(())
}

/// Goroutines are those of the program that runs now, which was none of Go's when it was attached to.
fn becomes_go(toolchain: &Toolchain) -> Result<()> {
    let program = toolchain.build("goroutines", Build::Stripped)?;
    let program = program.to_string_lossy();
    let mut running = Fixture::compile("becomes")?.start(&[&program])?;
    let mut served = serve(running.pid(), &[])?;
    let before = http::get(&served.at("goroutine"))?;
    ensure!(before.status == 404, "{before:?}");
    running.go()?;
    running.child.out.expect("READY")?;
    served.child.err.expect("leaktrace: tracing goroutines")?;
    let text = served.get("goroutine?debug=1")?.text();
    ensure!(text.starts_with("goroutine profile: total 126\n"), "{text:.300}");
    let heap = pprof::read(&served.at("heap"))?.by_function();
    ensure!(!heap.contains_key("gone"), "{heap:?}");
    end(running.child, served)
}
