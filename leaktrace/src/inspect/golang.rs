//! The Go runtime of a process: what was found of it, and which parts will work.

use super::findings::{GoPart, GoSeen};
use crate::go::{GoError, LayoutSource, Moment, Runtime, Sampled};
use crate::target::AddressSpace;

/// Looks at the runtime, if there is one. What stands against looking at it is a part that does not work.
pub fn go(space: &AddressSpace) -> Option<GoSeen> {
    match Runtime::find(space) {
        Ok(runtime) => Some(seen(&runtime)),
        Err(GoError::NotGo(_)) => None,
        Err(error) => Some(GoSeen {
            parts: vec![part("all", Err::<(), _>(error))],
            ..GoSeen::default()
        }),
    }
}

fn seen(runtime: &Runtime) -> GoSeen {
    let headers = runtime.file.headers();
    let text = |address: Option<u64>| address.map(|address| format!("{address:#x}"));
    let probe = |find: fn(&crate::go::HeapProbes) -> u64| runtime.probes.as_ref().ok().map(find);
    let places = [
        ("description", Some(runtime.module.address.wrapping_add(runtime.bias))),
        ("goroutines", runtime.globals.goroutines.map(|found| found.list)),
        ("heap", runtime.globals.heap),
        ("statistics", runtime.globals.stats),
        ("pacer", runtime.globals.controller),
        ("semaphores", runtime.globals.semaphores),
        ("probe in refill", probe(|probes| probes.refill)),
        ("probe in allocLarge", probe(|probes| probes.large)),
        ("probe in uncacheSpan", probe(|probes| probes.uncache)),
    ];
    GoSeen {
        version: Some(runtime.info.version.clone()),
        experiments: runtime.info.experiments.clone(),
        build_mode: runtime.info.build_mode.clone(),
        cgo: has_cgo(runtime),
        stripped: headers.section(b".symtab").is_none(),
        file: Some(runtime.file.name.clone()),
        layout_from: Some(runtime.source.name()),
        layout_of: match runtime.source {
            LayoutSource::Nearest(minor) => Some(format!("go1.{minor}")),
            LayoutSource::Known | LayoutSource::Debug => None,
        },
        places: places.into_iter().map(|(name, at)| (name, text(at))).collect(),
        parts: parts(runtime),
    }
}

/// Programs that can call C have the package for it.
fn has_cgo(runtime: &Runtime) -> bool {
    let mut functions = runtime.table.functions();
    functions.any(|function| {
        runtime
            .table
            .name(&function)
            .is_some_and(|name| name.starts_with(b"runtime/cgo"))
    })
}

fn parts(runtime: &Runtime) -> Vec<GoPart> {
    let heap = || runtime.check_heap();
    let probes = || {
        let found = runtime.probes.as_ref().map(|_| ());
        found
            .map_err(ToString::to_string)
            .and_then(|()| heap().map_err(|error| error.to_string()))
    };
    vec![
        part("goroutines", runtime.check()),
        part("leaked goroutines", runtime.check().and_then(|()| heap())),
        part("heap by stack", probes()),
        part("timeline", Moment::read(runtime).map(drop)),
        match Sampled::read(runtime) {
            Ok(None) => part("own profile", Err::<(), _>("the program has its own heap profile off")),
            found => part("own profile", found.map(drop)),
        },
    ]
}

fn part(name: &'static str, outcome: Result<(), impl ToString>) -> GoPart {
    GoPart {
        name,
        works: outcome.is_ok(),
        why: outcome.err().map(|why| why.to_string()),
    }
}
