//! The short report between two moments of a trace: totals on one line, then the sites that changed most.

use std::collections::HashMap;
use std::io::{self, Write};

use super::text::paint::Paint;
use super::{View, label};
use crate::profile::{Profile, Site, Stack};
use crate::units;

/// Functions shown of a stack.
const CALLS: usize = 3;

/// Writes what is outstanding `now`, and what changed since `previous`: at most `view.top` sites, a line each.
///
/// Both profiles are of one trace, in which a site keeps its id.
///
/// # Errors
/// What `out` refused.
pub fn write_interval(previous: Option<&Profile>, now: &Profile, view: &View, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", Paint(view.colour).bold(&totals(previous, now)))?;
    for change in changes(previous, now).iter().take(view.top) {
        writeln!(out, "{}", line(change, view))?;
    }
    Ok(())
}

/// `20.0 s: 12.4 MiB in 48,210 blocks (+1.2 MiB, +4,000 blocks); resident 62.1 MiB`.
fn totals(previous: Option<&Profile>, now: &Profile) -> String {
    let accounting = &now.accounting;
    let change = previous.map(|previous| {
        let before = &previous.accounting;
        let bytes = units::size_change(before.live_bytes, accounting.live_bytes);
        format!(
            " ({bytes}, {} blocks)",
            units::number_change(before.live_count, accounting.live_count)
        )
    });
    let resident = now.timeline.last().map_or(0, |point| point.resident_bytes);
    let resident = if resident > 0 {
        format!("; resident {}", units::size(resident))
    } else {
        String::new()
    };
    let young = now.go.as_ref().map_or(0, |go| go.young_bytes);
    let young = match young {
        0 => String::new(),
        young => format!(", {} too young to be judged", units::size(young)),
    };
    let goroutines = now.timeline.iter().rev().find_map(|point| point.go?.goroutines);
    let goroutines = goroutines.map_or_else(String::new, |count| format!(", {}", units::count(count, "goroutine")));
    let lost = if accounting.complete {
        ""
    } else {
        "; incomplete: events were lost"
    };
    format!(
        "{}: {} in {}{}{young}{resident}{goroutines}{lost}",
        units::duration(now.window.duration_ns),
        units::size(accounting.live_bytes),
        units::count(accounting.live_count, "block"),
        change.unwrap_or_default(),
    )
}

/// A site whose live bytes are not what they were.
struct Change<'a> {
    stack: &'a Stack,
    before: (u64, u64),
    now: (u64, u64),
}

/// Sites that changed by at least a byte, the largest change first.
fn changes<'a>(previous: Option<&'a Profile>, now: &'a Profile) -> Vec<Change<'a>> {
    let amount = |site: &Site| (site.live_bytes, site.live_count);
    let by_id = |site: &'a Site| (site.id.as_str(), site);
    let mut gone: HashMap<&str, &Site> = previous.iter().flat_map(|profile| &profile.sites).map(by_id).collect();
    let mut changes: Vec<Change<'_>> = Vec::new();
    for site in &now.sites {
        let before = gone.remove(site.id.as_str()).map_or((0, 0), amount);
        changes.push(Change {
            stack: &site.stack,
            before,
            now: amount(site),
        });
    }
    changes.extend(gone.values().map(|site| Change {
        stack: &site.stack,
        before: amount(site),
        now: (0, 0),
    }));
    changes.retain(|change| change.before.0 != change.now.0);
    changes.sort_by_key(|change| std::cmp::Reverse((change.before.0.abs_diff(change.now.0), change.now.0)));
    changes
}

fn line(change: &Change<'_>, view: &View) -> String {
    let difference = units::size_change(change.before.0, change.now.0);
    let now = format!(
        "{} in {}",
        units::size(change.now.0),
        units::count(change.now.1, "block")
    );
    let line = format!("{difference:>12}  to {now}  {}", calls(change.stack));
    let Some(width) = view.width else { return line };
    let length = line.chars().count();
    if length <= width {
        line
    } else {
        line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
    }
}

/// `parse ← handle ← main`: the functions that allocate, and who called them.
fn calls(stack: &Stack) -> String {
    let mut calls: Vec<String> = stack
        .frames
        .iter()
        .take(CALLS)
        .map(|frame| without_arguments(&label::frame_name(frame)))
        .collect();
    if stack.frames.len() > CALLS {
        calls.push("…".to_owned());
    } else if !stack.whole {
        calls.push(label::TRUNCATED.to_owned());
    } else if stack.frames.is_empty() {
        calls.push(label::UNKNOWN.to_owned());
    }
    calls.join(" ← ")
}

/// A C++ name up to its arguments, `std::vector<…>::push_back`: a line has room for names only.
fn without_arguments(name: &str) -> String {
    let mut short = String::new();
    let mut depth = 0_usize;
    for c in name.chars() {
        match c {
            '(' if depth == 0 && !short.is_empty() && !short.ends_with(':') => break,
            '<' if !short.is_empty() && !short.ends_with("operator") && !short.ends_with("operator<") => {
                depth += 1;
                if depth == 1 {
                    short.push_str("<…>");
                }
            }
            '>' if depth > 0 => depth -= 1,
            _ if depth == 0 => short.push(c),
            _ => {}
        }
    }
    if depth == 0 && !short.is_empty() {
        short
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::fixture;

    fn written(previous: Option<&Profile>, now: &Profile, view: &View) -> String {
        let mut out = Vec::new();
        write_interval(previous, now, view, &mut out).expect("writes");
        String::from_utf8(out).expect("text")
    }

    fn earlier() -> Profile {
        let mut profile = fixture::profile();
        profile.sites[0].live_bytes -= 1_258_291;
        profile.sites[0].live_count -= 4000;
        profile.sites[2].live_bytes += 160;
        profile.sites.push(Site {
            id: "gone".to_owned(),
            live_bytes: 20_480,
            ..profile.sites[1].clone()
        });
        profile.accounting.live_bytes -= 1_237_971;
        profile.accounting.live_count -= 4000;
        profile
    }

    #[test]
    fn says_what_changed() {
        insta::assert_snapshot!(written(Some(&earlier()), &fixture::profile(), &View::default()));
    }

    #[test]
    fn the_first_one_has_nothing_to_compare() {
        let text = written(
            None,
            &fixture::profile(),
            &View {
                top: 1,
                ..View::default()
            },
        );
        assert_eq!(text.lines().count(), 2);
        assert!(
            text.starts_with("30.0 s: 12.4 MiB in 48,210 blocks; resident 62.1 MiB"),
            "{text}"
        );
    }

    #[test]
    fn nothing_changed_is_one_line() {
        let profile = fixture::profile();
        assert_eq!(written(Some(&profile), &profile, &View::default()).lines().count(), 1);
    }

    #[test]
    fn fits_the_terminal() {
        let view = View {
            width: Some(60),
            ..View::default()
        };
        let text = written(Some(&earlier()), &fixture::profile(), &view);
        assert!(text.lines().skip(1).all(|line| line.chars().count() <= 60), "{text}");
    }

    #[test]
    fn names_lose_their_arguments_only() {
        assert_eq!(
            without_arguments("std::vector<int, std::allocator<int> >::push_back(int&&)"),
            "std::vector<…>::push_back"
        );
        assert_eq!(
            without_arguments("(anonymous namespace)::f(int)"),
            "(anonymous namespace)::f(int)".replace("(int)", "")
        );
        assert_eq!(without_arguments("ns::operator<<(std::ostream&)"), "ns::operator<<");
        assert_eq!(
            without_arguments("<alloc::vec::Vec<T> as Clone>::clone"),
            "<alloc::vec::Vec<…> as Clone>::clone"
        );
        assert_eq!(without_arguments("main"), "main");
    }
}
