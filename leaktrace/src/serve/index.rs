//! The index page: what there is, how much of it, and how to get it. One page of HTML that needs nothing else. Pure.

use std::fmt::{self, Write as _};

use super::desk::{Answer, Refusal};
use super::route::INDEX;
use crate::profile::{Profile, Site, TargetInfo, goroutines::Goroutines};
use crate::report::one_line;
use crate::units;

const STYLE: &str = include_str!("index.css");

/// A row of the table.
struct Row {
    name: &'static str,
    count: Option<u64>,
    what: &'static str,
    /// What a link is called, and where it leads.
    forms: &'static [(&'static str, &'static str)],
}

/// The page for process `pid`, from what was found of it just now; `host` is how it was asked for.
pub(super) fn page(pid: u32, host: &str, heap: &Answer<Profile>, goroutines: &Answer<Goroutines>) -> String {
    let mut page = String::new();
    // Text in memory takes everything.
    let _always = write_page(pid, host, heap, goroutines, &mut page);
    page
}

fn write_page(
    pid: u32,
    host: &str,
    heap: &Answer<Profile>,
    goroutines: &Answer<Goroutines>,
    page: &mut String,
) -> fmt::Result {
    let heap_target = heap.as_ref().ok().map(|profile| &profile.target);
    let target = heap_target.or(goroutines.as_ref().ok().map(|look| &look.target));
    let name = escaped(&name(pid, target));
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    writeln!(page, "<title>{name} · leaktrace</title>")?;
    writeln!(
        page,
        "<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{name}</h1>"
    )?;
    let version = goroutines.as_ref().map_or("", |look| &look.go.version);
    write_head(target, version, heap, page)?;
    write_cards(heap, goroutines, page)?;
    write_table(&rows(heap, goroutines), page)?;
    write_remarks(heap, goroutines, page)?;
    write_how_to(host, heap, page)?;
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

/// `server (process 4711)`.
fn name(pid: u32, target: Option<&TargetInfo>) -> String {
    let exe = target.map_or("", |target| target.exe.as_str());
    match exe.rsplit('/').next().filter(|name| !name.is_empty()) {
        Some(name) => format!("{} (process {pid})", one_line(name)),
        None => format!("process {pid}"),
    }
}

fn write_head(target: Option<&TargetInfo>, version: &str, heap: &Answer<Profile>, page: &mut String) -> fmt::Result {
    if let Some(target) = target {
        let version = if version.is_empty() {
            String::new()
        } else {
            format!("{}, ", escaped(&one_line(version)))
        };
        writeln!(
            page,
            "<p class=\"soft command\"><code>{}</code><br>{version}on {}, Linux {}</p>",
            escaped(&one_line(&target.command)),
            escaped(&one_line(&target.host)),
            escaped(&one_line(&target.kernel))
        )?;
    }
    let Some(profile) = heap.as_ref().ok().filter(|profile| !profile.accounting.complete) else {
        return Ok(());
    };
    let reasons = profile.accounting.lost.iter();
    let reasons: Vec<String> = reasons
        .map(|(reason, count)| format!("{} {}", escaped(&one_line(reason)), units::number(*count)))
        .collect();
    writeln!(
        page,
        "<p class=\"warn\">The heap numbers are not complete. Lost: {}.</p>",
        reasons.join(", ")
    )
}

fn write_cards(heap: &Answer<Profile>, goroutines: &Answer<Goroutines>, page: &mut String) -> fmt::Result {
    let mut cards: Vec<(String, String)> = Vec::new();
    if let Ok(profile) = heap {
        let sum = |value: fn(&Site) -> u64| profile.sites.iter().map(value).fold(0, u64::saturating_add);
        // Go's heap is sampled.
        let about = if profile.go.is_some() { " (estimate)" } else { "" };
        for (value, what) in [
            (units::size(sum(|site| site.live_bytes)), "outstanding"),
            (units::number(sum(|site| site.live_count)), "blocks outstanding"),
            (
                units::size(sum(|site| site.allocated_bytes)),
                "allocated since the attach",
            ),
        ] {
            cards.push((value, format!("{what}{about}")));
        }
        cards.push((units::duration(profile.window.duration_ns), "traced".to_owned()));
    }
    if let Ok(look) = goroutines {
        cards.push((units::number(look.count), "goroutines".to_owned()));
    }
    writeln!(page, "<div class=\"cards\">")?;
    for (value, what) in cards {
        writeln!(page, "<div class=\"card\"><b>{value}</b><span>{what}</span></div>")?;
    }
    writeln!(page, "</div>")
}

fn rows(heap: &Answer<Profile>, goroutines: &Answer<Goroutines>) -> Vec<Row> {
    let sites = |is_counted: fn(&Site) -> bool| {
        let profile = heap.as_ref().ok()?;
        Some(profile.sites.iter().filter(|site| is_counted(site)).count() as u64)
    };
    let mut rows = Vec::new();
    if heap.is_ok() {
        rows.push(Row {
            name: "heap",
            count: sites(|site| site.live_count > 0),
            what: "Outstanding memory, by the stack that allocated it. Of what was allocated since the attach.",
            forms: &[
                ("pprof", "heap"),
                ("text", "heap?debug=1"),
                ("flame graph", "/flamegraph.svg"),
                ("JSON", "/profile.json"),
            ],
        });
        rows.push(Row {
            name: "allocs",
            count: sites(|_| true),
            what: "The same profile, with all that was allocated shown first.",
            forms: &[("pprof", "allocs"), ("text", "allocs?debug=1")],
        });
    }
    if let Ok(look) = goroutines {
        rows.push(Row {
            name: "goroutine",
            count: Some(look.count),
            what: "All goroutines, by stack. In full: each as in a panic, with its state and how long it has waited.",
            forms: &[
                ("pprof", "goroutine"),
                ("text", "goroutine?debug=1"),
                ("full", "goroutine?debug=2"),
            ],
        });
        rows.push(Row {
            name: "goroutineleak",
            count: None,
            what: "Goroutines that nothing can wake any more, proven by two looks through the heap. Takes a second or more.",
            forms: &[("pprof", "goroutineleak"), ("text", "goroutineleak?debug=1"), ("full", "goroutineleak?debug=2")],
        });
    }
    rows.push(Row {
        name: "cmdline",
        count: None,
        what: "The command line of the process, arguments separated by zero bytes.",
        forms: &[("raw", "cmdline")],
    });
    rows
}

fn write_table(rows: &[Row], page: &mut String) -> fmt::Result {
    page.push_str("<h2>Profiles</h2>\n<table>\n<thead><tr><th>Profile</th><th class=\"number\">Count</th>");
    page.push_str("<th>What it is</th><th>Get it</th></tr></thead>\n<tbody>\n");
    for Row {
        name,
        count,
        what,
        forms,
    } in rows
    {
        let count = count.map_or_else(|| "–".to_owned(), units::number);
        write!(
            page,
            "<tr><td><code>{name}</code></td><td class=\"number\">{count}</td><td>{what}</td>"
        )?;
        page.push_str("<td class=\"forms\">");
        for (form, to) in *forms {
            write!(page, "<a href=\"{to}\">{form}</a>")?;
        }
        page.push_str("</td></tr>\n");
    }
    writeln!(page, "</tbody>\n</table>")
}

/// Why something is not there.
fn write_remarks(heap: &Answer<Profile>, goroutines: &Answer<Goroutines>, page: &mut String) -> fmt::Result {
    let refusals = heap.as_ref().err().into_iter().chain(goroutines.as_ref().err());
    let mut lines: Vec<&str> = refusals.map(line).collect();
    lines.dedup();
    let mut lines = lines.into_iter();
    lines.try_for_each(|line| writeln!(page, "<p class=\"soft\">{}.</p>", escaped(&one_line(line))))
}

fn line(refusal: &Refusal) -> &str {
    match refusal {
        Refusal::Absent(line) | Refusal::Unavailable(line) | Refusal::Failed(line) => line,
    }
}

/// Commands to copy. `host` is what the reader has asked for.
fn write_how_to(host: &str, heap: &Answer<Profile>, page: &mut String) -> fmt::Result {
    let base = format!("http://{}{INDEX}", escaped(host));
    let main = if heap.is_ok() { "heap" } else { "goroutine" };
    writeln!(page, "<h2>Use it</h2>\n<pre>go tool pprof -http=: {base}{main}")?;
    if heap.is_ok() {
        writeln!(page, "go tool pprof -sample_index=alloc_space -top {base}heap")?;
    }
    writeln!(
        page,
        "\n# what changes in 30 seconds\ngo tool pprof -top '{base}{main}?seconds=30'"
    )?;
    writeln!(
        page,
        "\n# keep one, and later see what became more\ncurl -o base.pb.gz {base}{main}"
    )?;
    writeln!(page, "go tool pprof -top -diff_base base.pb.gz {base}{main}</pre>")?;
    page.push_str(
        "<p class=\"soft\">Nothing is asked of the process: <code>gc=1</code> is accepted, and no collection ",
    );
    page.push_str("is forced. There is no CPU profile here: use <code>perf</code>.</p>\n");
    Ok(())
}

/// Text as HTML.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::profile::fixture;

    #[test]
    fn the_page_is_as_documented() {
        let goroutines = Err(Refusal::Absent("process 4711 is no Go program".to_owned()));
        insta::assert_snapshot!(page(
            4711,
            "127.0.0.1:6060",
            &Ok(Arc::new(fixture::profile())),
            &goroutines
        ));
    }

    #[test]
    fn what_the_process_says_of_itself_is_text_and_no_html() {
        let mut profile = fixture::profile();
        profile.target.command = "<script>alert('x')</script>\u{1b}[2J".to_owned();
        profile.target.exe = "/tmp/<b>&".to_owned();
        let page = page(
            1,
            "<u>",
            &Ok(Arc::new(profile)),
            &Err(Refusal::Failed("a <i> b".to_owned())),
        );
        assert!(
            !page.contains("<script")
                && !page.contains("<b>&")
                && !page.contains("<i>")
                && !page.contains("<u>")
                && !page.contains('\u{1b}')
        );
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)") && page.contains("&lt;b&gt;&amp; (process 1)"));
    }

    #[test]
    fn a_process_that_has_ended_has_a_page_too() {
        let ended = Refusal::Unavailable("process 7 has ended".to_owned());
        let page = page(7, "localhost", &Err(ended.clone()), &Err(ended));
        assert!(page.contains("<h1>process 7</h1>") && page.contains("<p class=\"soft\">process 7 has ended."));
        assert!(!page.contains("?debug=1") && page.contains("href=\"cmdline\""));
    }
}
