//! The truth itself is tested: valgrind and `LeakSanitizer` say of the fixtures what the fixtures say of themselves.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, Ended, PATIENCE};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::needs::Need;
use leaktrace_tests::oracle::{Leaks, Usage, sanitizer_leaks, valgrind_leaks, valgrind_usage};
use leaktrace_tests::trial::trial;
use leaktrace_tests::truth::{START, Truth};
use libtest_mimic::Trial;

/// Fixtures whose blocks are all from the malloc family, which is what the oracles see.
const OF_THE_HEAP: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "realloc_refused",
    "realloc_chain",
    "reallocarray",
    "aligned",
    "new",
    "shop",
    "handler",
    "longjmp",
    "deep",
    "distinct",
    "chain",
    "many",
    "fork",
    "children",
    "kinds",
    "ends",
];

/// Fixtures that hold blocks on purpose: to the sanitizer, which asks what can be reached, those are no leaks.
const HOLD_ON_PURPOSE: &[&str] = &["kinds"];

/// Fixtures that valgrind miscounts: to it, a realloc that fails has allocated what it was asked for.
const MISCOUNTED: &[&str] = &["realloc_refused"];

/// What the C++ library allocates for itself at its start.
const CPLUSPLUS_POOL: Usage = Usage {
    allocations: 1,
    frees: 1,
    bytes: 72_704,
};

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &fixture in OF_THE_HEAP {
        let needs = [Need::Program("valgrind"), Need::Program("cc")];
        trials.push(trial(format!("oracles::valgrind::{fixture}"), &needs, move || {
            valgrind(fixture)
        }));
        if !HOLD_ON_PURPOSE.contains(&fixture) {
            let needs = [Need::Program("cc")];
            trials.push(trial(format!("oracles::sanitizer::{fixture}"), &needs, move || {
                sanitizer(fixture)
            }));
        }
    }
    trials
}

/// Plays a fixture to its end under a program, and takes its truth.
fn play(command: &mut Command) -> Result<(Truth, Ended)> {
    let mut child = Child::spawn(command.env("TRUTH", "whole"))?;
    child.write("\n\n")?;
    let line = child.out.expect(START);
    let truth = Truth::parse(&line.with_context(|| child.tell())?)?;
    Ok((truth, child.finish(PATIENCE)?))
}

/// What a truth says is outstanding, without the sites that hold nothing.
fn outstanding(truth: &Truth) -> Leaks {
    let held = truth.sites.iter().filter(|(_, amounts)| amounts.live_count > 0);
    held.map(|(name, amounts)| (name.clone(), (amounts.live_bytes, amounts.live_count)))
        .collect()
}

/// Parameters and return types are written differently by everyone: the bare name is enough here.
fn bare(leaks: Leaks) -> Leaks {
    leaks
        .into_iter()
        .map(|(name, sum)| (name.rsplit(' ').next().unwrap_or(&name).to_owned(), sum))
        .collect()
}

fn valgrind(name: &str) -> Result<()> {
    let fixture = Fixture::compile(name)?;
    let mut command = Command::new("valgrind");
    command
        .args([
            "--leak-check=full",
            "--show-leak-kinds=all",
            "--child-silent-after-fork=yes",
        ])
        .arg(&fixture.path);
    let (truth, ended) = play(&mut command)?;
    let found = bare(valgrind_leaks(&ended.err));
    ensure!(
        found == bare(outstanding(&truth)),
        "valgrind finds {found:?}, the fixture says {:?}",
        outstanding(&truth)
    );
    if MISCOUNTED.contains(&name) {
        return Ok(());
    }
    let mut usage = valgrind_usage(&ended.err).with_context(|| ended.err.join("\n"))?;
    if name == "new" {
        usage.allocations -= CPLUSPLUS_POOL.allocations;
        usage.bytes -= CPLUSPLUS_POOL.bytes;
        usage.frees -= CPLUSPLUS_POOL.frees;
    }
    let total = truth.total();
    let freed = total.allocated_count - total.live_count;
    let told = Usage {
        allocations: total.allocated_count,
        frees: freed,
        bytes: total.allocated_bytes,
    };
    ensure!(usage == told, "valgrind counts {usage:?}, the fixture says {told:?}");
    Ok(())
}

/// Runs of the sanitizer, of which one must find all: by chance, something in memory can look like a block's address.
const SANITIZER_RUNS: usize = 8;

fn sanitizer(name: &str) -> Result<()> {
    let mut outcome = sanitizer_once(name);
    for _ in 1..SANITIZER_RUNS {
        if outcome.is_ok() {
            break;
        }
        outcome = sanitizer_once(name);
    }
    outcome
}

fn sanitizer_once(name: &str) -> Result<()> {
    let flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-pthread", "-fsanitize=leak"];
    let fixture = Fixture::compile_with(name, &flags)?;
    let mut command = Command::new(&fixture.path);
    command.env(
        "LSAN_OPTIONS",
        "allocator_may_return_null=1:use_registers=0:use_stacks=0",
    );
    let (truth, ended) = play(&mut command)?;
    let found = bare(sanitizer_leaks(&ended.err));
    let mut told = bare(outstanding(&truth));
    // The sanitizer gives a block of no bytes one.
    told.values_mut().filter(|sum| sum.0 == 0).for_each(|sum| sum.0 = sum.1);
    ensure!(
        found == told,
        "LeakSanitizer finds {found:?}, the fixture says {told:?}\n{}",
        ended.err.join("\n")
    );
    Ok(())
}
