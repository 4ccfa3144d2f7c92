//! Go's own heap profile, scaled up to all objects and named, as Go's own tools show it.

use std::collections::HashMap;

use crate::{
    go::{Runtime, Sampled, SampledSite, pclntab::Call, shown},
    profile::{Ending, Frame, OwnProfile, OwnSite, Stack},
    symbols::trim::trim,
    target::printable,
};

/// The profile as a report shows it.
pub fn told(runtime: &Runtime, sampled: &Sampled) -> OwnProfile {
    let mut by_stack: HashMap<&[u64], OwnSite> = HashMap::new();
    // One without samples has been made since the last collection.
    for site in sampled.sites.iter().filter(|site| site.allocations > 0) {
        add(by_stack.entry(&site.stack).or_default(), site, sampled.rate);
    }
    let mut sites: Vec<OwnSite> = by_stack
        .into_iter()
        .map(|(stack, site)| named(runtime, stack, &site))
        .collect();
    sites.sort_by_key(|site| std::cmp::Reverse((site.live_bytes, site.allocated_bytes)));
    OwnProfile {
        rate: sampled.rate,
        sites,
    }
}

/// An object of `size` bytes is sampled with a chance that grows with its size: each sample stands for the inverse.
fn add(all: &mut OwnSite, site: &SampledSite, rate: u64) {
    let chance = 1.0 - (-(site.object_size as f64) / rate as f64).exp();
    let scale = if rate > 1 && chance > 0.0 { 1.0 / chance } else { 1.0 };
    let scaled = |count: u64| (count as f64 * scale).round() as u64;
    let bytes = |count: u64| (count as f64 * site.object_size as f64 * scale).round() as u64;
    let live = site.allocations.saturating_sub(site.frees);
    all.samples = all.samples.saturating_add(site.allocations);
    all.live_count = all.live_count.saturating_add(scaled(live));
    all.live_bytes = all.live_bytes.saturating_add(bytes(live));
    all.allocated_count = all.allocated_count.saturating_add(scaled(site.allocations));
    all.allocated_bytes = all.allocated_bytes.saturating_add(bytes(site.allocations));
}

fn named(runtime: &Runtime, stack: &[u64], site: &OwnSite) -> OwnSite {
    let mut stack = Stack {
        whole: false,
        end: Ending::Unknown,
        frames: joined(stack.iter().map(|&address| frames(runtime, address))),
    };
    trim(&mut stack);
    OwnSite { stack, ..site.clone() }
}

/// Go's profile has an address for each call, also for those that were inlined: what was told with the call that they
/// were inlined around is not told again.
fn joined(calls: impl Iterator<Item = Vec<Frame>>) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut told: Vec<Frame> = Vec::new();
    for calls in calls {
        let first = calls.first().map(|call| (&call.function, call.line));
        let again = told.iter().position(|call| Some((&call.function, call.line)) == first);
        if let Some(place) = again {
            told.drain(..=place);
            continue;
        }
        told = calls.get(1..).unwrap_or_default().to_vec();
        frames.extend(calls);
    }
    frames
}

/// The calls at a return address of Go code, innermost first.
pub fn frames(runtime: &Runtime, address: u64) -> Vec<Frame> {
    let calls = runtime.calls(address);
    let last = calls.len().saturating_sub(1);
    let frame = |(at, call): (usize, &Call<'_>)| Frame {
        address,
        module: runtime.file.name.clone(),
        build_id: runtime.file.build_id.clone(),
        function: Some(shown(call.function)),
        offset: address.wrapping_sub(runtime.bias),
        file: call.file.map(printable),
        line: call.line,
        inlined: at < last,
    };
    calls.iter().enumerate().map(frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_were_inlined_are_told_once() {
        let at = |name: &str, address, line, inlined| Frame {
            address,
            function: Some(name.to_owned()),
            line: Some(line),
            inlined,
            ..Frame::default()
        };
        // `inner` in `outer` in `handle`, which `main` calls, and `main` calls itself.
        let calls = [
            vec![
                at("inner", 16, 1, true),
                at("outer", 16, 2, true),
                at("handle", 16, 3, false),
            ],
            vec![at("outer", 20, 2, true), at("handle", 20, 3, false)],
            vec![at("handle", 24, 3, false)],
            vec![at("main", 32, 4, false)],
            vec![at("main", 32, 4, false)],
        ];
        let joined = joined(calls.into_iter());
        let names: Vec<_> = joined.iter().filter_map(|call| call.function.as_deref()).collect();
        assert_eq!(names, ["inner", "outer", "handle", "main", "main"]);
    }

    #[test]
    fn samples_are_scaled_by_the_chance_that_an_object_had() {
        let site = |object_size| SampledSite {
            object_size,
            allocations: 10,
            frees: 4,
            stack: Vec::new(),
        };
        let mut all = OwnSite::default();
        add(&mut all, &site(512 << 10), 512 << 10);
        // 1 / (1 - 1/e) = 1.582
        assert_eq!((all.allocated_count, all.live_count, all.samples), (16, 9, 10));
        assert_eq!(all.live_bytes, 4_976_468);
        let mut exact = OwnSite::default();
        add(&mut exact, &site(64), 1);
        assert_eq!((exact.allocated_count, exact.live_bytes), (10, 384));
        let mut nothing = OwnSite::default();
        add(&mut nothing, &site(0), 512 << 10);
        assert_eq!((nothing.allocated_count, nothing.live_bytes), (10, 0));
    }
}
