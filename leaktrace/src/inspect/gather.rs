//! Looks at a process: what a trace reads before it attaches, in the same order.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{
    code,
    findings::{Inspection, ProcessSeen, SCHEMA},
    golang, probing,
};
use crate::{
    session::guard,
    target::{AddressSpace, Process},
};

/// Everything that is shown.
pub fn gather(pid: u32) -> Result<Inspection> {
    let process = Process::open(pid)?;
    let started = Instant::now();
    let space =
        AddressSpace::read(pid).with_context(|| format!("cannot read the memory map of process {pid}; use sudo"))?;
    let map_ns = nanoseconds(started);
    let guarded = guard::check(&process).err().map(|error| format!("{error:#}"));
    let planned = probing::probing(&space);
    let code = code::code(&space);
    let mut totals = code.totals;
    (totals.map_ns, totals.plan_ns) = (map_ns, planned.plan_ns);
    let mut notes = planned.notes;
    notes.extend(code.notes);
    Ok(Inspection {
        schema: SCHEMA,
        process: seen(&process),
        refused: guarded.or(planned.refused),
        allocators: planned.allocators,
        probes: planned.probes,
        notes,
        files: code.files,
        other_code: code.other,
        totals,
        go: golang::go(&space),
    })
}

/// Since `started`.
pub fn nanoseconds(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn seen(process: &Process) -> ProcessSeen {
    ProcessSeen {
        pid: process.pid,
        command: process.command.clone(),
        exe: process.exe.display().to_string(),
        build_id: process.build_id.clone(),
        language: process.language,
        threads: process.threads().ok(),
    }
}
