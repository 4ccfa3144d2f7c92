//! Stacks as a fixture sees them itself (`fixtures/frames.h`), compared with those of a profile: address for address.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use crate::profile::{Frame, Profile, Site};

/// Frames that leaktrace keeps of a stack.
pub const MOST_FRAMES: usize = 127;

/// One allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Bytes: no two allocations of a fixture ask for the same.
    pub size: u64,
    /// Return addresses, innermost first. The first is 0 where the program does not know it.
    pub frames: Vec<u64>,
    /// Whether nobody can tell what comes after these frames.
    pub open: bool,
}

/// How a stack ends where the program's own unwinder ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There, and leaktrace says that it is whole.
    Same,
    /// A libc whose first function has no tables: leaktrace may follow it further, and says how that ended.
    Further,
    /// The same, but that `main` itself has no tables: stacks that come to it are cut there.
    InMain,
}

/// How many stacks were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// All of them.
    pub stacks: usize,
    /// Those that leaktrace cannot keep whole.
    pub too_deep: usize,
}

/// Reads the lines of a fixture.
pub fn parse(lines: &[String]) -> Result<Vec<Told>> {
    let mut all = Vec::new();
    for line in lines {
        let mut words = line.split(' ');
        let open = match words.next() {
            Some("STACK") => false,
            Some("OPEN") => true,
            _ => continue,
        };
        let size = words.next().context("no size")?.parse()?;
        let frames: Result<Vec<u64>, _> = words.map(|word| u64::from_str_radix(word, 16)).collect();
        let frames = frames?;
        all.push(Told { size, frames, open });
    }
    Ok(all)
}

/// Compares every stack that a fixture told, and how much was allocated there. What else the process allocated must be
/// whole.
pub fn exact(profile: &Profile, told: &[Told], end: End) -> Result<Compared> {
    ensure!(!told.is_empty(), "the fixture told no stack");
    let stacks = by_stack(told);
    let mut faults = Vec::new();
    let mut matched = BTreeSet::new();
    // Those whose first address is not known take what is left.
    for (stack, amounts) in stacks.iter().rev() {
        let same: Vec<&Site> = profile
            .sites
            .iter()
            .filter(|site| !matched.contains(&*site.id) && agrees(site, stack, end))
            .collect();
        matched.extend(same.iter().map(|site| &*site.id));
        faults.extend(fault(profile, stack, &same, *amounts));
    }
    for site in &profile.sites {
        let expected = end == End::Further || end == End::InMain && ends_in_main(site);
        if !(site.stack.whole || expected || matched.contains(&*site.id)) {
            faults.push(format!(
                "cut without a reason: {:x?} {:?}",
                site.stack.addresses(),
                names(site)
            ));
        }
    }
    ensure!(faults.is_empty(), "of {} stacks:\n{}", stacks.len(), faults.join("\n"));
    Ok(Compared {
        stacks: stacks.len(),
        too_deep: stacks.keys().filter(|stack| stack.frames.len() > MOST_FRAMES).count(),
    })
}

/// A stack, whatever was allocated there. Those of unknown first address come first in order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path<'a> {
    frames: &'a [u64],
    open: bool,
}

/// Bytes and blocks of each stack.
fn by_stack(told: &[Told]) -> BTreeMap<Path<'_>, (u64, u64)> {
    let mut stacks = BTreeMap::new();
    for Told { size, frames, open } in told {
        let (bytes, count) = stacks.entry(Path { frames, open: *open }).or_default();
        *bytes += size;
        *count += 1_u64;
    }
    stacks
}

/// What is wrong with the sites that have a stack, if anything is. One that is open may go on in different ways.
fn fault(profile: &Profile, stack: &Path<'_>, same: &[&Site], amounts: (u64, u64)) -> Option<String> {
    let sum = same.iter().fold((0, 0), |(bytes, count), site| {
        (
            bytes + site.amounts.allocated_bytes,
            count + site.amounts.allocated_count,
        )
    });
    if sum == amounts && (same.len() == 1 || stack.open) {
        return None;
    }
    let near = profile
        .sites
        .iter()
        .filter(|site| site.stack.addresses().first() == stack.frames.first());
    let near: Vec<String> = near
        .map(|site| {
            format!(
                "\n  {} {:x?} {:?}",
                site.stack.whole,
                site.stack.addresses(),
                names(site)
            )
        })
        .collect();
    let sites = same.len();
    Some(format!(
        "{sites} sites of {sum:?}, not {amounts:?}, are {stack:x?}, near: {}",
        near.concat()
    ))
}

/// Whether a site has this stack, and says rightly whether it is whole.
fn agrees(site: &Site, stack: &Path<'_>, end: End) -> bool {
    let seen = site.stack.addresses();
    let kept = stack.frames.get(..MOST_FRAMES).unwrap_or(stack.frames);
    let right_end = match end {
        // Having come to these frames is its end, whether that is known or not.
        _ if stack.open => seen.len() == kept.len() || seen.len() > kept.len() && !site.stack.whole,
        End::Same => seen.len() == kept.len() && site.stack.whole == (kept.len() == stack.frames.len()),
        End::InMain => seen.len() == kept.len() && site.stack.whole != ends_in_main(site),
        End::Further => seen.len() >= kept.len(),
    };
    right_end && seen.iter().zip(kept).all(|(seen, told)| seen == told || *told == 0)
}

fn ends_in_main(site: &Site) -> bool {
    site.stack.frames.last().is_some_and(|frame| frame.name() == "main")
}

fn names(site: &Site) -> Vec<&str> {
    site.stack.frames.iter().map(Frame::name).collect()
}
