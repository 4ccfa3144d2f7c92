//! Libraries that come and go while the trace runs, one where another was: a stack is never called whole when it is not
//! the program's own, and never names another library's function.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::fixture::Fixture;
use leaktrace_tests::profile::{Profile, Site};
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced;
use libtest_mimic::Trial;

/// What the functions of each library are called, and how large their frames are. The first and the last are the same
/// code.
const LIBRARIES: &[(&str, &str)] = &[("first", "24"), ("second", "4000"), ("third", "24")];

const OPTIMISED: &[&str] = &["-O2", "-fomit-frame-pointer"];

pub fn trials() -> Vec<Trial> {
    vec![
        // Tables are to follow within a second.
        traced("churn::with_pauses_every_stack_is_whole", || churn("2", "500000", true)),
        traced("churn::as_fast_as_it_goes_no_stack_is_wrong", || {
            churn("500", "0", false)
        }),
    ]
}

/// A stack on which a library allocated, by its place in [`LIBRARIES`].
type Visit = (usize, Vec<u64>);

/// How a stack may end that was taken before the tables followed: in code that is going, or in code that has just come.
const MARKS: &[&str] = &["unsettled", "new_code"];

/// What was allocated where.
struct Truth {
    /// Bytes and blocks.
    visits: BTreeMap<Visit, (u64, u64)>,
    /// Bytes of each block of a library.
    sizes: BTreeMap<usize, u64>,
}

fn churn(rounds: &str, pause: &str, all_whole: bool) -> Result<()> {
    let libraries = LIBRARIES
        .iter()
        .map(|(name, room)| {
            let defined = [format!("-DNAME={name}"), format!("-DROOM={room}")];
            let flags = [OPTIMISED, &["-shared", "-fPIC"], &[&*defined[0], &*defined[1]]].concat();
            Fixture::compile_with("churned", &flags)
        })
        .collect::<Result<Vec<_>>>()?;
    let paths = libraries.iter().map(Fixture::text).collect::<Result<Vec<_>>>()?;
    let words = [&[rounds, pause], &*paths].concat();
    let mut running = Fixture::compile_with("churn", OPTIMISED)?.start(&words)?;
    let tracer = tracer::attach(running.pid(), &[])?;
    running.play()?;
    let profile = tracer.stop()?.profile;
    let truth = parse(running.child.out.so_far())?;
    running.end_well()?;
    judge(&profile, &truth, &paths, all_whole)
}

fn parse(lines: &[String]) -> Result<Truth> {
    let mut truth = Truth {
        visits: BTreeMap::new(),
        sizes: BTreeMap::new(),
    };
    for line in lines {
        let Some(told) = line.strip_prefix("VISITS ") else {
            continue;
        };
        let mut words = told.split(' ');
        let mut number = || words.next().context("too short")?.parse::<u64>().context("no number");
        let (library, size, count) = (number()? as usize, number()?, number()?);
        let frames = words
            .map(|word| u64::from_str_radix(word, 16))
            .collect::<Result<_, _>>()?;
        truth.visits.insert((library, frames), (size * count, count));
        truth.sizes.insert(library, size);
    }
    ensure!(
        truth.sizes.len() == LIBRARIES.len(),
        "the program told of {:?}",
        truth.sizes
    );
    Ok(truth)
}

fn judge(profile: &Profile, truth: &Truth, paths: &[&str], all_whole: bool) -> Result<()> {
    let mut faults = Vec::new();
    let mut seen: BTreeMap<Visit, (u64, u64)> = BTreeMap::new();
    let mut marked = 0;
    for site in profile.sites.iter().filter(|site| visits(site, paths)) {
        match owner(site, truth) {
            Some(library) if wrong_name(site, library, paths).is_none() => {
                if site.stack.whole {
                    let sum = seen.entry((library, site.stack.addresses())).or_default();
                    sum.0 += site.amounts.allocated_bytes;
                    sum.1 += site.amounts.allocated_count;
                } else {
                    marked += site.amounts.allocated_count;
                    if all_whole || !MARKS.contains(&&*site.stack.end) {
                        faults.push(format!("ended otherwise: {site:x?}"));
                    }
                }
            }
            // Blocks of several, under no name.
            None if !site.stack.whole && !names_a_library(site, paths) => marked += site.amounts.allocated_count,
            owner => {
                let wrong = owner.and_then(|library| wrong_name(site, library, paths));
                faults.push(format!(
                    "blocks of library {owner:?} under the name {wrong:?}: {site:x?}"
                ));
            }
        }
    }
    for (visit, amounts) in &seen {
        match truth.visits.get(visit) {
            Some(told) if amounts == told || !all_whole && amounts.1 <= told.1 => {}
            told => faults.push(format!("{amounts:?}, not {told:?}, on {visit:x?}")),
        }
    }
    let whole: u64 = seen.values().map(|amounts| amounts.1).sum();
    let all: u64 = truth.visits.values().map(|amounts| amounts.1).sum();
    ensure!(
        faults.is_empty(),
        "{} faults, of {all} allocations {whole} whole and {marked} marked; the first:\n{}",
        faults.len(),
        faults.iter().take(4).cloned().collect::<Vec<_>>().join("\n")
    );
    println!("of {all} allocations {whole} whole, {marked} marked");
    ensure!(
        !all_whole || whole == all,
        "of {all} allocations only {whole} are whole"
    );
    // Without a pause the tables may never be those of what is mapped: how much is whole is chance then. All is there.
    let recorded = profile.accounting.allocations;
    ensure!(recorded >= all, "{recorded} allocations recorded of {all}");
    ensure!(whole + marked <= all, "{whole} whole and {marked} marked of {all}");
    Ok(())
}

/// Whether a site is one of a library's, or shown as one.
fn visits(site: &Site, paths: &[&str]) -> bool {
    names_a_library(site, paths) || site.stack.frames.iter().any(|frame| frame.name() == "visit")
}

fn names_a_library(site: &Site, paths: &[&str]) -> bool {
    site.stack.frames.iter().any(|frame| paths.contains(&&*frame.module))
}

/// The library whose blocks these are: each asks for another size.
fn owner(site: &Site, truth: &Truth) -> Option<usize> {
    let mut sizes = truth.sizes.iter();
    let own = sizes.find(|(_, size)| *size * site.amounts.allocated_count == site.amounts.allocated_bytes);
    own.map(|(library, _)| *library)
}

/// A function or module of another library than this one, in a site of this one's.
fn wrong_name<'a>(site: &'a Site, library: usize, paths: &[&str]) -> Option<(&'a str, &'a str)> {
    let other = |index: usize, name: &str, module: &str| {
        let start = LIBRARIES.get(index).map_or("", |(start, _)| *start);
        index != library && (paths.get(index) == Some(&module) || name.starts_with(&format!("{start}_")))
    };
    let mut frames = site.stack.frames.iter().map(|frame| (frame.name(), &*frame.module));
    frames.find(|(name, module)| (0..LIBRARIES.len()).any(|index| other(index, name, module)))
}
