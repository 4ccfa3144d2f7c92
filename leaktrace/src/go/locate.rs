//! Where the runtime's variables are in a program without symbols: their addresses stand in the code that uses them.
//!
//! Each pattern is one instruction of one function, which compilers of all versions known have made alike. What is found
//! is a claim that is checked against the process before it is believed (`runtime.rs`).

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpAccess, OpKind, Register};

mod own_profile;

pub use own_profile::OwnProfile;

use super::layout::Layout;
use super::pclntab::Table;
use super::words::Words;

/// Longest function that is looked into.
const MAX_CODE: u64 = 64 << 10;

/// Virtual addresses of the runtime's variables, as the file counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// The list of all goroutines: `runtime.allgs`, `runtime.allgptr`, `runtime.allglen`.
    pub goroutines: Option<Goroutines>,
    /// `runtime.mheap_`.
    pub heap: Option<u64>,
    /// `runtime.memstats`.
    pub stats: Option<u64>,
    /// `runtime.semtable`.
    pub semaphores: Option<u64>,
    /// `runtime.gcController`.
    pub controller: Option<u64>,
    /// Go's own heap profile.
    pub own_profile: Option<OwnProfile>,
}

/// Where the list of all goroutines is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goroutines {
    /// The list with its lock: pointer, length, capacity.
    pub list: u64,
    /// Its pointer, to be read without the lock.
    pub pointer: u64,
    /// Its length, to be read before the pointer.
    pub length: u64,
}

impl Globals {
    /// Looks for the variables of a program. `zeroed` says whether an address is that of a variable that is zero at the
    /// start.
    pub fn find(table: &Table, words: &Words<'_>, layout: &Layout, zeroed: impl Fn(u64) -> bool) -> Self {
        let code = |name: &str| instructions(table, words, name).unwrap_or_default();
        let start = |name| table.named(name).map(|function| function.start);
        let refill = code("runtime.(*mcache).refill");
        Self {
            goroutines: goroutines(&code("runtime.allgadd")),
            heap: heap(&code("runtime.(*mcentral).uncacheSpan"), layout),
            stats: receiver(&refill, start("runtime.(*consistentHeapStats).acquire")),
            semaphores: semaphores(&code("runtime.semacquire1"), zeroed),
            controller: receiver(&refill, start("runtime.(*gcControllerState).update")),
            own_profile: OwnProfile::find(code),
        }
    }
}

/// The addresses that `runtime.waitReason.String` takes: one of them is that of the names.
pub fn wait_reasons(table: &Table, words: &Words<'_>) -> Vec<u64> {
    let code = instructions(table, words, "runtime.waitReason.String").unwrap_or_default();
    code.iter().filter_map(address_taken).collect()
}

/// The instructions of a function; none if it is not in the table, or has no code in the file.
pub(super) fn instructions(table: &Table, words: &Words<'_>, name: &str) -> Option<Vec<Instruction>> {
    let function = table.named(name)?;
    let size = function.end.checked_sub(function.start)?.min(MAX_CODE);
    let code = words.bytes(function.start, size)?;
    Some(
        Decoder::with_ip(64, &code, function.start, DecoderOptions::NONE)
            .iter()
            .collect(),
    )
}

/// Three neighbouring words are loaded: the list. Its pointer is compared with a register. The address that goes into
/// the last exchange is that of the length.
fn goroutines(code: &[Instruction]) -> Option<Goroutines> {
    let loads: Vec<u64> = code.iter().filter_map(|each| load(each, 8)).collect();
    let list = *loads
        .iter()
        .find(|&&first| [8, 16].iter().all(|next| loads.contains(&(first.wrapping_add(*next)))))?;
    let pointer = code
        .iter()
        .find_map(|each| compared(each).filter(|address| !(list..list + 24).contains(address)))?;
    let exchange = code.iter().rposition(|each| each.mnemonic() == Mnemonic::Xchg)?;
    let length = exchanged(code.get(..=exchange)?)?;
    Some(Goroutines { list, pointer, length })
}

/// The first four bytes that `uncacheSpan` loads are the heap's sweep generation.
fn heap(code: &[Instruction], layout: &Layout) -> Option<u64> {
    let generation = code.iter().find_map(|each| load(each, 4))?;
    generation.checked_sub(layout.mheap.sweepgen as u64)
}

/// The variable that a method is called of. For `memstats` it is its first field, the statistics of the heap.
fn receiver(code: &[Instruction], method: Option<u64>) -> Option<u64> {
    let call = code
        .iter()
        .position(|each| each.mnemonic() == Mnemonic::Call && Some(each.near_branch_target()) == method)?;
    let before = code.get(..call)?.iter().rev().take(4);
    before
        .filter(|each| each.op0_register() == Register::RAX)
        .find_map(address_taken)
}

/// The only variable without a value whose address `semacquire1` takes.
fn semaphores(code: &[Instruction], zeroed: impl Fn(u64) -> bool) -> Option<u64> {
    code.iter().filter_map(address_taken).find(|&address| zeroed(address))
}

/// The address of what an instruction loads, `size` bytes, into a register.
pub(super) fn load(instruction: &Instruction, size: usize) -> Option<u64> {
    let is_load = instruction.mnemonic() == Mnemonic::Mov && instruction.op0_kind() == OpKind::Register;
    (is_load && instruction.is_ip_rel_memory_operand() && instruction.memory_size().size() == size)
        .then(|| instruction.ip_rel_memory_address())
}

/// The address of a word that an instruction compares with a register.
fn compared(instruction: &Instruction) -> Option<u64> {
    let kinds = [instruction.op0_kind(), instruction.op1_kind()];
    let with_register = kinds.contains(&OpKind::Register) && kinds.contains(&OpKind::Memory);
    let is_comparison = instruction.mnemonic() == Mnemonic::Cmp && instruction.memory_size().size() == 8;
    (is_comparison && with_register && instruction.is_ip_rel_memory_operand())
        .then(|| instruction.ip_rel_memory_address())
}

/// The address that an instruction loads.
fn address_taken(instruction: &Instruction) -> Option<u64> {
    (instruction.code() == Code::Lea_r64_m && instruction.is_ip_rel_memory_operand())
        .then(|| instruction.ip_rel_memory_address())
}

/// The address of what the last of these instructions exchanges.
fn exchanged(code: &[Instruction]) -> Option<u64> {
    let (last, before) = code.split_last()?;
    if last.is_ip_rel_memory_operand() {
        return Some(last.ip_rel_memory_address());
    }
    let base = last.memory_base();
    before
        .iter()
        .rev()
        .find(|each| writes(each, base))
        .and_then(address_taken)
}

/// Whether an instruction may change a register, or part of it.
pub(super) fn writes(instruction: &Instruction, register: Register) -> bool {
    let mut factory = iced_x86::InstructionInfoFactory::new();
    let info = factory.info(instruction);
    info.used_registers().iter().any(|used| {
        let access = matches!(
            used.access(),
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite
        );
        access && used.register().full_register() == register
    })
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
