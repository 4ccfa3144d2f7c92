//! Where the Go heap is watched: three instructions of the runtime's allocator that every span passes. Pure.
//!
//! Each is found by what stands around it, and only if the code there is what it is in all versions known: reached once
//! for each call, the span in a known register, the frame pointer set. Each is an instruction that the kernel emulates.

use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::locate::{instructions, writes};
use super::pclntab::Table;
use super::words::Words;

const REFILL: &str = "runtime.(*mcache).refill";
const LARGE: &str = "runtime.(*mcache).allocLarge";
const UNCACHE: &str = "runtime.(*mcentral).uncacheSpan";

/// Virtual addresses of three instructions, as the file counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapProbes {
    /// A span for small objects was handed to a processor: RAX has it, or 0. RBP begins the chain of frames, and
    /// `refill` is the function.
    pub refill: u64,
    /// A span was made for one large object: RAX has it, or 0. RBP as above, in `allocLarge`.
    pub large: u64,
    /// A span is about to be taken back from a processor: RBX has it.
    pub uncache: u64,
}

/// Why one of them was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{function} {why}")]
pub struct NoProbe {
    /// The function.
    pub function: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
}

impl HeapProbes {
    /// Looks for the three in a program.
    ///
    /// # Errors
    /// The code is not as it is in the versions that are known.
    pub fn find(table: &Table, words: &Words<'_>) -> Result<Self, NoProbe> {
        let program = Functions { table, words };
        let refill = program.code(REFILL)?;
        // Profile-guided builds can put one function into another: a probe in the original would not see that.
        program.expect_call(UNCACHE, &refill)?;
        program.expect_caller(REFILL, &["runtime.(*mcache).nextFree"])?;
        program.expect_caller(LARGE, &["runtime.mallocgcLarge", "runtime.mallocgc"])?;
        Ok(Self {
            refill: program.after_call(REFILL, "runtime.(*mcentral).cacheSpan")?,
            large: program.after_call(LARGE, "runtime.(*mheap).alloc")?,
            uncache: before_first_change(&program.code(UNCACHE)?, Register::RBX).ok_or(NoProbe {
                function: UNCACHE,
                why: "does not begin as it does in the versions that are known",
            })?,
        })
    }
}

/// The code of a program by function.
struct Functions<'a> {
    table: &'a Table,
    words: &'a Words<'a>,
}

impl Functions<'_> {
    fn code(&self, function: &'static str) -> Result<Vec<Instruction>, NoProbe> {
        let code = instructions(self.table, self.words, function).unwrap_or_default();
        let why = "is not in its table of functions, or has no code";
        if code.is_empty() {
            Err(NoProbe { function, why })
        } else {
            Ok(code)
        }
    }

    fn calls(&self, code: &[Instruction], callee: &str) -> bool {
        let start = self.table.named(callee).map(|function| function.start);
        start.is_some() && code.iter().any(|each| target_of_call(each) == start)
    }

    fn expect_call(&self, callee: &'static str, code: &[Instruction]) -> Result<(), NoProbe> {
        let why =
            "is not called where it is in the versions that are known: a profile-guided build may have inlined it";
        if self.calls(code, callee) {
            Ok(())
        } else {
            Err(NoProbe { function: callee, why })
        }
    }

    /// Wants one of the callers that are there to call `callee`.
    fn expect_caller(&self, callee: &'static str, callers: &[&'static str]) -> Result<(), NoProbe> {
        let found = callers.iter().filter_map(|caller| self.code(caller).ok());
        self.expect_call(callee, &found.flatten().collect::<Vec<_>>())
    }

    /// The jump that decides on what `callee` has returned in RAX: `call; test rax, rax; je`.
    fn after_call(&self, function: &'static str, callee: &'static str) -> Result<u64, NoProbe> {
        let code = self.code(function)?;
        let missing = |why| NoProbe { function, why };
        let start = self.table.named(callee).map(|function| function.start);
        let is_call = |each: &Instruction| start.is_some() && target_of_call(each) == start;
        let mut calls = code.iter().enumerate().filter(|(_, each)| is_call(each));
        let (Some((call, _)), None) = (calls.next(), calls.next()) else {
            return Err(missing("does not get its span by one call"));
        };
        let (before, after) = code.split_at_checked(call + 1).unwrap_or_default();
        let jump = jump_if_zero(after).ok_or_else(|| missing("does not look whether it was given a span"))?;
        if !before.iter().any(sets_frame_pointer) {
            return Err(missing("keeps no frame pointer"));
        }
        let first = after.first().map_or(jump, Instruction::ip);
        if is_entered(&code, first, jump) {
            Err(missing("comes to where it has its span in more than one way"))
        } else {
            Ok(jump)
        }
    }
}

fn target_of_call(instruction: &Instruction) -> Option<u64> {
    (instruction.code() == Code::Call_rel32_64).then(|| instruction.near_branch_target())
}

/// The jump of `test rax, rax; je`, nothing but padding before and between.
fn jump_if_zero(code: &[Instruction]) -> Option<u64> {
    let mut real = code.iter().filter(|each| !is_padding(each));
    let (test, jump) = (real.next()?, real.next()?);
    let of_rax = [test.op0_register(), test.op1_register()] == [Register::RAX; 2];
    (test.mnemonic() == Mnemonic::Test && of_rax && jump.mnemonic() == Mnemonic::Je).then(|| jump.ip())
}

fn is_padding(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Nop || instruction.code() == Code::Xchg_rm16_r16
}

/// `mov rbp, rsp`, or `lea rbp, [rsp+…]` up to Go 1.20.
fn sets_frame_pointer(instruction: &Instruction) -> bool {
    let from_stack = instruction.op1_register() == Register::RSP
        || (instruction.mnemonic() == Mnemonic::Lea && instruction.memory_base() == Register::RSP);
    let moves = matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Lea);
    moves && instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RBP && from_stack
}

/// Whether a jump within `code` leads to an instruction from `first` to `last`.
fn is_entered(code: &[Instruction], first: u64, last: u64) -> bool {
    let mut jumps = code.iter().filter(|each| is_direct_jump(each));
    jumps.any(|jump| (first..=last).contains(&jump.near_branch_target()))
}

fn is_direct_jump(instruction: &Instruction) -> bool {
    let flow = instruction.flow_control();
    matches!(flow, FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
}

/// The first instruction behind the check of the stack's size that the kernel emulates, reached in a straight line while
/// `register` has what it had at the entry. The check sends a goroutine that needs more stack back to the entry: an
/// instruction before it would be come to twice.
fn before_first_change(code: &[Instruction], register: Register) -> Option<u64> {
    let behind = behind_stack_check(code)?;
    let body = code.get(behind..)?;
    let straight = body.iter().take_while(|each| each.flow_control() == FlowControl::Next);
    let straight = straight.count() + 1;
    let found = body.iter().take(straight).position(is_emulated)?;
    let is_kept = !code.iter().take(behind + found).any(|each| writes(each, register));
    let (first, last) = (body.first()?.ip(), body.get(found)?.ip());
    (is_kept && !is_entered(code, first, last)).then_some(last)
}

/// How many instructions the check of the stack's size has: `cmp rsp, [r14+16]; jbe`, or with a register of its own for
/// larger frames.
fn behind_stack_check(code: &[Instruction]) -> Option<usize> {
    let is_check = |each: &Instruction| each.mnemonic() == Mnemonic::Cmp && each.memory_base() == Register::R14;
    let check = code.iter().take(4).position(is_check)?;
    let jump = code.get(check + 1)?;
    (jump.mnemonic() == Mnemonic::Jbe && jump.near_branch_target() > jump.ip()).then_some(check + 2)
}

/// What the kernel has no need to single-step: pushes of a register, and conditional jumps.
fn is_emulated(instruction: &Instruction) -> bool {
    instruction.code() == Code::Push_r64 || instruction.flow_control() == FlowControl::ConditionalBranch
}

#[cfg(test)]
#[path = "probe_sites_tests.rs"]
mod tests;
