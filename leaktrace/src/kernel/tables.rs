//! Typed access to the tables.

use std::mem::offset_of;
use std::sync::atomic::{
    AtomicI64, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray},
};
use leaktrace_common::{
    blocks::{Block, CALL_SLOTS, CallSlot, Calls, TAKEN_BLOCK},
    counters::{COUNTERS, Counter},
    go::GoLayout,
    probes::{OwnCode, ProbeSpec},
    sites::{Amount, COHORT_SLOTS, KernelLayout, MAX_COHORTS, OVERFLOW_SITE, SessionState, SiteTotals},
};

use super::{KernelError, btf, object::Limits, shared::Shared};

/// The tables in shared memory.
pub struct Tables {
    sites: Shared<SiteTotals>,
    cohorts: Shared<u32>,
    calls: Shared<CallSlot>,
    state: Shared<SessionState>,
}

/// What the kernel side has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterValues([u64; COUNTERS as usize]);

impl CounterValues {
    /// The value of one counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
}

impl Tables {
    /// Maps the tables and sets the session's state to not recording.
    pub fn map(ebpf: &Ebpf, limits: Limits) -> Result<Self, KernelError> {
        let tables = Self {
            sites: Shared::open(ebpf, "SITES", limits.sites)?,
            cohorts: Shared::open(ebpf, "COHORTS", MAX_COHORTS)?,
            calls: Shared::open(ebpf, "CALL_SLOTS", CALL_SLOTS)?,
            state: Shared::open(ebpf, "STATE", 1)?,
        };
        tables.set_state(offset_of!(SessionState, site_limit), limits.sites);
        tables.set_state(offset_of!(SessionState, next_site), OVERFLOW_SITE + 1);
        tables.set_state(offset_of!(SessionState, buckets), limits.buckets());
        tables.set_layout(btf::kernel_layout());
        Ok(tables)
    }

    /// Whether probes record.
    pub fn set_recording(&self, recording: bool) {
        self.set_state(offset_of!(SessionState, recording), u32::from(recording));
    }

    /// Puts a half of the unwinding mappings in force, as `UnwindTables::fill_mappings` gave it.
    pub fn set_unwind_mappings(&self, half: u64) {
        if let Some(state) = self.state.get(0) {
            // SAFETY: a valid, aligned pointer into shared memory. Released after the half was filled.
            unsafe { AtomicU64::from_ptr(&raw mut (*state).unwind_mappings) }.store(half, Release);
        }
    }

    /// Where the program's first stack began.
    pub fn set_stack_start(&self, address: u64) {
        if let Some(state) = self.state.get(0) {
            // SAFETY: a valid, aligned pointer into shared memory.
            unsafe { AtomicU64::from_ptr(&raw mut (*state).stack_start) }.store(address, Relaxed);
        }
    }

    /// How often the process's loader has unmapped code.
    pub fn code_removed(&self) -> u64 {
        let Some(state) = self.state.get(0) else { return 0 };
        // SAFETY: a valid, aligned pointer into shared memory.
        unsafe { AtomicU64::from_ptr(&raw mut (*state).code_removed) }.load(Acquire)
    }

    /// Says that the mappings in force were read after the loader had unmapped code so many times.
    pub fn set_code_followed(&self, removed: u64) {
        if let Some(state) = self.state.get(0) {
            // SAFETY: a valid, aligned pointer into shared memory. Released after the mappings were put in force.
            unsafe { AtomicU64::from_ptr(&raw mut (*state).code_followed) }.store(removed, Release);
        }
    }

    /// The process whose programs being replaced is told.
    pub fn set_process(&self, process: u32) {
        self.set_state(offset_of!(SessionState, process), process);
    }

    /// Blocks taken out by calls in flight, as of the moment of reading. Meant for when recording is off.
    pub fn taken_blocks(&self, ebpf: &Ebpf) -> Result<Vec<Block>, KernelError> {
        // SAFETY: valid, aligned pointers into shared memory; no probe changes a slot once recording is off.
        let slots = (0..CALL_SLOTS)
            .filter_map(|index| self.calls.get(index))
            .map(|slot| unsafe { (*slot).calls.block });
        let others: HashMap<&MapData, u32, Calls> = open(ebpf.map("CALLS"), "CALLS")?;
        let calls = slots.chain(others.iter().filter_map(|entry| Some(entry.ok()?.1.block)));
        Ok(calls
            .filter(|call| call.stack_pointer != 0 && call.taken == TAKEN_BLOCK)
            .map(|call| call.old)
            .collect())
    }

    /// Counts a block as live again.
    pub fn give_back(&self, block: &Block) {
        let slot = self.cohorts.get(block.cohort).map_or(0, |slot| {
            // SAFETY: a valid, aligned pointer into shared memory.
            unsafe { AtomicU32::from_ptr(slot) }.load(Relaxed) as usize % COHORT_SLOTS
        });
        if let Some(site) = self.sites.get(block.site) {
            // SAFETY: a valid, aligned pointer into shared memory.
            unsafe { add(&raw mut (*site).live[slot], block.size as i64, 1) };
        }
    }

    /// Label for blocks born from now on.
    pub fn set_cohort(&self, label: u32) {
        self.set_state(offset_of!(SessionState, cohort), label);
    }

    /// Sets the slot of a cohort label.
    pub fn set_slot(&self, label: u32, slot: u32) {
        if let Some(entry) = self.cohorts.get(label) {
            // SAFETY: a valid, aligned pointer into shared memory.
            unsafe { AtomicU32::from_ptr(entry) }.store(slot, Relaxed);
        }
    }

    /// Number of sites in use.
    pub fn site_count(&self) -> u32 {
        let Some(state) = self.state.get(0) else { return 0 };
        // SAFETY: a valid, aligned pointer into shared memory.
        unsafe {
            AtomicU32::from_ptr(&raw mut (*state).next_site)
                .load(Relaxed)
                .min((*state).site_limit)
        }
    }

    /// Totals of one site. Fields are read one after the other: while the target runs they may be one call apart.
    pub fn site(&self, index: u32) -> Option<SiteTotals> {
        let site = self.sites.get(index)?;
        // SAFETY: valid, aligned pointers into shared memory.
        unsafe {
            Some(SiteTotals {
                allocated: read(&raw mut (*site).allocated),
                live: std::array::from_fn(|slot| read(&raw mut (*site).live[slot])),
            })
        }
    }

    /// Moves what every site has in slot `from` to slot `to`.
    pub fn merge_slots(&self, from: u32, to: u32) {
        let (from, to) = (from as usize % COHORT_SLOTS, to as usize % COHORT_SLOTS);
        for index in 0..self.site_count() {
            let Some(site) = self.sites.get(index) else { return };
            // SAFETY: valid, aligned pointers into shared memory.
            unsafe {
                let amount = read(&raw mut (*site).live[from]);
                add(&raw mut (*site).live[to], amount.bytes, amount.count);
                add(&raw mut (*site).live[from], -amount.bytes, -amount.count);
            }
        }
    }

    /// Says that the loader is mapping code as its probe is placed: its next word is that it has done so.
    pub fn set_code_arriving(&self) {
        self.set_state(offset_of!(SessionState, code_arriving), 1);
    }

    /// Nothing is attached yet that could read it meanwhile.
    fn set_layout(&self, layout: KernelLayout) {
        if let Some(state) = self.state.get(0) {
            // SAFETY: a valid, aligned pointer into shared memory.
            unsafe { (&raw mut (*state).kernel).write_volatile(layout) };
        }
    }

    /// Sets the 32-bit field at `offset` of the session's state.
    fn set_state(&self, offset: usize, value: u32) {
        if let Some(state) = self.state.get(0) {
            // SAFETY: a valid, aligned pointer into shared memory: offsets are of the struct's own fields.
            unsafe { AtomicU32::from_ptr(state.byte_add(offset).cast()) }.store(value, Relaxed);
        }
    }
}

/// Writes the probe specifications; a probe's cookie is its index.
pub fn write_specs(ebpf: &mut Ebpf, first: u32, specs: &[ProbeSpec]) -> Result<(), KernelError> {
    let mut table: Array<&mut MapData, ProbeSpec> = open(ebpf.map_mut("PROBES"), "PROBES")?;
    for (index, spec) in (first..).zip(specs) {
        table.set(index, spec, 0).map_err(table_error)?;
    }
    Ok(())
}

/// Says where the code of a process's allocators lies.
pub fn write_own_code(ebpf: &mut Ebpf, process: u32, own: &OwnCode) -> Result<(), KernelError> {
    let mut table: HashMap<&mut MapData, u32, OwnCode> = open(ebpf.map_mut("OWN_CODE"), "OWN_CODE")?;
    table.insert(process, own, 0).map_err(table_error)
}

/// Says where the probes in Go's runtime find what they tell of a process.
pub fn write_go_layout(ebpf: &mut Ebpf, process: u32, layout: &GoLayout) -> Result<(), KernelError> {
    let mut table: HashMap<&mut MapData, u32, GoLayout> = open(ebpf.map_mut("GO_LAYOUTS"), "GO_LAYOUTS")?;
    table.insert(process, layout, 0).map_err(table_error)
}

/// Reads all counters, summed over processors.
pub fn read_counters(ebpf: &Ebpf) -> Result<CounterValues, KernelError> {
    let table: PerCpuArray<&MapData, u64> = open(ebpf.map("COUNTERS"), "COUNTERS")?;
    let mut values = CounterValues::default();
    for (index, value) in (0..).zip(values.0.iter_mut()) {
        *value = table.get(&index, 0).map_err(table_error)?.iter().sum();
    }
    Ok(values)
}

fn open<M, T: TryFrom<M, Error = aya::maps::MapError>>(map: Option<M>, name: &str) -> Result<T, KernelError> {
    let map = map.ok_or_else(|| KernelError::Table(format!("{name} is missing")))?;
    T::try_from(map).map_err(table_error)
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
pub(super) fn table_error(error: aya::maps::MapError) -> KernelError {
    KernelError::Table(super::object::one_line(&error))
}

/// # Safety
/// `amount` must be valid and aligned.
unsafe fn read(amount: *mut Amount) -> Amount {
    // SAFETY: as promised by the caller.
    unsafe {
        Amount {
            bytes: AtomicI64::from_ptr(&raw mut (*amount).bytes).load(Relaxed),
            count: AtomicI64::from_ptr(&raw mut (*amount).count).load(Relaxed),
        }
    }
}

/// # Safety
/// `amount` must be valid and aligned.
unsafe fn add(amount: *mut Amount, bytes: i64, count: i64) {
    // SAFETY: as promised by the caller.
    unsafe {
        AtomicI64::from_ptr(&raw mut (*amount).bytes).fetch_add(bytes, Relaxed);
        AtomicI64::from_ptr(&raw mut (*amount).count).fetch_add(count, Relaxed);
    }
}
