//! Probes by perf events: one for each, for kernels that have no multi links. Slow to detach, so in parallel.

use std::{io, num::NonZeroU32, thread};

use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};

use super::{AttachPoint, KernelError, object::one_line, tracer::Role};

/// Programs, and the points that each is for. Frees before allocations, or blocks would be missed that are freed in
/// between; returns before entries, or calls would stay in flight.
const PROGRAMS: &[(&str, Role)] = &[
    ("code_entry", Role::Code),
    ("release_entry", Role::Release),
    ("throwing_entry", Role::Throwing),
    ("call_return", Role::Call),
    ("call_entry", Role::Call),
    ("span_uncached", Role::SpanUncached),
    ("span_refilled", Role::SpanRefilled),
    ("span_large", Role::SpanLarge),
];

/// Places every probe, and gives the links to be dropped for detaching.
pub fn attach(ebpf: &mut Ebpf, pid: u32, points: &[AttachPoint], first: u32) -> Result<Vec<UProbeLink>, KernelError> {
    let mut links = Vec::new();
    for (name, role) in PROGRAMS {
        if points.iter().any(|point| point.role() == *role) {
            load(ebpf, name)?;
        }
    }
    for (name, role) in PROGRAMS {
        for (cookie, point) in (u64::from(first)..).zip(points).filter(|(_, p)| p.role() == *role) {
            links.push(attach_one(program(ebpf, name)?, pid, point, cookie)?);
        }
    }
    Ok(links)
}

/// Detaches: each link waits for the kernel, so they wait together.
pub fn detach(links: Vec<UProbeLink>) {
    thread::scope(|scope| {
        for link in links {
            scope.spawn(move || drop(link));
        }
    });
}

fn attach_one(program: &mut UProbe, pid: u32, point: &AttachPoint, cookie: u64) -> Result<UProbeLink, KernelError> {
    let place = UProbeAttachPoint {
        location: UProbeAttachLocation::AbsoluteOffset(point.offset),
        cookie: Some(cookie),
    };
    let scope = NonZeroU32::new(pid).map_or(UProbeScope::CallingProcess, UProbeScope::OneProcess);
    let attached = program
        .attach(place, &point.path, scope)
        .and_then(|id| program.take_link(id));
    attached.map_err(|e| KernelError::Attach {
        path: point.shown_path.clone(),
        source: io::Error::other(one_line(&e)),
    })
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<(), KernelError> {
    let program = program(ebpf, name)?;
    if program.fd().is_ok() {
        return Ok(());
    }
    program.load().map_err(|e| KernelError::Unsupported(one_line(&e)))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe, KernelError> {
    let missing = || KernelError::Unsupported(format!("no program {name} in the object"));
    ebpf.program_mut(name)
        .ok_or_else(missing)?
        .try_into()
        .map_err(|_| missing())
}
