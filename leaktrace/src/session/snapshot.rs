//! A profile of what a recorder has seen, made at any moment.

use std::collections::{BTreeMap, HashSet};

use leaktrace_common::{
    counters::Counter,
    events::StackEnd,
    sites::{Amount, OVERFLOW_SITE},
};

use super::go::{self, GoTrace};
use super::recorder::{Recorder, SiteNow, positive};
use crate::{
    analysis::{self, Cohort, Evidence, History},
    kernel::{CounterValues, KernelError},
    profile::{
        Accounting, Ending, Heap, Profile, Reach, SCHEMA, Site, Stack, TargetInfo, Tool, Verdict, Window, cut_stacks,
    },
    symbols::{RawStack, Symbolizer, trim::trim},
    target::{AddressSpace, Era},
};

/// Counters of what was lost, with the names they have in a profile.
const LOST: &[(Counter, &str)] = &[
    (Counter::LostTableFull, "table_full"),
    (Counter::LostTableFullBytes, "table_full_bytes"),
    (Counter::LostNoMemory, "no_memory"),
    (Counter::LostSitesFull, "sites_full"),
    (Counter::LostScratch, "scratch"),
    (Counter::LostMappingEvent, "mapping_event"),
    (Counter::LostThreadsFull, "threads_full"),
    (Counter::LostProcessEvent, "process_event"),
    (Counter::LostUnreadable, "unreadable"),
    (Counter::LostOtherStack, "other_stack"),
    (Counter::MissedFrees, "missed_frees"),
    (Counter::AbandonedCalls, "abandoned_calls"),
    (Counter::UnknownBreak, "unknown_break"),
    (Counter::LostSpans, "spans"),
];

/// Counters of what is no loss.
const NOTES: &[(Counter, &str)] = &[
    (Counter::UnmatchedFrees, "unmatched_frees"),
    (Counter::FailedCalls, "failed_calls"),
    (Counter::NestedCalls, "nested_calls"),
    (Counter::OwnMappings, "own_mappings"),
    (Counter::DeferredStacks, "deferred_stacks"),
];

/// What a snapshot is made of besides the recorder.
pub struct Scene<'a> {
    /// What is traced.
    pub target: &'a TargetInfo,
    /// Its memory.
    pub space: &'a AddressSpace,
    /// When.
    pub window: Window,
    /// Blocks younger than this are left out.
    pub min_age_ns: u64,
    /// How much is worked out.
    pub detail: Detail,
    /// Modules with an allocator that is not traced, by device and inode.
    pub untraced: &'a HashSet<(u64, u64)>,
    /// Go's heap, of a Go program.
    pub go: Option<&'a GoTrace>,
}

/// How much of a profile is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Numbers and names: what a short report needs.
    Brief,
    /// Growth and verdicts too.
    Full,
}

/// Makes a profile of this moment.
pub fn profile(recorder: &Recorder, symbolizer: &mut Symbolizer, scene: &Scene) -> Result<Profile, KernelError> {
    let (now, estimates) = (recorder.now(), recorder.estimates());
    let mut sites = sites(recorder, &now, scene);
    go::describe_sites(&estimates, &mut sites);
    if let Some(go) = scene.go {
        go.describe_holders(&mut sites);
    }
    symbolize(recorder, symbolizer, scene, &mut sites);
    let mut sites: Vec<Site> = sites.into_iter().map(|(_, site)| site).collect();
    sites.sort_by(|a, b| {
        b.live_bytes
            .cmp(&a.live_bytes)
            .then(b.allocated_bytes.cmp(&a.allocated_bytes))
    });
    let accounting = Accounting {
        sample_bytes: go::sample_bytes(&estimates),
        ..accounting(recorder, &now, symbolizer, &sites, scene)?
    };
    Ok(Profile {
        schema: SCHEMA.into(),
        tool: Tool {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
        target: scene.target.clone(),
        window: scene.window,
        accounting,
        sites,
        timeline: recorder.timeline().to_vec(),
        go: scene.go.map(|go| go.section(&estimates)),
    })
}

fn sites(recorder: &Recorder, now: &BTreeMap<u32, SiteNow>, scene: &Scene) -> Vec<(u32, Site)> {
    let used = now.iter().filter(|(_, site)| site.allocated.count != 0);
    used.map(|(index, site)| (*index, one_site(recorder, *index, site, scene)))
        .collect()
}

fn one_site(recorder: &Recorder, index: u32, now: &SiteNow, scene: &Scene) -> Site {
    let elapsed = scene.window.duration_ns;
    let cohorts = recorder.cohorts();
    let live = cohorts.older_than(&now.live, elapsed, scene.min_age_ns);
    let oldest_age_ns = cohorts.oldest_age(&now.live, elapsed);
    let by_age: Vec<Cohort> = cohorts
        .by_age(&now.live, elapsed)
        .map(|(age_ns, live)| Cohort {
            age_ns,
            live_bytes: positive(live.bytes),
        })
        .collect();
    let record = recorder.site(index);
    let unknown = History::default();
    let history = record.map_or(&unknown, |record| &record.history);
    let evidence = Evidence {
        history,
        live_bytes: positive(now.live().bytes),
        live_count: positive(now.live().count),
        allocated_bytes: positive(now.allocated.bytes),
        allocated_count: positive(now.allocated.count),
        window_ns: elapsed,
        oldest_age_ns,
        cohorts: &by_age,
    };
    let (verdict, why, growth_bytes_per_s) = match scene.detail {
        Detail::Brief => (Verdict::Unknown, String::new(), 0.0),
        Detail::Full => {
            let (verdict, why) = analysis::judge(&evidence);
            (verdict, why, history.slope_per_s())
        }
    };
    Site {
        id: format!("{:016x}", record.map_or(0, |record| record.hash)),
        live_bytes: positive(live.bytes),
        live_count: positive(live.count),
        allocated_bytes: positive(now.allocated.bytes),
        allocated_count: positive(now.allocated.count),
        oldest_age_ns,
        growth_bytes_per_s,
        estimate_error: None,
        verdict,
        why,
        reach: Reach::Unknown,
        held_by: None,
        holders: Vec::new(),
        heap: Heap::Native,
        go: None,
        stack: Stack::default(),
    }
}

fn symbolize(recorder: &Recorder, symbolizer: &mut Symbolizer, scene: &Scene, sites: &mut [(u32, Site)]) {
    let raw: Vec<RawStack> = sites.iter().map(|(index, _)| raw_stack(recorder, *index)).collect();
    for ((index, site), mut stack) in sites.iter_mut().zip(symbolizer.symbolize(scene.space, &raw)) {
        trim(&mut stack);
        // No record, no walk to tell of.
        if recorder.site(*index).is_none() {
            stack.end = Ending::NotKept;
        }
        site.stack = stack;
    }
}

fn raw_stack(recorder: &Recorder, index: u32) -> RawStack {
    match recorder.site(index) {
        Some(record) => RawStack {
            frames: record.frames.clone(),
            end: record.end,
            era: record.era,
        },
        None => RawStack {
            frames: Vec::new(),
            end: StackEnd::Unsupported,
            era: Era::default(),
        },
    }
}

fn accounting(
    recorder: &Recorder,
    now: &BTreeMap<u32, SiteNow>,
    symbolizer: &Symbolizer,
    sites: &[Site],
    scene: &Scene,
) -> Result<Accounting, KernelError> {
    let counters = &recorder.counters()?;
    let sum = |part: fn(&SiteNow) -> Amount| now.values().map(part).fold(Amount::default(), super::cohorts::plus);
    let (allocated, live) = (sum(|site| site.allocated), sum(SiteNow::live));
    let mut lost = named(counters, LOST);
    if !scene.untraced.is_empty() {
        lost.insert("untraced_allocators".into(), scene.untraced.len() as u64);
    }
    if recorder.refused_samples() != 0 {
        lost.insert("samples_full".into(), recorder.refused_samples());
    }
    let unsent = unsent(recorder, now);
    if unsent != 0 {
        lost.insert("stacks".into(), unsent);
    }
    let mut notes = notes(counters, symbolizer);
    let shown: u64 = sites.iter().map(|site| site.live_count).sum();
    let whole = || sites.iter().filter(|site| site.stack.whole);
    let young = positive(live.count).saturating_sub(shown);
    if scene.min_age_ns > 0 && young > 0 {
        notes.insert("young".into(), young);
    }
    Ok(Accounting {
        allocations: positive(allocated.count),
        frees: positive(allocated.count - live.count),
        allocated_bytes: positive(allocated.bytes),
        freed_bytes: positive(allocated.bytes - live.bytes),
        live_bytes: positive(live.bytes),
        live_count: positive(live.count),
        sample_bytes: 1,
        complete: lost.is_empty(),
        lost,
        notes,
        stacks: sites.len() as u64,
        whole_stacks: whole().count() as u64,
        whole_allocations: Some(whole().map(|site| site.allocated_count).sum()),
        cut_stacks: cut_stacks(sites),
    })
}

/// Sites whose stack was put off, and never sent: they were not seen again.
fn unsent(recorder: &Recorder, now: &BTreeMap<u32, SiteNow>) -> u64 {
    let used = now
        .iter()
        .filter(|(index, site)| **index != OVERFLOW_SITE && site.allocated.count != 0);
    used.filter(|(index, _)| recorder.site(**index).is_none()).count() as u64
}

/// What is no loss: counted by the kernel side, and what could not be given a name.
fn notes(counters: &CounterValues, symbolizer: &Symbolizer) -> BTreeMap<String, u64> {
    let failures = symbolizer.failures();
    let unnamed = [
        ("unreadable_addresses", failures.addresses),
        ("unreadable_files", failures.files),
        ("files_without_debug", failures.without_debug),
        ("slow_files", failures.too_slow),
        ("changed_files", failures.changed),
        ("refused_perf_maps", failures.perf_maps.files),
        ("perf_map_lines", failures.perf_maps.lines),
        ("perf_map_entries", failures.perf_maps.entries),
        ("perf_map_unread", failures.perf_maps.bytes),
    ];
    let mut notes = named(counters, NOTES);
    notes.extend(
        unnamed
            .into_iter()
            .filter(|(_, count)| *count != 0)
            .map(|(name, count)| (name.to_owned(), count)),
    );
    notes
}

fn named(counters: &CounterValues, names: &[(Counter, &str)]) -> BTreeMap<String, u64> {
    let counted = names
        .iter()
        .map(|(counter, name)| ((*name).to_owned(), counters.get(*counter)));
    counted.filter(|(_, count)| *count != 0).collect()
}
