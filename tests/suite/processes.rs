//! A trace is of one process: others that run the same libc are not seen, and not touched.

use anyhow::{Result, ensure};
use leaktrace_tests::compare;
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        traced("processes::a_neighbour_is_not_seen", a_neighbour_is_not_seen),
        traced("processes::two_traces_of_two_processes", two_traces),
    ]
}

fn a_neighbour_is_not_seen() -> Result<()> {
    let neighbour = Fixture::compile("busy")?.start(&["1", "100"])?;
    let mut running = Fixture::compile("malloc")?.start(&[])?;
    let tracer = tracer::attach(running.pid(), &[])?;
    let truth = running.play()?;
    compare::exact(&tracer.stop()?.profile, &truth, &[])?;
    neighbour.play_to_the_end()?;
    running.end_well()
}

fn two_traces() -> Result<()> {
    let fixture = Fixture::compile("realloc")?;
    let (mut one, mut two) = (fixture.start(&[])?, fixture.start(&[])?);
    let (of_one, of_two) = (tracer::attach(one.pid(), &[])?, tracer::attach(two.pid(), &[])?);
    let truth = one.play()?;
    compare::exact(&of_one.stop()?.profile, &truth, &[])?;
    let untouched = two.play()?;
    ensure!(truth == untouched, "the fixture is not the same twice");
    compare::exact(&of_two.stop()?.profile, &untouched, &[])?;
    one.end_well()?;
    two.end_well()
}
