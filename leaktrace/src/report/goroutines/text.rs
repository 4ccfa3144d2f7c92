//! The full report of goroutines, for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::creator;
use crate::profile::goroutines::{CreationSite, GoroutineStack, Goroutines, Leaks};
use crate::report::text::{paint::Paint, stack};
use crate::report::{View, label};
use crate::units;

/// Stacks shown of a site.
const STACKS: usize = 3;
/// Things that goroutines wait for, shown of a stack.
const OBJECTS: usize = 2;
/// States shown on one line.
const STATES: usize = 6;

/// Writes the goroutines: all together, then by the `go` statements that made them.
///
/// # Errors
/// What `out` refused.
pub fn write_text(goroutines: &Goroutines, view: &View, out: &mut dyn Write) -> io::Result<()> {
    let paint = Paint(view.colour);
    writeln!(out, "{}", paint.bold(&headline(goroutines)))?;
    writeln!(out, "{}", label::one_line(&target(goroutines)))?;
    writeln!(out, "{}", states(&goroutines.states))?;
    if let Some(leaks) = &goroutines.leaks {
        writeln!(out, "{}", paint.warn(&proof(leaks)))?;
    }
    for (index, site) in goroutines.sites.iter().enumerate().take(view.top) {
        writeln!(out)?;
        write_site(goroutines, index, site, view, out)?;
    }
    let hidden = goroutines.sites.get(view.top..).unwrap_or_default();
    if !hidden.is_empty() {
        let count = hidden.iter().map(|site| site.count).sum();
        let sites = units::count(hidden.len() as u64, "more statement");
        writeln!(
            out,
            "\n… and {} from {sites} (--top shows more)",
            units::count(count, "goroutine")
        )?;
    }
    if let Some(lost) = lost(goroutines) {
        writeln!(out, "\n{}", paint.faint(&lost))?;
    }
    Ok(())
}

/// `1,204 goroutines, and 5 of the runtime's own; 200 more than 10.0 s ago (20.0/s)`.
fn headline(goroutines: &Goroutines) -> String {
    let now = units::count(goroutines.count, "goroutine");
    let own = units::number(goroutines.system);
    format!(
        "{now}, and {own} of the runtime's own{}",
        growth(goroutines.first_count, goroutines.count, goroutines)
    )
}

fn growth(first: u64, now: u64, goroutines: &Goroutines) -> String {
    let seconds = goroutines.window.duration_ns as f64 / 1e9;
    if goroutines.timeline.len() < 2 || seconds <= 0.0 {
        return String::new();
    }
    let time = units::duration(goroutines.window.duration_ns);
    match now.cmp(&first) {
        std::cmp::Ordering::Equal => format!("; as many as {time} ago"),
        std::cmp::Ordering::Less => format!("; {} fewer than {time} ago", units::number(first - now)),
        std::cmp::Ordering::Greater => format!(
            "; {} more than {time} ago ({:.1}/s)",
            units::number(now - first),
            (now - first) as f64 / seconds
        ),
    }
}

fn target(goroutines: &Goroutines) -> String {
    let target = &goroutines.target;
    let pids: Vec<String> = target.pids.iter().map(u32::to_string).collect();
    let go = &goroutines.go;
    let layout = go.layout_of.as_ref().map(|version| format!(" (read as {version})"));
    format!(
        "{} (pid {}); {}{}, on {}, Linux {}",
        target.command,
        pids.join(","),
        go.version,
        layout.unwrap_or_default(),
        target.host,
        target.kernel
    )
}

/// `998 chan receive, 2 running`, the most first.
fn states(states: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<(&String, &u64)> = states.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let rest: u64 = sorted.iter().skip(STATES).map(|(_, count)| **count).sum();
    let shown = sorted.iter().take(STATES);
    let mut words: Vec<String> = shown
        .map(|(state, count)| format!("{} {}", units::number(**count), label::one_line(state)))
        .collect();
    if rest > 0 {
        words.push(format!("{} in other states", units::number(rest)));
    }
    words.join(", ")
}

fn write_site(
    goroutines: &Goroutines,
    index: usize,
    site: &CreationSite,
    view: &View,
    out: &mut dyn Write,
) -> io::Result<()> {
    let share = units::percent(site.count as f64, goroutines.count as f64);
    let growth = growth(site.first_count, site.count, goroutines);
    let line = format!(
        "{:2}. {}, {share}{growth}",
        index + 1,
        units::count(site.count, "goroutine")
    );
    writeln!(out, "{}", Paint(view.colour).bold(&line))?;
    let creator = creator(site);
    writeln!(out, "    created by {}", label::one_line(&creator))?;
    writeln!(
        out,
        "    to run {}; {}{}",
        label::one_line(&site.start),
        states(&site.states),
        waited(site.longest_wait_ns)
    )?;
    let own: Vec<&GoroutineStack> = goroutines.stacks.iter().filter(|one| one.site == index).collect();
    for one in own.iter().take(STACKS) {
        let leaked = leaked(one);
        let waited = if own.len() > 1 {
            waited(one.longest_wait_ns)
        } else {
            String::new()
        };
        writeln!(
            out,
            "    {} {}{waited}{leaked}:",
            units::number(one.count),
            label::one_line(&one.state)
        )?;
        if one.stack.frames.is_empty() {
            writeln!(
                out,
                "      {}",
                Paint(view.colour).faint("its stack changes as it runs")
            )?;
            continue;
        }
        for line in stack::lines(&one.stack, view) {
            writeln!(out, "{line}")?;
        }
    }
    let hidden: u64 = own.iter().skip(STACKS).map(|one| one.count).sum();
    if hidden > 0 {
        writeln!(out, "    … and {} elsewhere", units::number(hidden))?;
    }
    Ok(())
}

/// `; for about 3.0 min`.
fn waited(longest: Option<u64>) -> String {
    longest.map_or_else(String::new, |ns| format!("; waiting for about {}", units::duration(ns)))
}

/// `5 goroutines are leaked: …`.
fn proof(leaks: &Leaks) -> String {
    let looked = format!(
        "of {} that wait for channels, mutexes or wait groups, in two looks through {} of heap",
        units::number(leaks.examined),
        units::size(leaks.heap_bytes)
    );
    let unreadable = match leaks.unreadable_bytes {
        0 => String::new(),
        bytes => format!(" ({} could not be read)", units::size(bytes)),
    };
    match leaks.proven {
        0 => format!("no leak proven, {looked}{unreadable}"),
        count => format!(
            "leaked: {} that nobody can wake, {looked}{unreadable}",
            units::count(count, "goroutine")
        ),
    }
}

/// `; 50 leaked, on channel 0xc000012345`.
fn leaked(one: &GoroutineStack) -> String {
    if one.leaked == 0 {
        return String::new();
    }
    let shown: Vec<&str> = one.blocked_on.iter().take(OBJECTS).map(String::as_str).collect();
    let more = if one.blocked_on.len() > OBJECTS { ", …" } else { "" };
    let count = if one.leaked == one.count {
        "leaked".to_owned()
    } else {
        format!("{} leaked", units::number(one.leaked))
    };
    format!("; {count}, waiting for {}{more}", label::one_line(&shown.join(", ")))
}

fn lost(goroutines: &Goroutines) -> Option<String> {
    let words: Vec<String> = goroutines
        .lost
        .iter()
        .map(|(reason, count)| {
            let count = units::number(*count);
            match reason.as_str() {
                "ended_while_read" => format!("{count} ended while they were read"),
                "changing_while_read" => format!("{count} changed while they were read, and are shown without a stack"),
                "unreadable" => format!("{count} could not be read"),
                other => format!("{count} {other}"),
            }
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}
