//! What a stack shows: every frame from the caller on, inlined calls, lines, names that people can read.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::compare::{self, CPLUSPLUS};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::profile::{Frame, Profile, Site};
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        traced("stacks::every_frame_is_there", every_frame_is_there),
        traced("stacks::inlined_calls_and_lines", inlined_calls_and_lines),
        traced("stacks::names_of_cplusplus", names_of_cplusplus),
        traced("stacks::stripped_programs_show_offsets", stripped),
        traced("stacks::deep_ones_are_not_called_whole", deep),
        traced("stacks::known_after_the_process_has_ended", after_the_end),
    ]
}

fn trace(fixture: &Fixture) -> Result<Profile> {
    let mut running = fixture.start(&[])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    let profile = tracer.stop()?.profile;
    running.end_well()?;
    Ok(profile)
}

fn only_site<'a>(profile: &'a Profile, function: &'a str) -> Result<&'a Site> {
    let mut sites = profile.sites_of(function);
    let site = sites.next().with_context(|| format!("no site in {function}"))?;
    ensure!(sites.next().is_none(), "{function} has more than one site");
    Ok(site)
}

fn names(site: &Site) -> Vec<&str> {
    site.stack.frames.iter().map(Frame::name).collect()
}

fn every_frame_is_there() -> Result<()> {
    let profile = trace(&Fixture::compile("chain")?)?;
    let names = names(only_site(&profile, "chain_third")?);
    ensure!(
        names.starts_with(&["chain_third", "chain_second", "chain_first", "main"]),
        "{names:?}"
    );
    Ok(())
}

fn inlined_calls_and_lines() -> Result<()> {
    let profile = trace(&Fixture::compile("chain")?)?;
    let site = only_site(&profile, "inlined_helper")?;
    ensure!(
        names(site).starts_with(&["inlined_helper", "host", "main"]),
        "{:?}",
        names(site)
    );
    let inlined: Vec<bool> = site.stack.frames.iter().take(3).map(|frame| frame.inlined).collect();
    ensure!(inlined == [true, false, false], "{inlined:?}");
    let host = site.stack.frames.get(1).context("no host")?;
    ensure!(host.line == Some(line_of("LINE inlined")?), "line {:?}", host.line);
    let third = only_site(&profile, "chain_third")?
        .stack
        .frames
        .first()
        .context("no frame")?;
    ensure!(third.line == Some(line_of("LINE plain")?), "line {:?}", third.line);
    let file = third.file.as_deref().context("no file")?;
    ensure!(file.ends_with("fixtures/chain.c"), "file {file:?}");
    Ok(())
}

fn line_of(mark: &str) -> Result<u32> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/chain.c");
    let at = std::fs::read_to_string(source)?
        .lines()
        .position(|line| line.contains(mark));
    Ok(u32::try_from(at.context("no such line")?)? + 1)
}

fn names_of_cplusplus() -> Result<()> {
    let mut running = Fixture::compile("shop")?.start(&[])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    let truth = running.play()?;
    compare::exact(&tracer.stop()?.profile, &truth, CPLUSPLUS)?;
    running.end_well()
}

/// Without symbols there is still the module, its build id, and every byte.
fn stripped() -> Result<()> {
    let fixture = Fixture::compile_with("many", &["-O1", "-fno-omit-frame-pointer", "-s", "-Wl,--build-id"])?;
    let profile = trace(&fixture)?;
    let accounting = &profile.accounting;
    ensure!(
        (accounting.live_bytes, accounting.live_count) == (64000, 1000),
        "{accounting:?}"
    );
    let site = profile.sites.first().context("no site")?;
    let frame = site.stack.frames.first().context("no frame")?;
    ensure!(frame.function.is_none(), "a name from nowhere: {:?}", frame.function);
    ensure!(frame.module == fixture.text()?, "module {:?}", frame.module);
    let id = frame.build_id.as_deref().unwrap_or("");
    ensure!(
        id.len() == 40 && id.chars().all(|c| c.is_ascii_hexdigit()),
        "build id {id:?}"
    );
    Ok(())
}

fn deep() -> Result<()> {
    let profile = trace(&Fixture::compile("deep")?)?;
    let site = only_site(&profile, "bottom")?;
    ensure!(!site.stack.whole, "300 frames cannot be whole");
    ensure!(
        site.stack.frames.len() >= 100,
        "only {} frames",
        site.stack.frames.len()
    );
    ensure!(
        names(site).iter().skip(1).all(|name| *name == "descend"),
        "{:?}",
        names(site)
    );
    Ok(())
}

/// A process that is gone has no mappings to look names up in: they must have been kept.
fn after_the_end() -> Result<()> {
    let mut running = Fixture::compile("chain")?.start(&[])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    running.end_well()?;
    let profile = tracer.finish()?.profile;
    let names = names(only_site(&profile, "chain_third")?);
    ensure!(
        names.starts_with(&["chain_third", "chain_second", "chain_first", "main"]),
        "{names:?}"
    );
    Ok(())
}
