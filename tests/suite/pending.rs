//! Stacks below functions whose return is probed, by another tool or by the trace itself: the return address is not on
//! the stack then, and is shown all the same.

use anyhow::{Result, ensure};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::foreign::ReturnProbe;
use leaktrace_tests::profile::{Frame, Profile};
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced;
use libtest_mimic::Trial;

/// As programs are built: the frame pointer is a register like any other.
const OPTIMISED: &[&str] = &["-O2", "-g", "-fomit-frame-pointer", "-pthread"];

pub fn trials() -> Vec<Trial> {
    vec![
        traced("pending::somebody_else_s_return_probes", foreign),
        traced("pending::two_on_one_return_address", tail_call),
        traced("pending::a_handler_over_a_mapping_call", handler),
    ]
}

fn foreign() -> Result<()> {
    traced_under("chain", &["chain_first", "chain_second", "main"], |profile| {
        expect(profile, "chain_third", &["chain_second", "chain_first", "main"], 1)
    })
}

fn tail_call() -> Result<()> {
    traced_under("tail", &["last", "jumps", "calls"], |profile| {
        expect(profile, "last", &["calls", "main"], 3)
    })
}

/// The mapping call's return is watched by the trace, and the handler's stack goes through it.
fn handler() -> Result<()> {
    traced_under("handler_in_munmap", &[], |profile| {
        let mut below = profile.sites_of("from_timer").filter(|site| {
            let mut names = site.stack.frames.iter().map(Frame::name);
            names.any(|name| name.contains("munmap") || name.contains("mmap"))
        });
        ensure!(below.all(|site| site.stack.whole), "a stack ends in a mapping call");
        let whole = profile.sites_of("from_timer").all(|site| {
            let names: Vec<&str> = site.stack.frames.iter().map(Frame::name).collect();
            site.stack.whole && names.contains(&"main")
        });
        ensure!(whole, "not every stack reaches main");
        let blocks: u64 = profile.sites_of("from_timer").map(|site| site.amounts.live_count).sum();
        ensure!(blocks == 200, "{blocks} blocks");
        Ok(())
    })
}

/// Traces a fixture while the returns of these functions of its are probed.
fn traced_under(fixture: &str, functions: &[&str], check: impl FnOnce(&Profile) -> Result<()>) -> Result<()> {
    let fixture = Fixture::compile_with(fixture, OPTIMISED)?;
    let mut running = fixture.start(&[])?;
    let probes = functions
        .iter()
        .map(|function| ReturnProbe::place(running.pid(), &fixture.path, function))
        .collect::<Result<Vec<_>>>()?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    check(&tracer.stop()?.profile)?;
    drop(probes);
    running.end_well()
}

/// The one site in `function` has these callers, all of its blocks, and a whole stack.
fn expect(profile: &Profile, function: &str, callers: &[&str], blocks: u64) -> Result<()> {
    let sites: Vec<_> = profile.sites_of(function).collect();
    let [site] = sites[..] else {
        anyhow::bail!("{} sites in {function}", sites.len());
    };
    let names: Vec<&str> = site.stack.frames.iter().skip(1).map(Frame::name).collect();
    ensure!(names.starts_with(callers), "{names:?}");
    ensure!(site.stack.whole, "not whole: {names:?}");
    ensure!(site.amounts.live_count == blocks, "{} blocks", site.amounts.live_count);
    Ok(())
}
