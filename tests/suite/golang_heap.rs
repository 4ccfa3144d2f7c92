//! The heap of Go programs, against what they count themselves: leaks found and ranked, churn left in peace, every
//! estimate as good as it says it is.

use std::env;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, PATIENCE};
use leaktrace_tests::estimate::{
    Claim, HeapTruth, are_of_size, claims, least_that_hold, object_size, own_function, sum,
};
use leaktrace_tests::golang::{self, Build, Test, Toolchain};
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::TRACES;
use libtest_mimic::Trial;
use serde_json::Value;

/// Run with each version of Go.
const TESTS: &[(&str, Test)] = &[
    ("as_the_program_counts", as_the_program_counts),
    ("without_collections", without_collections),
    ("a_process_that_ends", a_process_that_ends),
    ("killed_at_random_moments", killed_at_random_moments),
    ("gos_own_profile", gos_own_profile),
    ("with_c_beside_it", with_c_beside_it),
];

/// How a program is built, and whether Go's own profile is in it.
const USUAL: &[(Build, bool)] = &[(Build::StrippedPie, false), (Build::Plain, true)];
const ALL: &[(Build, bool)] = &[
    (Build::StrippedPie, false),
    (Build::Plain, true),
    (Build::Stripped, false),
    (Build::Plain, false),
    (Build::Stripped, true),
    (Build::StrippedPie, true),
];

/// How long the program leaks.
const LEAKING: Duration = Duration::from_secs(12);

pub fn trials() -> Vec<Trial> {
    golang::trials("golang_heap", TRACES, TESTS)
}

/// The fixture, as far as READY.
fn start(
    toolchain: &Toolchain,
    (build, profiled): (Build, bool),
    args: &[&str],
    env: &[(&str, &str)],
) -> Result<Child> {
    let files: &[&str] = if profiled {
        &["heap", "heap_sites", "heap_profiled"]
    } else {
        &["heap", "heap_sites"]
    };
    let mut command = Command::new(toolchain.build_of(files, build)?);
    command.args(args).envs(env.iter().copied());
    let mut child = Child::spawn(&mut command)?;
    child.out.expect("READY")?;
    Ok(child)
}

fn command(child: &mut Child, line: &str, answer: &str) -> Result<()> {
    child.write(&format!("{line}\n"))?;
    child.out.expect(answer).map(drop)
}

/// The fixture ends as it wants to: nothing was done to it.
fn end(mut child: Child) -> Result<()> {
    child.write("end\n")?;
    let ended = child.finish(PATIENCE)?;
    ensure!(
        ended.status.success(),
        "the fixture ended with {}: {:?}",
        ended.status,
        ended.err
    );
    Ok(())
}

fn number(value: &Value, field: &str) -> Result<u64> {
    value[field]
        .as_u64()
        .with_context(|| format!("no number {field:?} in {value}"))
}

/// Waits until so many more collections have been.
fn collections(child: &mut Child, more: u64) -> Result<HeapTruth> {
    let until = Instant::now() + PATIENCE;
    let first = HeapTruth::ask(child)?;
    loop {
        let truth = HeapTruth::ask(child)?;
        if truth.collections >= first.collections + more {
            return Ok(truth);
        }
        ensure!(Instant::now() < until, "the fixture does not collect: {truth:?}");
        sleep(Duration::from_millis(20));
    }
}

/// No estimate that matters is ever far off, and all are as near as they say in nine cases of ten; what is no estimate is
/// right.
fn as_the_program_counts(toolchain: &Toolchain) -> Result<()> {
    let exhaustive = env::var_os("LEAKTRACE_EXHAUSTIVE").is_some();
    let mut all = Vec::new();
    for &how in if exhaustive { ALL } else { USUAL } {
        all.extend(one_run(toolchain, how).with_context(|| format!("{how:?}"))?);
    }
    let told: Vec<String> = all.iter().filter(|claim| !claim.holds(1.0)).map(Claim::tell).collect();
    let (held, least) = (all.len() - told.len(), least_that_hold(all.len(), 0.9));
    ensure!(
        held >= least,
        "{held} of {} estimates are as near as they say, {least} should be:\n{}",
        all.len(),
        told.join("\n")
    );
    Ok(())
}

/// The fixture at four moments of a trace.
struct Moments {
    unattached: HeapTruth,
    attached: HeapTruth,
    before: HeapTruth,
    after: HeapTruth,
}

fn one_run(toolchain: &Toolchain, how: (Build, bool)) -> Result<Vec<Claim>> {
    let mut child = start(toolchain, how, &["-churn", "1000000"], &[])?;
    let unattached = HeapTruth::ask(&mut child)?;
    let tracer = tracer::attach(child.pid(), &[])?;
    let attached = HeapTruth::ask(&mut child)?;
    command(&mut child, "start", "STARTED")?;
    sleep(LEAKING);
    command(&mut child, "hold", "HELD")?;
    // By then, all that leaked is old enough to be judged.
    let before = collections(&mut child, 4)?;
    let report = tracer.stop()?;
    let after = HeapTruth::ask(&mut child)?;
    end(child)?;
    let profile = &report.profile;
    let moments = Moments {
        unattached,
        attached,
        before,
        after,
    };
    let claims = claims(profile, &moments.before, &moments.after);
    let far: Vec<String> = claims
        .iter()
        .filter(|claim| claim.matters && !claim.holds(3.0))
        .map(Claim::tell)
        .collect();
    let wrong = [
        far,
        misjudged(profile, &moments.before),
        misshapen(profile),
        mistold(profile, &moments),
    ]
    .concat();
    ensure!(
        wrong.is_empty(),
        "{}\nof all that was claimed:\n{}",
        wrong.join("\n"),
        claims.iter().map(Claim::tell).collect::<Vec<_>>().join("\n")
    );
    Ok(claims)
}

/// Where leaks are not first, or what is none is called one.
fn misjudged(profile: &Profile, truth: &HeapTruth) -> Vec<String> {
    let mut wrong = Vec::new();
    let leaks = truth.of_kind("leak");
    let first: Vec<&str> = profile.sites.iter().take(3).map(own_function).collect();
    let expected: Vec<&str> = leaks.iter().take(3).map(|(name, _)| *name).collect();
    if first != expected {
        wrong.push(format!("first come {first:?}, the largest leaks are {expected:?}"));
    }
    for site in &profile.sites {
        let kind = truth
            .sites
            .get(own_function(site))
            .map_or("other", |site| site.kind.as_str());
        let accused = site.verdict == "leak" || site.verdict == "growing";
        let counted = truth.sites.get(own_function(site)).map(|site| site.amounts);
        // What is a small part of its function, or no object of it, has too few samples to be judged, or is the runtime's.
        let own = counted.is_some_and(|counted| {
            are_of_size(site.amounts, object_size(counted))
                && site.amounts.allocated_count * 2 > counted.allocated_count
        });
        let should = expected.contains(&own_function(site));
        if own && accused != should && (should || kind == "churn" || kind == "bounded") {
            wrong.push(format!(
                "{}, {kind}, is called {:?}: {}",
                own_function(site),
                site.verdict,
                site.why
            ));
        }
    }
    for (name, amounts) in truth.of_kind("churn") {
        let found = sum(profile, name, object_size(amounts)).amounts;
        if found.live_count * 1000 > found.allocated_count {
            wrong.push(format!("churn is live: {name} {found:?}"));
        }
    }
    wrong
}

/// What a reader of the profile could not make sense of.
fn misshapen(profile: &Profile) -> Vec<String> {
    let mut wrong = Vec::new();
    for site in &profile.sites {
        let (samples, live) = (site.go["samples"].as_u64(), site.go["live_samples"].as_u64());
        if site.heap.as_deref() != Some("go") || samples < live || site.estimate_error.is_none() {
            wrong.push(format!("a site that is no estimate: {site:?}"));
        }
    }
    if !profile
        .sites
        .is_sorted_by_key(|site| std::cmp::Reverse(site.amounts.live_bytes))
    {
        wrong.push("sites are not by live bytes".to_owned());
    }
    let live: u64 = profile.sites.iter().map(|site| site.amounts.live_bytes).sum();
    // Each is rounded for itself.
    let whole = profile.go["live_bytes"].as_u64().unwrap_or(0);
    if live.abs_diff(whole) > profile.sites.len() as u64 || profile.target.language != "go" {
        wrong.push(format!("the sites have {live} live bytes, the heap has {}", profile.go));
    }
    wrong
}

/// What the runtime knows exactly, and the profile has otherwise.
fn mistold(profile: &Profile, moments: &Moments) -> Vec<String> {
    let (before, after) = (&moments.before, &moments.after);
    let (unattached, attached) = (&moments.unattached, &moments.attached);
    let (go, moment) = (&profile.go, &profile.go["moment"]);
    let since = |early: u64, late: u64| late.saturating_sub(early);
    let told = [
        (
            "collections",
            &moment["collections"],
            before.collections,
            after.collections,
        ),
        ("goroutines", &moment["goroutines"], before.goroutines, after.goroutines),
        ("pause_ns", &moment["pause_ns"], before.pause_ns, after.pause_ns),
        (
            "collections since the attach",
            &go["collections"],
            since(attached.collections, before.collections),
            since(unattached.collections, after.collections),
        ),
        (
            // What is allocated from a span in use is counted when that is given back.
            "counted_bytes",
            &go["counted_bytes"],
            since(attached.total_bytes, before.total_bytes) * 98 / 100,
            since(unattached.total_bytes, after.total_bytes) * 102 / 100,
        ),
    ];
    let right = |found: &Value, least, most| found.as_u64().is_some_and(|found| (least..=most).contains(&found));
    let wrong = told
        .iter()
        .filter(|(_, found, least, most)| !right(found, *least, *most));
    wrong
        .map(|(what, found, least, most)| format!("{what}: {found}, true are {least} to {most}"))
        .collect()
}

/// Without a collection nothing can be judged: nothing is said to be live, and nothing to leak.
fn without_collections(toolchain: &Toolchain) -> Result<()> {
    let mut child = start(
        toolchain,
        (Build::Stripped, false),
        &["-churn", "10000"],
        &[("GOGC", "off")],
    )?;
    let tracer = tracer::attach(child.pid(), &[])?;
    command(&mut child, "start", "STARTED")?;
    sleep(Duration::from_secs(6));
    command(&mut child, "pause", "PAUSED")?;
    let truth = HeapTruth::ask(&mut child)?;
    let report = tracer.stop()?;
    end(child)?;
    let profile = &report.profile;
    ensure!(truth.collections == 0, "it has collected: {truth:?}");
    ensure!(number(&profile.go, "collections")? == 0, "{}", profile.go);
    for site in &profile.sites {
        ensure!(
            site.amounts.live_bytes == 0 && site.verdict == "unknown",
            "{} is judged: {site:?}",
            own_function(site)
        );
    }
    let buffers = sum(profile, "main.newBuffer", 1024);
    ensure!(
        buffers.young_count > 0 && buffers.young_count == buffers.amounts.allocated_count,
        "{buffers:?}"
    );
    ensure!(report.words().contains("collect"), "{}", report.words());
    Ok(())
}

/// What ends while it is traced is reported, with what was found.
fn a_process_that_ends(toolchain: &Toolchain) -> Result<()> {
    let mut child = start(toolchain, (Build::Stripped, false), &[], &[])?;
    let tracer = tracer::attach(child.pid(), &["--interval", "1s"])?;
    command(&mut child, "start", "STARTED")?;
    sleep(Duration::from_millis(3500));
    end(child)?;
    let report = tracer.finish().context("the process has ended")?;
    ensure!(
        report.profile.target.exit == serde_json::json!("ended"),
        "exit {}",
        report.profile.target.exit
    );
    let buffers = sum(&report.profile, "main.newBuffer", 1024);
    ensure!(buffers.amounts.allocated_count > 100, "{buffers:?}");
    Ok(())
}

fn killed_at_random_moments(toolchain: &Toolchain) -> Result<()> {
    let mut child = start(toolchain, (Build::Plain, false), &[], &[])?;
    command(&mut child, "start", "STARTED")?;
    for round in 0..10 {
        let asked = HeapTruth::ask(&mut child)?;
        let tracer = Child::spawn(tracer::command().args(["--pid", &child.pid().to_string()]))?;
        // Not the same moment twice, and more of them while it attaches.
        sleep(Duration::from_millis(30 * round + asked.total_bytes % 30));
        tracer.signal(nix::sys::signal::Signal::SIGKILL)?;
        drop(tracer);
        sleep(Duration::from_millis(50));
        let now = HeapTruth::ask(&mut child).with_context(|| format!("leaktrace was killed in round {round}"))?;
        ensure!(
            now.requests > asked.requests,
            "round {round}: it serves no more: {now:?}"
        );
    }
    end(child)
}

/// What Go's own profile has of each function, scaled up as Go's own tools do, in the fixture's own words.
fn scaled(told: &Value) -> Result<Vec<(String, [f64; 2])>> {
    let rate = number(told, "rate")? as f64;
    let mut all = Vec::new();
    for bucket in told["buckets"].as_array().context("no buckets")? {
        let functions = bucket["functions"].as_array().into_iter().flatten();
        let own = functions
            .filter_map(Value::as_str)
            .find(|name| name.starts_with("main."));
        let scale = |bytes: &str, count: &str| -> Result<f64> {
            let (bytes, count) = (number(bucket, bytes)? as f64, number(bucket, count)? as f64);
            Ok(if count > 0.0 {
                count / (1.0 - (-bytes / count / rate).exp())
            } else {
                0.0
            })
        };
        if let Some(own) = own {
            let numbers = [
                scale("live_bytes", "live_count")?,
                scale("allocated_bytes", "allocated_count")?,
            ];
            all.push((own.to_owned(), numbers));
        }
    }
    Ok(all)
}

/// Where the program has Go's own profile in it, the report has it too, and it is the same.
fn gos_own_profile(toolchain: &Toolchain) -> Result<()> {
    let env = [("HEAP_PROFILE_RATE", "4096")];
    let mut child = start(
        toolchain,
        (Build::Stripped, true),
        &["-churn", "20000", "-stuck", "0"],
        &env,
    )?;
    command(&mut child, "start", "STARTED")?;
    sleep(Duration::from_secs(3));
    command(&mut child, "pause", "PAUSED")?;
    // It is that of the last collection but one.
    command(&mut child, "gc", "COLLECTED")?;
    let report = tracer::attach(child.pid(), &[])?.stop()?;
    child.write("profile\n")?;
    let told = child.out.expect("PROFILE ")?;
    let told: Value = serde_json::from_str(told.trim_start_matches("PROFILE "))?;
    end(child)?;
    let own = &report.profile.go["own_profile"];
    ensure!(own["rate"] == 4096, "Go's own profile is {own}");
    let gos = scaled(&told)?;
    for name in ["main.newBuffer", "main.newSession", "main.newLarge", "main.newText"] {
        let of_name = |sites: &[(String, [f64; 2])], which: usize| -> f64 {
            let of_name = sites.iter().filter(|(own, _)| own == name);
            of_name.map(|(_, numbers)| numbers[which]).sum()
        };
        let ours = ours(own)?;
        for which in 0..2 {
            let (found, expected) = (of_name(&ours, which), of_name(&gos, which));
            ensure!(
                (found - expected).abs() <= 5.0 + expected / 1000.0,
                "{name}: {found}, Go says {expected}"
            );
        }
        ensure!(of_name(&gos, 1) > 0.0, "nothing of {name} in Go's own profile");
    }
    Ok(())
}

/// Live and allocated objects by function, as the report has them.
fn ours(own: &Value) -> Result<Vec<(String, [f64; 2])>> {
    let mut all = Vec::new();
    for site in own["sites"].as_array().context("no sites in Go's own profile")? {
        let frames = site["stack"]["frames"].as_array().into_iter().flatten();
        let name = frames
            .filter_map(|frame| frame["function"].as_str())
            .find(|name| name.starts_with("main."));
        let numbers = [
            number(site, "live_count")? as f64,
            number(site, "allocated_count")? as f64,
        ];
        all.extend(name.map(|name| (name.to_owned(), numbers)));
    }
    Ok(all)
}

/// Of a program with C in it, one report has both: what C allocates to the byte, what Go allocates as an estimate.
fn with_c_beside_it(toolchain: &Toolchain) -> Result<()> {
    let mut child = toolchain.start("cgo", Build::Plain)?;
    let tracer = tracer::attach(child.pid(), &[])?;
    child.write("leak\n")?;
    let line = child.out.expect("TRUTH ")?;
    let truth: Value = serde_json::from_str(line.trim_start_matches("TRUTH "))?;
    let report = tracer.stop()?;
    end(child)?;
    let native = report.profile.of_function("leak_block");
    let expected = (number(&truth, "native_count")?, number(&truth, "native_bytes")?);
    ensure!(
        (native.live_count, native.live_bytes) == expected,
        "{native:?}, true are {expected:?}"
    );
    let mut exact = report.profile.sites_of("leak_block");
    ensure!(
        exact.all(|site| site.heap.is_none() && site.estimate_error.is_none()),
        "an estimate of C"
    );
    let (found, go) = (
        sum(&report.profile, "main.newBuffer", 1024),
        number(&truth, "go_count")? as f64,
    );
    let claim = Claim {
        what: "main.newBuffer live".to_owned(),
        truth: (go, go),
        estimate: found.amounts.live_count as f64,
        error: found.live_error,
        matters: true,
    };
    ensure!(found.amounts.live_count > 0 && claim.holds(3.0), "{}", claim.tell());
    ensure!(report.profile.accounting.complete, "{:?}", report.profile.accounting);
    Ok(())
}
