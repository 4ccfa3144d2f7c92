//! What the Go runtime says of itself, and where the process's memory is. Pure.

use std::io::{self, Write};

use super::paint::Paint;
use crate::profile::{GoHeap, GoMoment, OwnProfile, Profile, TimelinePoint};
use crate::report::View;
use crate::units;

/// Most rows of the timeline.
const ROWS: usize = 12;
/// Most sites of Go's own profile.
const OWN_SITES: usize = 5;

/// Writes the section, where there is something to say.
pub(super) fn write(profile: &Profile, view: &View, out: &mut dyn Write) -> io::Result<()> {
    let Some(go) = &profile.go else { return Ok(()) };
    let paint = Paint(view.colour);
    if let Some(now) = &go.moment {
        writeln!(out, "\n{}", paint.bold("Go's runtime, by its own count"))?;
        for line in moment(go, now, &profile.timeline) {
            writeln!(out, "  {line}")?;
        }
        timeline(&profile.timeline)
            .iter()
            .try_for_each(|row| writeln!(out, "  {row}"))?;
    }
    if let Some(own) = &go.own_profile {
        writeln!(out, "\n{}", paint.bold(&own_title(own)))?;
        own_sites(own).iter().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    if !go.memory.is_empty() {
        let all = go.memory.iter().fold(0_u64, |sum, part| sum.saturating_add(part.bytes));
        writeln!(
            out,
            "\n{}",
            paint.bold(&format!("Resident memory: {}", units::size(all)))
        )?;
        for part in &go.memory {
            writeln!(
                out,
                "  {:>10}  {}",
                units::size(part.bytes),
                crate::report::one_line(&part.what)
            )?;
        }
    }
    Ok(())
}

fn moment(go: &GoHeap, now: &GoMoment, timeline: &[TimelinePoint]) -> Vec<String> {
    let goal = match now.heap_goal_bytes {
        off if off > 1 << 47 => "collections are off".to_owned(),
        goal => format!("next collection at {}", units::size(goal)),
    };
    let mut lines = vec![format!("heap: {}; {goal}", units::size(now.heap_live_bytes))];
    let mut of_go = timeline.iter().filter_map(|point| point.go);
    let first = of_go.next();
    let paused = now.pause_ns.saturating_sub(first.map_or(0, |first| first.pause_ns));
    lines.push(format!(
        "{} since the attach, which stopped the program for {} in all; {} since it began",
        units::count(go.collections, "collection"),
        units::duration(paused),
        units::number(now.collections)
    ));
    if let Some(goroutines) = now.goroutines.or_else(|| of_go.next_back()?.goroutines) {
        let before = first.and_then(|first| first.goroutines);
        let before = before.map_or_else(String::new, |before| format!(" ({} at first)", units::number(before)));
        lines.push(format!("{}{before}", units::count(goroutines, "goroutine")));
    }
    lines
}

/// A row for each of at most [`ROWS`] moments, spread over the whole time.
fn timeline(points: &[TimelinePoint]) -> Vec<String> {
    let points: Vec<(&TimelinePoint, GoMoment)> = points.iter().filter_map(|point| Some((point, point.go?))).collect();
    if points.len() < 2 {
        return Vec::new();
    }
    let last = points.len() - 1;
    let rows = ROWS.min(points.len());
    let mut lines = vec![format!(
        "{:>9} {:>11} {:>11} {:>11} {:>12} {:>10} {:>11}",
        "time", "heap", "goal", "collections", "paused", "goroutines", "resident"
    )];
    for row in 0..rows {
        let Some((point, go)) = points.get(row * last / (rows - 1).max(1)) else {
            continue;
        };
        lines.push(format!(
            "{:>9} {:>11} {:>11} {:>11} {:>12} {:>10} {:>11}",
            units::duration(point.at_ns),
            units::size(go.heap_live_bytes),
            if go.heap_goal_bytes > 1 << 47 {
                "off".to_owned()
            } else {
                units::size(go.heap_goal_bytes)
            },
            units::number(go.collections),
            units::duration(go.pause_ns),
            go.goroutines.map_or_else(|| "-".to_owned(), units::number),
            units::size(point.resident_bytes),
        ));
    }
    lines
}

fn own_title(own: &OwnProfile) -> String {
    format!(
        "Go's own heap profile, since the start of the process, one sample per {}",
        units::size(own.rate)
    )
}

fn own_sites(own: &OwnProfile) -> Vec<String> {
    let live = own.sites.iter().filter(|site| site.live_bytes > 0);
    let site = |site: &crate::profile::OwnSite| {
        let calls: Vec<&str> = site
            .stack
            .frames
            .iter()
            .filter_map(|frame| frame.name())
            .take(3)
            .collect();
        let text = format!(
            "{:>10} in {}  {}",
            units::size(site.live_bytes),
            units::count(site.live_count, "object"),
            calls.join(" ← ")
        );
        crate::report::one_line(&text).into_owned()
    };
    let mut lines: Vec<String> = live.clone().take(OWN_SITES).map(site).collect();
    let more = live.count().saturating_sub(OWN_SITES);
    if more > 0 {
        lines.push(format!("and {} more", units::number(more as u64)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Frame, MemoryPart, OwnSite, Stack, fixture};
    use crate::report::View;

    fn written(profile: &Profile) -> String {
        let mut out = Vec::new();
        let view = View {
            colour: false,
            ..crate::report::goroutines::view(10)
        };
        write(profile, &view, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn point(seconds: u64) -> TimelinePoint {
        TimelinePoint {
            at_ns: seconds * 1_000_000_000,
            resident_bytes: (20 + seconds) << 20,
            go: Some(GoMoment {
                heap_live_bytes: (10 + seconds) << 20,
                heap_goal_bytes: if seconds == 7 { u64::MAX } else { 32 << 20 },
                collections: 5 + seconds,
                pause_ns: 1_000_000 * seconds,
                goroutines: (seconds != 7).then_some(10 * seconds),
            }),
            ..TimelinePoint::default()
        }
    }

    #[test]
    fn programs_without_go_have_no_section() {
        assert_eq!(written(&fixture::profile()), "");
    }

    #[test]
    fn the_runtime_over_time_its_profile_and_the_memory() {
        let mut profile = fixture::empty();
        profile.timeline = (1..=40).map(point).collect();
        let frame = |name: &str| Frame {
            function: Some(name.to_owned()),
            ..Frame::default()
        };
        let own = |bytes| OwnSite {
            live_bytes: bytes,
            live_count: 3,
            stack: Stack {
                frames: vec![frame("main.keep\u{1b}[31m"), frame("main.main")],
                ..Stack::default()
            },
            ..OwnSite::default()
        };
        profile.go = Some(GoHeap {
            collections: 39,
            moment: profile.timeline.last().and_then(|point| point.go),
            own_profile: Some(OwnProfile {
                rate: 512 << 10,
                sites: (0..7).rev().map(|size| own(size << 20)).collect(),
            }),
            memory: vec![
                MemoryPart {
                    what: "Go heap: pages with objects".to_owned(),
                    bytes: 40 << 20,
                },
                MemoryPart {
                    what: "program and libraries".to_owned(),
                    bytes: 3000,
                },
            ],
            ..GoHeap::default()
        });
        insta::assert_snapshot!(written(&profile));
    }
}
