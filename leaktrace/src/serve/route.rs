//! From the address of a request to what is wanted, by the rules of Go's `net/http/pprof`. Pure.

use std::time::Duration;

use crate::report::goroutines::Which;
use crate::report::pprof::First;

/// The index page.
pub(super) const INDEX: &str = "/debug/pprof/";
/// Longest time between the two looks of a difference.
const LONGEST: u64 = 3600;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// To be sent on to the index page.
    Elsewhere,
    Index,
    Heap(First, Form),
    Goroutines(Which, Form),
    CommandLine,
    /// The saved profile.
    Saved,
    FlameGraph,
}

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// pprof's own.
    Binary,
    /// Text, the more of it the higher the number.
    Text(u32),
    /// In pprof's form, what changes in this time.
    Change(Duration),
}

/// What a request asks for besides the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extra {
    /// A garbage collection first.
    pub collection: bool,
}

/// Why there is no such page: the status of the answer, and a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoPage(pub u16, pub String);

/// What is wanted at this path, with this query.
pub(super) fn page(path: &str, query: &str) -> Result<(Page, Extra), NoPage> {
    let extra = Extra {
        collection: number(query, "gc") > 0,
    };
    let page = match path {
        "/" | "/debug/pprof" => Page::Elsewhere,
        INDEX => Page::Index,
        "/profile.json" => Page::Saved,
        "/flamegraph.svg" => Page::FlameGraph,
        _ => {
            let name = path.strip_prefix(INDEX).ok_or_else(|| nothing(path))?;
            profile(name, query)?
        }
    };
    Ok((page, extra))
}

fn profile(name: &str, query: &str) -> Result<Page, NoPage> {
    match name {
        "heap" => Ok(Page::Heap(First::InUse, form(query)?)),
        "allocs" => Ok(Page::Heap(First::Allocated, form(query)?)),
        "goroutine" => Ok(Page::Goroutines(Which::All, form(query)?)),
        "goroutineleak" => Ok(Page::Goroutines(Which::Leaked, form(query)?)),
        "cmdline" => Ok(Page::CommandLine),
        "profile" => Err(NoPage(
            501,
            "no CPU profile: leaktrace profiles memory; `perf record -g -p PID` profiles the processor from outside"
                .to_owned(),
        )),
        "trace" => Err(NoPage(
            501,
            "no execution trace: only the runtime of the process could write one; leaktrace reads memory".to_owned(),
        )),
        "symbol" => Err(NoPage(
            501,
            "no look-up of symbols: the profiles have their names in them already".to_owned(),
        )),
        "threadcreate" | "block" | "mutex" => Err(NoPage(
            404,
            format!("no {name} profile: it would have to be kept by the process itself; there are {NAMES}"),
        )),
        _ => Err(NoPage(404, format!("no such profile; there are {NAMES}"))),
    }
}

const NAMES: &str = "heap, allocs, goroutine, goroutineleak and cmdline";

fn nothing(path: &str) -> NoPage {
    let path: String = path.chars().take(100).collect();
    NoPage(404, format!("nothing at {path}: {INDEX} lists what there is"))
}

/// The form, as Go takes it from the query.
fn form(query: &str) -> Result<Form, NoPage> {
    let debug = number(query, "debug");
    let Some(text) = value(query, "seconds").filter(|text| !text.is_empty()) else {
        return Ok(if debug == 0 { Form::Binary } else { Form::Text(debug) });
    };
    let wrong = |why: &str| Err(NoPage(400, why.to_owned()));
    match text.parse::<u64>() {
        Ok(seconds @ 1..=LONGEST) if debug == 0 => Ok(Form::Change(Duration::from_secs(seconds))),
        Ok(1..=LONGEST) => wrong("seconds and debug do not go together: a difference has no text form; leave one out"),
        _ => wrong("seconds must be a whole number from 1 to 3600"),
    }
}

/// A number in the query; what is none counts as 0.
fn number(query: &str, name: &str) -> u32 {
    value(query, name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(path: &str, query: &str) -> Result<Page, u16> {
        page(path, query).map(|(page, _)| page).map_err(|no| no.0)
    }

    #[test]
    fn pages_are_where_go_has_them() {
        let change = Form::Change(Duration::from_secs(5));
        for (path, query, page) in [
            ("/", "", Page::Elsewhere),
            ("/debug/pprof", "", Page::Elsewhere),
            ("/debug/pprof/", "", Page::Index),
            ("/debug/pprof/heap", "", Page::Heap(First::InUse, Form::Binary)),
            (
                "/debug/pprof/heap",
                "debug=1&gc=1",
                Page::Heap(First::InUse, Form::Text(1)),
            ),
            ("/debug/pprof/heap", "debug=0", Page::Heap(First::InUse, Form::Binary)),
            (
                "/debug/pprof/heap",
                "debug=x&seconds=",
                Page::Heap(First::InUse, Form::Binary),
            ),
            ("/debug/pprof/allocs", "seconds=5", Page::Heap(First::Allocated, change)),
            (
                "/debug/pprof/goroutine",
                "debug=2",
                Page::Goroutines(Which::All, Form::Text(2)),
            ),
            (
                "/debug/pprof/goroutineleak",
                "seconds=5",
                Page::Goroutines(Which::Leaked, change),
            ),
            ("/debug/pprof/cmdline", "", Page::CommandLine),
            ("/profile.json", "", Page::Saved),
            ("/flamegraph.svg", "", Page::FlameGraph),
        ] {
            assert_eq!(wanted(path, query), Ok(page), "{path}?{query}");
        }
        assert!(page("/debug/pprof/heap", "gc=1").unwrap().1.collection);
    }

    #[test]
    fn what_is_not_there_is_said_in_a_line() {
        for (path, query, status) in [
            ("/favicon.ico", "", 404),
            ("/debug/pprof/heap/", "", 404),
            ("/debug/pprof/mutex", "", 404),
            ("/debug/pprof/profile", "seconds=1", 501),
            ("/debug/pprof/trace", "", 501),
            ("/debug/pprof/symbol", "", 501),
            ("/debug/pprof/heap", "seconds=0", 400),
            ("/debug/pprof/heap", "seconds=-1", 400),
            ("/debug/pprof/heap", "seconds=1.5", 400),
            ("/debug/pprof/heap", "seconds=3601", 400),
            ("/debug/pprof/heap", "seconds=99999999999999999999", 400),
            ("/debug/pprof/heap", "seconds=1&debug=1", 400),
            ("//", "", 404),
            ("", "", 404),
        ] {
            let no = page(path, query).unwrap_err();
            assert_eq!(no.0, status, "{path}?{query}");
            assert!(!no.1.contains('\n'));
        }
    }
}
