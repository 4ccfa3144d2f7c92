//! Stacks taken by many threads at once, on fewer processors: none may hold a frame of another's.

use anyhow::{Context, Result, ensure};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::profile::{Frame, Site};
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced;
use libtest_mimic::Trial;

/// As `fixtures/paths.c` has them.
const LEVELS: usize = 14;
const PATHS: usize = 1 << LEVELS;
const ROUNDS: u64 = 62;

pub fn trials() -> Vec<Trial> {
    vec![traced("mixing::a_million_stacks_of_eight_threads", eight_threads)]
}

/// The kernel's mode of preemption is what it is: a test cannot set it where debugfs is locked.
fn eight_threads() -> Result<()> {
    let fixture = Fixture::compile_with("paths", &["-O2", "-g", "-fomit-frame-pointer", "-pthread"])?;
    let mut running = fixture.start(&[])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    let profile = tracer.stop()?.profile;
    running.end_well()?;
    ensure!(
        profile.accounting.lost.is_empty(),
        "lost: {:?}",
        profile.accounting.lost
    );
    let mut seen = vec![0; PATHS];
    for site in &profile.sites {
        if let Some(path) = path_of(site) {
            let amounts = &site.amounts;
            ensure!(site.stack.whole, "path {path} is not whole");
            ensure!(
                amounts.allocated_bytes == amounts.allocated_count * (path as u64 + 1),
                "blocks of another path on path {path}: {amounts:?}"
            );
            *seen.get_mut(path).context("no such path")? += amounts.allocated_count;
        }
    }
    let wrong = seen.iter().position(|count| *count != ROUNDS);
    ensure!(wrong.is_none(), "path {wrong:?} was not seen {ROUNDS} times");
    Ok(())
}

/// The path that a stack shows; none for a stack that does not come from the walk.
fn path_of(site: &Site) -> Option<usize> {
    let frames = site.stack.frames.iter().filter(|frame| !frame.inlined);
    let names: Vec<&str> = frames.map(Frame::name).collect();
    let turns = names.iter().take_while(|name| matches!(**name, "left" | "right"));
    let turns: Vec<bool> = turns.map(|name| *name == "right").collect();
    let from_walker = names.get(turns.len()) == Some(&"walker");
    let path = turns
        .iter()
        .rev()
        .fold(0, |path, right| path << 1 | usize::from(*right));
    (turns.len() == LEVELS && from_walker).then_some(path)
}
