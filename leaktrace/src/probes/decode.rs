//! Where in a function a probe costs least.
//!
//! A uprobe replaces one instruction by a trap. The kernel emulates a few instructions itself (`push`, relative jumps
//! and calls, some `nop`s); any other it copies out and single-steps, a second trap that costs several times the
//! first. So a probe goes on the first instruction that is emulated, as long as every call of the function passes it
//! exactly once and finds there what the probe reads.
//!
//! Pure: works on the bytes of one function.

use std::collections::BTreeSet;

use iced_x86::{
    Code, ConditionCode, Decoder, DecoderOptions, FlowControl, Formatter as _, Instruction, InstructionInfoFactory,
    NasmFormatter, OpAccess, Register,
};
use leaktrace_common::probes::{CallKind, ProbeSpec};

/// Where a probe goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Bytes from the function's start.
    pub offset: u64,
    /// Whether the kernel emulates the instruction there.
    pub emulated: bool,
}

/// Arguments of the C calling convention, in order.
const ARGUMENTS: [Register; 6] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
];

/// What a return probe and a stack walk from the probe rest on: the return address on top of the stack, and the
/// caller's values in the registers that a function must preserve.
const CALLER_STATE: [Register; 7] = [
    Register::RSP,
    Register::RBP,
    Register::RBX,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// Which kernels emulate an instruction, the better the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Emulated {
    /// Linux 6.16 and later; before, it is single-stepped.
    Lately,
    /// Every kernel.
    Always,
    /// Every kernel, and calls with a null pointer do not come here.
    PastNull,
}

/// The cheapest place for a probe that reads calls as `spec` says, in a function whose whole code is `code`.
///
/// The function's start where nothing better is certain: code that does not decode to its end, an instruction that
/// overwrites what is read, a jump back to before the place.
pub fn place(code: &[u8], spec: &ProbeSpec) -> Placement {
    let start = at_start(code);
    let Some(instructions) = decode(code) else { return start };
    let targets = jump_targets(&instructions);
    let mut places = candidates(code, &instructions, spec);
    places.retain(|&(offset, _)| offset == 0 || targets.range(..=offset).next().is_none());
    places
        .into_iter()
        .rev()
        .max_by_key(|&(_, emulated)| emulated)
        .map_or(start, |(offset, _)| Placement { offset, emulated: true })
}

/// A probe on the function's first instruction: for when its extent is not known.
pub fn at_start(code: &[u8]) -> Placement {
    let first = Decoder::new(64, code, DecoderOptions::NONE).decode();
    let bytes = code.get(..first.len()).filter(|_| !first.is_invalid());
    Placement {
        offset: 0,
        emulated: bytes.and_then(|bytes| emulated(bytes, 0)).is_some(),
    }
}

/// The first instruction of `code` as an assembler writes it, jumps counted from `address`; nothing where there is none.
pub fn instruction(code: &[u8], address: u64) -> Option<String> {
    let first = Decoder::with_ip(64, code, address, DecoderOptions::NONE)
        .into_iter()
        .next()
        .filter(|first| !first.is_invalid())?;
    let mut text = String::new();
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    formatter.format(&first, &mut text);
    Some(text)
}

/// Every instruction, with its offset as its address; none when any byte is not part of one.
fn decode(code: &[u8]) -> Option<Vec<Instruction>> {
    let instructions: Vec<_> = Decoder::with_ip(64, code, 0, DecoderOptions::NONE)
        .into_iter()
        .collect();
    instructions
        .iter()
        .all(|instruction| !instruction.is_invalid())
        .then_some(instructions)
}

/// Offsets that something in the function goes to other than from the instruction before. A function that calls its
/// own start is entered anew, as by any caller. Jumps through registers are not followed: they leave a switch, which
/// comes after the straight line on which places are looked for.
fn jump_targets(instructions: &[Instruction]) -> BTreeSet<u64> {
    let targets = instructions
        .iter()
        .filter_map(|instruction| match instruction.flow_control() {
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => Some(instruction.near_branch_target()),
            FlowControl::Call if instruction.is_call_near() => {
                Some(instruction.near_branch_target()).filter(|&target| target != 0)
            }
            _ => None,
        });
    targets.collect()
}

/// The emulated instructions on the straight line from the start, up to the first branch that a call with a block may
/// take.
fn candidates(code: &[u8], instructions: &[Instruction], spec: &ProbeSpec) -> Vec<(u64, Emulated)> {
    let needed = needed_registers(spec);
    let mut factory = InstructionInfoFactory::new();
    let mut found = Vec::new();
    let (mut null_tested, mut past_null) = (false, false);
    for instruction in instructions {
        let offset = instruction.ip();
        if let Some(emulated) = bytes_of(code, instruction).and_then(|bytes| emulated(bytes, offset)) {
            let better = past_null && emulated == Emulated::Always;
            found.push((offset, if better { Emulated::PastNull } else { emulated }));
        }
        let leaves_if_null = null_tested && is_jump_if_equal(instruction);
        if !leaves_if_null && !can_pass(instruction, &needed, &mut factory) {
            break;
        }
        past_null |= leaves_if_null;
        null_tested = tests_pointer(instruction, spec) || (null_tested && instruction.rflags_modified() == 0);
    }
    found
}

fn is_jump_if_equal(instruction: &Instruction) -> bool {
    instruction.is_jcc_short_or_near() && instruction.condition_code() == ConditionCode::e
}

fn bytes_of<'code>(code: &'code [u8], instruction: &Instruction) -> Option<&'code [u8]> {
    let start = usize::try_from(instruction.ip()).ok()?;
    code.get(start..start.checked_add(instruction.len())?)
}

/// Whether the kernel emulates the instruction made of `bytes` (`arch/x86/kernel/uprobes.c`).
///
/// Prefixed branches are left alone: the kernel refuses those with an operand size. A five byte `nop` counts at a
/// function's start only: new kernels turn it into a call, which writes below the stack pointer, where a function may
/// keep data once it runs. The two byte `nop` could not be probed at all before Linux 6.2.
fn emulated(bytes: &[u8], offset: u64) -> Option<Emulated> {
    match bytes {
        // push, jcc, jmp, call, nop
        [0x50..=0x57] | [0x41, 0x50..=0x57] | [0x70..=0x7f, _] | [0x0f, 0x80..=0x8f, _, _, _, _] => {
            Some(Emulated::Always)
        }
        [0xeb, _] | [0xe8 | 0xe9, _, _, _, _] | [0x90] => Some(Emulated::Always),
        [0x0f, 0x1f, 0x00]
        | [0x0f, 0x1f, 0x40, 0]
        | [0x66, 0x0f, 0x1f, 0x44, 0, 0]
        | [0x0f, 0x1f, 0x80, 0, 0, 0, 0]
        | [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0] => Some(Emulated::Lately),
        [0x0f, 0x1f, 0x44, 0, 0] | [0x66, 0x90] if offset == 0 => Some(Emulated::Lately),
        _ => None,
    }
}

/// The registers that must still hold at the probe what they held at the function's start.
fn needed_registers(spec: &ProbeSpec) -> Vec<Register> {
    let kind = CallKind::from_raw(spec.kind);
    let named = [spec.size_arg, spec.count_arg, spec.pointer_arg, spec.out_arg];
    let arguments = ARGUMENTS.iter().zip(1_u8..).filter(|(_, number)| match kind {
        // What is mapped depends on flags and file too.
        None | Some(CallKind::Map | CallKind::Remap) => true,
        Some(_) => named.contains(number),
    });
    let state = if kind.is_some_and(|kind| !kind.needs_return()) {
        &[][..]
    } else {
        &CALLER_STATE
    };
    arguments
        .map(|(register, _)| *register)
        .chain(state.iter().copied())
        .collect()
}

/// Whether a probe may come after `instruction`: it goes on to the next one, writes no register that is needed, and
/// writes no memory but its own stack, so that nothing of what the call does has been done.
fn can_pass(instruction: &Instruction, needed: &[Register], factory: &mut InstructionInfoFactory) -> bool {
    if instruction.flow_control() != FlowControl::Next {
        return false;
    }
    let info = factory.info(instruction);
    let overwrites =
        |used: &iced_x86::UsedRegister| writes(used.access()) && needed.contains(&used.register().full_register());
    let reaches_out =
        |used: &iced_x86::UsedMemory| writes(used.access()) && used.base().full_register() != Register::RSP;
    !info.used_registers().iter().any(overwrites) && !info.used_memory().iter().any(reaches_out)
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

/// Whether `instruction` is `test p, p` of the pointer that a release gives back.
fn tests_pointer(instruction: &Instruction, spec: &ProbeSpec) -> bool {
    let pointer = usize::from(spec.pointer_arg)
        .checked_sub(1)
        .and_then(|index| ARGUMENTS.get(index));
    matches!(
        CallKind::from_raw(spec.kind),
        Some(CallKind::Release | CallKind::ReleaseThrough)
    ) && instruction.code() == Code::Test_rm64_r64
        && pointer.is_some_and(|&register| instruction.op0_register() == register)
        && pointer.is_some_and(|&register| instruction.op1_register() == register)
}

#[cfg(test)]
mod tests;
