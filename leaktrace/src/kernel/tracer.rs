//! One trace: tables, programs, links.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
    programs::{RawTracePoint, uprobe::UProbeLink},
};
use leaktrace_common::{
    go::GoLayout,
    probes::{CallKind, OwnCode, ProbeSpec},
    sites::SiteTotals,
    unwind::UnwindMapping,
};

use super::{
    CounterValues, Event, KernelError, SpanEvent,
    link::{self, AttachType, Points, Programs, TableFds},
    log::Lines,
    object::{self, Limits, one_line},
    perf,
    tables::{self, Tables},
    unwind::UnwindTables,
};

/// Where a probe goes and what it means.
#[derive(Clone, Debug)]
pub struct AttachPoint {
    /// Path by which the kernel finds the file: may be `/proc/self/fd/N`.
    pub path: PathBuf,
    /// Path to show to people.
    pub shown_path: String,
    /// Offset in the file.
    pub offset: u64,
    /// What the probed function does.
    pub spec: ProbeSpec,
}

impl AttachPoint {
    /// Which programs see the call.
    pub fn role(&self) -> Role {
        match CallKind::from_raw(self.spec.kind) {
            Some(CallKind::Release | CallKind::ReleaseThrough) => Role::Release,
            Some(CallKind::CodeChange) => Role::Code,
            Some(CallKind::SpanRefilled) => Role::SpanRefilled,
            Some(CallKind::SpanLarge) => Role::SpanLarge,
            Some(CallKind::SpanUncached) => Role::SpanUncached,
            _ if !self.spec.needs_return() => Role::Throwing,
            _ => Role::Call,
        }
    }
}

/// What a probe is for, and with that the programs that see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A call whose return is seen.
    Call,
    /// A block being given back.
    Release,
    /// The loader telling of code.
    Code,
    /// A call that may throw, the end of one, or the throwing.
    Throwing,
    /// A span of Go's heap being handed out.
    SpanRefilled,
    /// As `SpanRefilled`, for a large object.
    SpanLarge,
    /// A span of Go's heap being given back.
    SpanUncached,
}

/// How probes are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Entry and return in one link (Linux 6.13).
    Session,
    /// A link for entries, a link for returns (Linux 6.6).
    Multi,
    /// A perf event for each probe.
    Perf,
    /// For measuring: the best links, with handlers that do nothing. Nothing is recorded.
    Empty,
    /// For measuring: calls are seen at their entry, and their stacks walked. Nothing is recorded.
    Walk,
    /// For measuring: the same by the kernel's own helper, which goes by frame pointers.
    KernelWalk,
}

impl Way {
    /// Whether what is seen is recorded.
    pub fn records(self) -> bool {
        matches!(self, Self::Session | Self::Multi | Self::Perf)
    }
}

/// A trace. Dropping it detaches.
pub struct Tracer {
    ebpf: Ebpf,
    tables: Tables,
    unwind: UnwindTables,
    table_fds: TableFds,
    lines: Lines,
    events: RingBuf<MapData>,
    spans: RingBuf<MapData>,
    links: Vec<OwnedFd>,
    perf_links: Vec<UProbeLink>,
    probes: u32,
    loaded: Vec<LoadedProgram>,
}

/// What it took to load a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedProgram {
    /// Its name.
    pub name: &'static str,
    /// Instructions that the verifier looked at, where this kernel says.
    pub verified: Option<u32>,
    /// The time that loading took.
    pub took: Duration,
}

impl Tracer {
    /// Creates the tables and watches for threads that end. Nothing of any process is touched.
    pub fn create(limits: Limits, verbose: bool) -> Result<Self, KernelError> {
        let mut ebpf = object::create(limits, verbose)?;
        let tables = Tables::map(&ebpf, limits)?;
        let unwind = UnwindTables::map(&ebpf, limits.unwind)?;
        let table_fds = TableFds::of(&ebpf);
        let lines = Lines::of(&mut ebpf)?;
        let (events, spans) = (ring(&mut ebpf, "EVENTS")?, ring(&mut ebpf, "SPANS")?);
        watch(&mut ebpf, "thread_exit", "sched_process_exit")?;
        watch(&mut ebpf, "program_exec", "sched_process_exec")?;
        Ok(Self {
            ebpf,
            tables,
            unwind,
            table_fds,
            lines,
            events,
            spans,
            links: Vec::new(),
            perf_links: Vec::new(),
            probes: 0,
            loaded: Vec::new(),
        })
    }

    /// Attaches to a process, in the given way or the best that this kernel has, and says which it was.
    /// Recording stays as it is. May be called again for more probes.
    pub fn attach(&mut self, pid: u32, points: &[AttachPoint], way: Option<Way>) -> Result<Way, KernelError> {
        let first = self.probes;
        let specs: Vec<ProbeSpec> = points.iter().map(|point| point.spec).collect();
        tables::write_specs(&mut self.ebpf, first, &specs)?;
        let way = match way {
            Some(way) => {
                self.attach_by(way, pid, points, first)?;
                way
            }
            None => self.attach_best(pid, points, first)?,
        };
        self.probes += points.len() as u32;
        Ok(way)
    }

    /// Starts or stops recording; probes stay where they are.
    pub fn set_recording(&self, recording: bool) {
        self.tables.set_recording(recording);
    }

    /// Takes all probes away.
    pub fn detach(&mut self) {
        self.set_recording(false);
        let links = std::mem::take(&mut self.links);
        // Closing a link waits for the kernel: together they wait once.
        thread::scope(|scope| {
            for link in links {
                scope.spawn(move || drop(link));
            }
        });
        perf::detach(std::mem::take(&mut self.perf_links));
    }

    /// Settles the totals after the last probe is gone: what is in flight has not happened, so that blocks taken out by
    /// a resize are live. To be called once, when detached.
    pub fn settle(&self) -> Result<(), KernelError> {
        for block in self.tables.taken_blocks(&self.ebpf)? {
            self.tables.give_back(&block);
        }
        Ok(())
    }

    /// The tables in shared memory.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The unwinding tables.
    pub fn unwind(&mut self) -> &mut UnwindTables {
        &mut self.unwind
    }

    /// Says where the code of a process's allocators lies: what that maps is not the program's.
    pub fn set_own_code(&mut self, process: u32, own: &OwnCode) -> Result<(), KernelError> {
        tables::write_own_code(&mut self.ebpf, process, own)
    }

    /// Puts these mappings in force for all walks from now on, and says how many had no room.
    pub fn set_mappings(&mut self, mappings: &[UnwindMapping]) -> usize {
        let (half, left_out) = self.unwind.fill_mappings(mappings);
        self.tables.set_unwind_mappings(half);
        left_out
    }

    /// The programs loaded since last asked.
    pub fn take_loaded(&mut self) -> Vec<LoadedProgram> {
        std::mem::take(&mut self.loaded)
    }

    /// What was counted.
    pub fn counters(&self) -> Result<CounterValues, KernelError> {
        tables::read_counters(&self.ebpf)
    }

    /// The next record, if there is one.
    pub fn next_event(&mut self) -> Option<Event> {
        while let Some(item) = self.events.next() {
            if let Some(event) = Event::parse(&item) {
                return Some(event);
            }
        }
        self.lines.print();
        None
    }

    /// The next record of Go's heap, if there is one.
    pub fn next_span(&mut self) -> Option<SpanEvent> {
        while let Some(item) = self.spans.next() {
            if let Some(event) = SpanEvent::parse(&item) {
                return Some(event);
            }
        }
        None
    }

    /// Becomes readable when there are many records of Go's heap.
    pub fn spans_fd(&self) -> BorrowedFd<'_> {
        self.spans.as_fd()
    }

    /// Says where the probes in Go's runtime find what they tell of a process.
    pub fn set_go_layout(&mut self, process: u32, layout: &GoLayout) -> Result<(), KernelError> {
        tables::write_go_layout(&mut self.ebpf, process, layout)
    }

    /// Becomes readable when there are records.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// All sites in use with their totals.
    pub fn sites(&self) -> impl Iterator<Item = (u32, SiteTotals)> + '_ {
        (0..self.tables.site_count()).filter_map(|index| Some((index, self.tables.site(index)?)))
    }

    fn attach_best(&mut self, pid: u32, points: &[AttachPoint], first: u32) -> Result<Way, KernelError> {
        for way in [Way::Session, Way::Multi] {
            match self.attach_by(way, pid, points, first) {
                Err(KernelError::Unsupported(_)) => {}
                done => return done.map(|()| way),
            }
        }
        self.attach_by(Way::Perf, pid, points, first).map(|()| Way::Perf)
    }

    fn attach_by(&mut self, way: Way, pid: u32, points: &[AttachPoint], first: u32) -> Result<(), KernelError> {
        let links = match way {
            Way::Perf => {
                let links = perf::attach(&mut self.ebpf, pid, points, first)?;
                self.perf_links.extend(links);
                return Ok(());
            }
            Way::Multi => self.link_roles(MULTI, pid, points, first)?,
            Way::Session => self.link_roles(SESSION, pid, points, first)?,
            Way::Walk => self.link_roles(WALK, pid, points, first)?,
            Way::KernelWalk => self.link_roles(KERNEL_WALK, pid, points, first)?,
            Way::Empty => match self.link_roles(EMPTY_SESSION, pid, points, first) {
                Err(KernelError::Unsupported(_)) => self.link_roles(EMPTY_MULTI, pid, points, first)?,
                linked => linked?,
            },
        };
        self.links.extend(links);
        Ok(())
    }

    /// Loads and links each part, in an order that keeps the tables right while some are in place and some are not:
    /// frees before allocations, returns before entries.
    fn link_roles(
        &mut self,
        parts: &[Part],
        pid: u32,
        points: &[AttachPoint],
        first: u32,
    ) -> Result<Vec<OwnedFd>, KernelError> {
        let programs = Programs::prepare(&self.table_fds)?;
        let mut links = Vec::new();
        for part in parts {
            let files = by_file(points, first, part.role);
            if files.is_empty() {
                continue;
            }
            let started = Instant::now();
            let program = programs.load(part.program, part.link).map_err(|e| not_loaded(&e))?;
            self.loaded.push(LoadedProgram {
                name: part.program,
                took: started.elapsed(),
                verified: link::verified_instructions(&program),
            });
            for (path, offsets, cookies, shown) in files {
                let at = Points {
                    path: &path,
                    offsets: &offsets,
                    cookies: &cookies,
                };
                let linked = link::link(&program, part.link, part.at_return, &at, pid);
                links.push(linked.map_err(|e| not_linked(e, pid, shown))?);
            }
        }
        Ok(links)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.detach();
    }
}

/// A program and what it is linked to.
#[derive(Clone, Copy)]
struct Part {
    program: &'static str,
    role: Role,
    at_return: bool,
    link: AttachType,
}

const SESSION: &[Part] = &[
    part("code_entry", Role::Code, false, AttachType::Multi),
    part("release_entry", Role::Release, false, AttachType::Multi),
    part("throwing_entry", Role::Throwing, false, AttachType::Multi),
    part("call_session", Role::Call, false, AttachType::Session),
    SPANS[0],
    SPANS[1],
    SPANS[2],
];

/// A span that is seen being handed out must be seen when it is given back.
const SPANS: [Part; 3] = [
    part("span_uncached", Role::SpanUncached, false, AttachType::Multi),
    part("span_refilled", Role::SpanRefilled, false, AttachType::Multi),
    part("span_large", Role::SpanLarge, false, AttachType::Multi),
];

const MULTI: &[Part] = &[
    part("code_entry", Role::Code, false, AttachType::Multi),
    part("release_entry", Role::Release, false, AttachType::Multi),
    part("throwing_entry", Role::Throwing, false, AttachType::Multi),
    part("call_return", Role::Call, true, AttachType::Multi),
    part("call_entry", Role::Call, false, AttachType::Multi),
    SPANS[0],
    SPANS[1],
    SPANS[2],
];

const EMPTY_SESSION: &[Part] = &[
    part("empty_session", Role::Call, false, AttachType::Session),
    part("empty_entry", Role::Throwing, false, AttachType::Multi),
    part("empty_entry", Role::Release, false, AttachType::Multi),
    EMPTY_SPANS[0],
    EMPTY_SPANS[1],
    EMPTY_SPANS[2],
];

const EMPTY_SPANS: [Part; 3] = [
    part("empty_entry", Role::SpanUncached, false, AttachType::Multi),
    part("empty_entry", Role::SpanRefilled, false, AttachType::Multi),
    part("empty_entry", Role::SpanLarge, false, AttachType::Multi),
];

const EMPTY_MULTI: &[Part] = &[
    part("empty_entry", Role::Call, true, AttachType::Multi),
    part("empty_entry", Role::Call, false, AttachType::Multi),
    part("empty_entry", Role::Throwing, false, AttachType::Multi),
    part("empty_entry", Role::Release, false, AttachType::Multi),
    EMPTY_SPANS[0],
    EMPTY_SPANS[1],
    EMPTY_SPANS[2],
];

const WALK: &[Part] = &[part("walk_entry", Role::Call, false, AttachType::Multi)];

const KERNEL_WALK: &[Part] = &[part("kernel_walk_entry", Role::Call, false, AttachType::Multi)];

const fn part(program: &'static str, role: Role, at_return: bool, link: AttachType) -> Part {
    Part {
        program,
        role,
        at_return,
        link,
    }
}

type FilePoints = (PathBuf, Vec<u64>, Vec<u64>, String);

/// The points of a role, file by file.
fn by_file(points: &[AttachPoint], first: u32, role: Role) -> Vec<FilePoints> {
    let mut files: Vec<FilePoints> = Vec::new();
    for (cookie, point) in (u64::from(first)..)
        .zip(points)
        .filter(|(_, point)| point.role() == role)
    {
        let index = files.iter().position(|file| file.0 == point.path).unwrap_or_else(|| {
            files.push((point.path.clone(), Vec::new(), Vec::new(), point.shown_path.clone()));
            files.len() - 1
        });
        files[index].1.push(point.offset);
        files[index].2.push(cookie);
    }
    files
}

fn ring(ebpf: &mut Ebpf, name: &str) -> Result<RingBuf<MapData>, KernelError> {
    let map = ebpf.take_map(name);
    let map = map.ok_or_else(|| KernelError::Table(format!("{name} is missing")))?;
    RingBuf::try_from(map).map_err(tables::table_error)
}

fn watch(ebpf: &mut Ebpf, program: &str, tracepoint: &str) -> Result<(), KernelError> {
    let unsupported = |e: &dyn std::error::Error| KernelError::Unsupported(one_line(e));
    let missing = || KernelError::Unsupported(format!("no program {program} in the object"));
    let program: &mut RawTracePoint = ebpf
        .program_mut(program)
        .ok_or_else(missing)?
        .try_into()
        .map_err(|e: aya::programs::ProgramError| unsupported(&e))?;
    program.load().map_err(|e| unsupported(&e))?;
    program.attach(tracepoint).map_err(|e| unsupported(&e))?;
    Ok(())
}

fn not_loaded(error: &io::Error) -> KernelError {
    match error.raw_os_error() {
        Some(libc::EPERM) => KernelError::NotPermitted,
        _ => KernelError::Unsupported(error.to_string()),
    }
}

fn not_linked(error: io::Error, pid: u32, path: String) -> KernelError {
    match error.raw_os_error() {
        Some(libc::ESRCH) => KernelError::Gone(pid),
        // The kernel has no links of this type.
        Some(libc::EINVAL | libc::EOPNOTSUPP) if Path::new("/sys/kernel/btf/vmlinux").exists() => {
            KernelError::Unsupported(error.to_string())
        }
        _ => KernelError::Attach { path, source: error },
    }
}
