//! The sites, by live bytes: what each holds, how it grows, how old it is, what that means, and where it is.

use std::io::{self, Write};

use super::paint::Paint;
use super::stack;
use crate::profile::{Heap, Profile, Reach, Site, Verdict};
use crate::report::{View, label, wrap::wrapped};
use crate::units;

/// Writes the sites that the view shows, and a line on those that it does not: those of each heap apart, where there are
/// two.
pub(super) fn write(profile: &Profile, view: &View, out: &mut dyn Write) -> io::Result<()> {
    let of = |heap: Heap| -> Vec<&Site> {
        let live = profile.sites.iter().filter(|site| site.live_count > 0);
        live.filter(|site| site.heap == heap).collect()
    };
    let heaps = [("Go's heap", of(Heap::Go)), ("Native heap", of(Heap::Native))];
    let are_both = heaps.iter().all(|(_, sites)| !sites.is_empty());
    for (name, sites) in heaps {
        if are_both {
            let bytes = sites
                .iter()
                .fold(0_u64, |sum, site| sum.saturating_add(site.live_bytes));
            let line = format!("{name}: {}", units::size(bytes));
            writeln!(out, "\n{}", Paint(view.colour).bold(&line))?;
        }
        write_heap(sites, profile, view, out)?;
    }
    if profile.go.as_ref().is_some_and(|go| go.live_count == 0) {
        write_young(profile, view, out)?;
    }
    Ok(())
}

/// Where nothing of Go's heap is old enough to be judged, what is young is better than nothing.
fn write_young(profile: &Profile, view: &View, out: &mut dyn Write) -> io::Result<()> {
    let young = |site: &Site| site.go.map_or(0, |go| go.young_bytes);
    let mut sites: Vec<&Site> = profile.sites.iter().filter(|site| young(site) > 0).collect();
    sites.sort_by_key(|site| std::cmp::Reverse(young(site)));
    for (site, rank) in sites.iter().take(view.top).zip(1_u64..) {
        let go = site.go.unwrap_or_default();
        let line = format!(
            "{} ({}) in {}, too young to be judged",
            units::size(go.young_bytes),
            units::count(go.samples, "sample"),
            units::count(go.young_count, "block"),
        );
        writeln!(out, "\n{:>2}. {}", units::number(rank), Paint(view.colour).bold(&line))?;
        stack::lines(&site.stack, view)
            .iter()
            .try_for_each(|line| writeln!(out, "{line}"))?;
    }
    Ok(())
}

fn write_heap(mut sites: Vec<&Site>, profile: &Profile, view: &View, out: &mut dyn Write) -> io::Result<()> {
    sites.sort_by_key(|site| std::cmp::Reverse(site.live_bytes));
    let large = sites
        .iter()
        .take_while(|site| site.live_bytes >= view.min_bytes)
        .count();
    let (shown, hidden) = sites.split_at(large.min(view.top));
    for (site, rank) in shown.iter().zip(1_u64..) {
        write_site(site, rank, profile, view, out)?;
    }
    if let Some(line) = left_out(hidden, view) {
        writeln!(out, "\n{line}")?;
    }
    Ok(())
}

fn write_site(site: &Site, rank: u64, profile: &Profile, view: &View, out: &mut dyn Write) -> io::Result<()> {
    let paint = Paint(view.colour);
    writeln!(
        out,
        "\n{:>2}. {}",
        units::number(rank),
        paint.bold(&numbers(site, profile.accounting.live_bytes))
    )?;
    write_verdict(site, view, out)?;
    write_holders(site, view, out)?;
    stack::lines(&site.stack, view)
        .iter()
        .try_for_each(|line| writeln!(out, "{line}"))
}

/// The verdict and why, wrapped.
fn write_verdict(site: &Site, view: &View, out: &mut dyn Write) -> io::Result<()> {
    let word = verdict(site.verdict);
    let lines = wrapped(
        &format!("{word}{}", because(site)),
        super::width(view).saturating_sub(4),
        "  ",
    );
    for (line, at) in lines.iter().zip(0..) {
        match line.strip_prefix(word).filter(|_| at == 0) {
            Some(rest) => writeln!(out, "    {}{rest}", Paint(view.colour).verdict(site.verdict, word))?,
            None => writeln!(out, "    {line}")?,
        }
    }
    Ok(())
}

/// The way from what holds most of the blocks, and what else holds some.
fn write_holders(site: &Site, view: &View, out: &mut dyn Write) -> io::Result<()> {
    let way = site
        .holders
        .first()
        .map(|first| first.chain.as_slice())
        .unwrap_or_default();
    let way = (!way.is_empty()).then(|| format!("via {}", way.join(" → ")));
    let others = site.holders.iter().skip(1).map(|holder| {
        let of = units::number(holder.of);
        let are = if holder.held == 1 { "is" } else { "are" };
        format!("{} of {of} {are} held by {}", units::number(holder.held), holder.root)
    });
    for text in way.into_iter().chain(others) {
        let text = label::one_line(&text);
        for line in wrapped(&text, super::width(view).saturating_sub(6), "  ") {
            writeln!(out, "      {line}")?;
        }
    }
    Ok(())
}

/// `12.1 MiB in 47,000 blocks, 97 %; growing 412 KiB/s; oldest 29.5 s`.
fn numbers(site: &Site, total: u64) -> String {
    let error = site
        .estimate_error
        .map(|error| format!(" ±{}", units::percent(error, 1.0)))
        .unwrap_or_default();
    let error = match &site.go {
        Some(go) => format!("{error} ({})", units::count(go.live_samples, "sample")),
        None => error,
    };
    format!(
        "{}{error} in {}, {}{}{}",
        units::size(site.live_bytes),
        units::count(site.live_count, "block"),
        units::percent(site.live_bytes as f64, total as f64),
        growth(site),
        oldest(site),
    )
}

/// How fast the site grows; nothing where too little is known to say.
fn growth(site: &Site) -> String {
    match site.growth_bytes_per_s {
        _ if site.verdict == Verdict::Unknown => String::new(),
        rate if units::is_still(rate) => "; not growing".to_owned(),
        rate if rate > 0.0 => format!("; growing {}", units::rate(rate)),
        rate => format!("; shrinking {}", units::rate(rate)),
    }
}

/// Age of the oldest block; nothing while all are of the youngest cohort, whose age has no lower bound.
fn oldest(site: &Site) -> String {
    match site.oldest_age_ns {
        0 => String::new(),
        age => format!("; oldest {}", units::duration(age)),
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Leak => "leak",
        Verdict::Growing => "growing",
        Verdict::Stable => "stable",
        Verdict::Churn => "churn",
        Verdict::Unknown => "unknown",
    }
}

fn because(site: &Site) -> String {
    let why = if site.why.trim().is_empty() {
        String::new()
    } else {
        format!(": {}", site.why.trim())
    };
    let reach = match (&site.held_by, site.reach) {
        (Some(holder), _) => format!("; held by {holder}"),
        (None, Reach::Lost) => "; nothing points to the blocks any more".to_owned(),
        (None, Reach::Reachable) => "; something still points to the blocks".to_owned(),
        (None, Reach::Unknown) => String::new(),
    };
    label::one_line(&(why + &reach)).into_owned()
}

fn left_out(hidden: &[&Site], view: &View) -> Option<String> {
    let bytes = hidden
        .iter()
        .fold(0_u64, |sum, site| sum.saturating_add(site.live_bytes));
    let blocks = hidden
        .iter()
        .fold(0_u64, |sum, site| sum.saturating_add(site.live_count));
    let (sites, hold) = match hidden.len() {
        0 => return None,
        1 => ("1 more site".to_owned(), "holds"),
        more => (format!("{} more sites", units::number(more as u64)), "hold"),
    };
    let option = if hidden.iter().any(|site| site.live_bytes >= view.min_bytes) {
        "--top"
    } else {
        "--min-bytes"
    };
    Some(format!(
        "{sites} {hold} {} in {} ({option} shows more)",
        units::size(bytes),
        units::count(blocks, "block")
    ))
}
