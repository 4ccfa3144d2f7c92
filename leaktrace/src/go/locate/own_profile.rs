//! Where Go's own heap profile is: its sites, its rate, and whether the linker has switched it off.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::load;

/// The rate that a program has if it sets none, as the runtime's source has it.
const DEFAULT_RATE: u64 = 512 << 10;

/// Variables of Go's own heap profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnProfile {
    /// `runtime.mbuckets`: its sites, the newest first.
    pub buckets: u64,
    /// `runtime.MemProfileRate`.
    pub rate: u64,
    /// `runtime.disableMemoryProfiling`, one byte: 1 where the linker saw that the program never asks for the profile.
    pub disabled: Option<u64>,
}

impl OwnProfile {
    /// Looks for them; `code` gives the instructions of a function.
    pub(super) fn find(code: impl Fn(&str) -> Vec<Instruction>) -> Option<Self> {
        // All that this function uses of its own is the list.
        let buckets = code("runtime.mProf_FlushLocked")
            .iter()
            .find_map(|each| load(each, 8))?;
        let rate = rate(&code("runtime.profilealloc"), &code("runtime.allocmcache"))?;
        let disabled = switch(&code("runtime.schedinit"), rate).or_else(|| first_switch(&code("runtime.init")));
        Some(Self {
            buckets,
            rate,
            disabled,
        })
    }
}

/// Both functions draw the distance to the next sample, by the rate: nothing else do both of them load.
fn rate(sampling: &[Instruction], making: &[Instruction]) -> Option<u64> {
    let also: Vec<u64> = making.iter().filter_map(|each| load(each, 8)).collect();
    sampling
        .iter()
        .filter_map(|each| load(each, 8))
        .find(|address| also.contains(address))
}

/// Where the runtime starts, it sets the rate to zero if this byte is not: since Go 1.20.
fn switch(start: &[Instruction], rate: u64) -> Option<u64> {
    let zeroed = start.iter().position(|each| stores_zero(each, rate))?;
    let before = start.get(..zeroed)?.iter().rev().take(4);
    before.filter(|each| each.mnemonic() == Mnemonic::Cmp).find_map(byte)
}

/// Up to Go 1.19 the rate is chosen where the runtime's variables get their values.
fn first_switch(init: &[Instruction]) -> Option<u64> {
    let default = init.iter().position(|each| {
        each.mnemonic() == Mnemonic::Mov
            && each.op0_kind() == OpKind::Register
            && each.try_immediate(1).is_ok_and(|value| value == DEFAULT_RATE)
    })?;
    init.get(..default)?.iter().rev().take(4).find_map(byte)
}

/// The address of a byte that is looked at.
fn byte(instruction: &Instruction) -> Option<u64> {
    (instruction.is_ip_rel_memory_operand() && instruction.memory_size().size() == 1)
        .then(|| instruction.ip_rel_memory_address())
}

fn stores_zero(instruction: &Instruction, address: u64) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Memory
        && instruction.is_ip_rel_memory_operand()
        && instruction.ip_rel_memory_address() == address
        && instruction.try_immediate(1).is_ok_and(|value| value == 0)
}
