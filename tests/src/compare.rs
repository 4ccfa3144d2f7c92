//! Whether a profile agrees with a truth, to the byte. Everything that differs is said at once.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use crate::profile::Profile;
use crate::truth::{Amounts, Truth};

/// Modules whose own allocations a fixture cannot know: their sites are left out of the comparison.
pub type RuntimeModules = &'static [&'static str];

/// What the dynamic linker allocates for each thread and library.
pub const LINKER: RuntimeModules = &["ld-linux"];
/// What the C++ library allocates at its start and for exceptions.
pub const CPLUSPLUS: RuntimeModules = &["libstdc++.so"];

/// Every function of the truth has its four numbers, nothing else is there, and the accounting adds up.
pub fn exact(profile: &Profile, truth: &Truth, runtime: RuntimeModules) -> Result<()> {
    let mut wrong = differences(profile, truth, runtime);
    wrong.extend(accounting_faults(profile));
    if !profile.accounting.complete || !profile.accounting.lost.is_empty() {
        wrong.push(format!("not complete: lost {:?}", profile.accounting.lost));
    }
    ensure!(
        wrong.is_empty(),
        "{}\nnotes: {:?}",
        wrong.join("\n"),
        profile.accounting.notes
    );
    Ok(())
}

/// What differs between a profile's sites and a truth, one line each.
pub fn differences(profile: &Profile, truth: &Truth, runtime: RuntimeModules) -> Vec<String> {
    let found = by_function(profile, runtime);
    let names: BTreeSet<&str> = found
        .keys()
        .copied()
        .chain(truth.sites.keys().map(String::as_str))
        .collect();
    let mut wrong = Vec::new();
    for name in names {
        let found = found.get(name).copied().unwrap_or_default();
        let expected = truth.sites.get(name).copied().unwrap_or_default();
        if found != expected {
            wrong.push(format!("{name}: found {}, true is {}", show(found), show(expected)));
        }
    }
    wrong
}

/// What does not add up in a profile by itself, one line each.
pub fn accounting_faults(profile: &Profile) -> Vec<String> {
    let accounting = &profile.accounting;
    let mut sum = Amounts::default();
    profile.sites.iter().for_each(|site| sum += site.amounts);
    let pairs = [
        ("live bytes of the sites", sum.live_bytes, accounting.live_bytes),
        ("live blocks of the sites", sum.live_count, accounting.live_count),
        (
            "allocated bytes of the sites",
            sum.allocated_bytes,
            accounting.allocated_bytes,
        ),
        (
            "allocated blocks of the sites",
            sum.allocated_count,
            accounting.allocations,
        ),
        (
            "live and freed bytes",
            accounting.live_bytes + accounting.freed_bytes,
            accounting.allocated_bytes,
        ),
        (
            "live and freed blocks",
            accounting.live_count + accounting.frees,
            accounting.allocations,
        ),
    ];
    let faults = pairs.iter().filter(|(_, left, right)| left != right);
    faults
        .map(|(what, left, right)| format!("accounting: {what} are {left}, the total says {right}"))
        .collect()
}

fn by_function(profile: &Profile, runtime: RuntimeModules) -> BTreeMap<&str, Amounts> {
    let mut found: BTreeMap<&str, Amounts> = BTreeMap::new();
    let own = profile
        .sites
        .iter()
        .filter(|site| !runtime.iter().any(|module| site.module().starts_with(module)));
    for site in own {
        let name = if site.function().is_empty() {
            site.module()
        } else {
            site.function()
        };
        *found.entry(name).or_default() += site.amounts;
    }
    found
}

fn show(amounts: Amounts) -> String {
    let Amounts {
        live_bytes,
        live_count,
        allocated_bytes,
        allocated_count,
    } = amounts;
    format!("{live_bytes} B in {live_count} live, {allocated_bytes} B in {allocated_count} allocated")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"{"schema":"leaktrace.profile/1",
        "target":{"pids":[1],"command":"c","exe":"/c","language":"c","allocators":["libc"]},
        "window":{"start_unix_ns":1,"end_unix_ns":2,"duration_ns":1},
        "accounting":{"allocations":3,"frees":1,"allocated_bytes":30,"freed_bytes":10,"live_bytes":20,
            "live_count":2,"sample_bytes":1,"lost":{},"complete":true},
        "timeline":[],
        "sites":[
            {"id":"1","live_bytes":10,"live_count":1,"allocated_bytes":20,"allocated_count":2,"verdict":"stable",
             "why":"w","stack":{"whole":true,"frames":[{"address":4096,"module":"/c","function":"leak(int)","inlined":false}]}},
            {"id":"2","live_bytes":10,"live_count":1,"allocated_bytes":10,"allocated_count":1,"verdict":"stable",
             "why":"w","stack":{"whole":true,"frames":[{"address":8192,"module":"/lib/ld-linux.so","inlined":false}]}}]}"#;

    fn truth(live_bytes: u64) -> Truth {
        Truth::parse(&format!(r#"{{"sites":{{"leak":[{live_bytes},1,20,2]}}}}"#)).unwrap()
    }

    #[test]
    fn agrees_with_the_truth_and_leaves_the_runtime_out() {
        let profile = Profile::parse(PROFILE).unwrap();
        exact(&profile, &truth(10), LINKER).unwrap();
    }

    #[test]
    fn sees_one_byte_too_many() {
        let profile = Profile::parse(PROFILE).unwrap();
        assert_eq!(differences(&profile, &truth(11), LINKER).len(), 1);
    }

    #[test]
    fn sees_a_site_that_nobody_declared() {
        let profile = Profile::parse(PROFILE).unwrap();
        let wrong = differences(&profile, &truth(10), &[]);
        assert_eq!(
            wrong,
            ["ld-linux.so: found 10 B in 1 live, 10 B in 1 allocated, true is 0 B in 0 live, 0 B in 0 allocated"]
        );
    }

    #[test]
    fn sees_a_total_that_does_not_add_up() {
        let profile = Profile::parse(&PROFILE.replace("\"frees\":1", "\"frees\":2")).unwrap();
        assert_eq!(accounting_faults(&profile).len(), 1);
    }

    #[test]
    fn sees_a_loss() {
        let profile = Profile::parse(&PROFILE.replace("\"lost\":{}", "\"lost\":{\"full\":1}")).unwrap();
        assert!(exact(&profile, &truth(10), LINKER).is_err());
    }
}
