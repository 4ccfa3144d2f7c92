//! Where a function ends that must have no return probe, because an exception may have to pass through it: the `ret`
//! instructions that are reached from its start, also by jumps to other functions.
//!
//! Pure: follows the code of an image. Every path that it cannot follow makes it refuse.

use std::collections::{BTreeSet, HashMap};

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};
use object::ReadRef;

use crate::target::elf::{Image, Import};

/// Most instructions followed for one function, and most bytes of one stretch of them.
const MOST_INSTRUCTIONS: usize = 16_384;
const MOST_BYTES: u64 = 4096;
/// Instructions looked at in a stub that jumps through a slot: `endbr64` may come first.
const STUB_INSTRUCTIONS: usize = 2;
const STUB_BYTES: u64 = 16;

/// Functions of the runtime that do not return.
const ENDLESS: &[&str] = &[
    "__cxa_throw",
    "__cxa_rethrow",
    "_Unwind_Resume",
    "__stack_chk_fail",
    "__assert_fail",
    "abort",
    "exit",
    "_exit",
    "pthread_exit",
    "_ZSt9terminatev",
];
/// How the names of the C++ library's throwing functions begin, after the length.
const THROWING: &str = "__throw_";

/// Why a function's end cannot be told from its code.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unclear {
    /// Bytes on the way are no instructions.
    #[error("its code cannot be read")]
    Undecodable,
    /// A jump through a register.
    #[error("it jumps to where only the process knows")]
    Indirect,
    /// A jump to another module's function, or to an allocation that has probes of its own.
    #[error("it hands calls on to another function")]
    HandsOn,
    /// Over 16,384 instructions.
    #[error("it is too long to be followed")]
    TooLong,
}

/// What a function does with its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exits {
    /// All that it returns comes from other functions that allocate, and are probed.
    ThroughOthers,
    /// The virtual addresses of its `ret` instructions.
    Returns(BTreeSet<u64>),
}

/// A module in which functions are followed.
pub struct Flow<'image, 'data, R: ReadRef<'data>> {
    image: &'image Image<'data, R>,
    imports: HashMap<u64, Import>,
    probed: BTreeSet<u64>,
    probed_names: &'image BTreeSet<String>,
}

/// Where a jump or a call goes.
enum Target {
    /// To code of this module.
    Here(u64),
    /// To a function that allocates, and is probed.
    Probed,
    /// To a function that does not return.
    Endless,
    /// To another module's function.
    Elsewhere,
    /// Where only the process knows.
    Unknown,
}

/// What is left to follow, and what was found.
#[derive(Default)]
struct Search {
    pending: Vec<u64>,
    /// Instructions followed, each apart for when nothing is about to be returned and when that is not known.
    seen: BTreeSet<(u64, bool)>,
    returns: BTreeSet<u64>,
    /// Whether the result of the line being followed is a null pointer so far.
    is_null: bool,
    /// Whether a path leaves the module.
    hands_on: bool,
}

impl<'image, 'data, R: ReadRef<'data>> Flow<'image, 'data, R> {
    /// Of a module in which the functions at the addresses `probed` allocate and are probed, as are those with
    /// `probed_names` in any module.
    pub fn new(image: &'image Image<'data, R>, probed: BTreeSet<u64>, probed_names: &'image BTreeSet<String>) -> Self {
        Self {
            image,
            imports: image.imports(),
            probed,
            probed_names,
        }
    }

    /// How calls of the function at `start` end.
    ///
    /// # Errors
    /// When that is not certain.
    pub fn exits(&self, start: u64) -> Result<Exits, Unclear> {
        let around = self.follow(start, false)?;
        if around.returns.is_empty() && !around.hands_on {
            return Ok(Exits::ThroughOthers);
        }
        let all = self.follow(start, true)?;
        if all.hands_on {
            return Err(Unclear::HandsOn);
        }
        Ok(Exits::Returns(all.returns))
    }

    /// Follows every path from `start`; those through functions that are probed only if `through_probed`.
    fn follow(&self, start: u64, through_probed: bool) -> Result<Search, Unclear> {
        let mut search = Search::default();
        search.pending.push(start);
        while let Some(address) = search.pending.pop() {
            self.follow_line(address, through_probed, &mut search)?;
        }
        Ok(search)
    }

    /// Follows instructions in a line, until one that does not go on to the next, or was seen before.
    fn follow_line(&self, start: u64, through_probed: bool, search: &mut Search) -> Result<(), Unclear> {
        let code = self.image.code(start, MOST_BYTES);
        search.is_null = false;
        for instruction in &mut Decoder::with_ip(64, code, start, DecoderOptions::NONE) {
            if instruction.is_invalid() {
                return Err(Unclear::Undecodable);
            }
            search.is_null = makes_null(&instruction) || (search.is_null && keeps_result(&instruction));
            if !search.seen.insert((instruction.ip(), search.is_null)) {
                return Ok(());
            }
            if search.seen.len() > MOST_INSTRUCTIONS {
                return Err(Unclear::TooLong);
            }
            if !self.goes_on(&instruction, through_probed, search)? {
                return Ok(());
            }
        }
        search.pending.push(start + code.len() as u64);
        if code.is_empty() {
            Err(Unclear::Undecodable)
        } else {
            Ok(())
        }
    }

    /// Whether the next instruction may follow this one.
    fn goes_on(&self, instruction: &Instruction, through_probed: bool, search: &mut Search) -> Result<bool, Unclear> {
        match instruction.flow_control() {
            // A failure ends the call like any other, but hands out nothing.
            FlowControl::Return if through_probed || !search.is_null => drop(search.returns.insert(instruction.ip())),
            FlowControl::ConditionalBranch => {
                search.jump(&self.target(instruction), through_probed)?;
                return Ok(true);
            }
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                search.jump(&self.target(instruction), through_probed)?;
            }
            FlowControl::Call | FlowControl::IndirectCall => {
                return Ok(match self.target(instruction) {
                    Target::Probed => through_probed,
                    Target::Endless => false,
                    _ => true,
                });
            }
            FlowControl::Return | FlowControl::Interrupt | FlowControl::Exception => {}
            FlowControl::Next | FlowControl::XbeginXabortXend => return Ok(instruction.code() != Code::Hlt),
        }
        Ok(false)
    }

    fn target(&self, instruction: &Instruction) -> Target {
        if instruction.is_ip_rel_memory_operand() {
            return self.through_slot(instruction.ip_rel_memory_address());
        }
        match instruction.near_branch_target() {
            0 => Target::Unknown,
            address => self.stub_slot(address).map_or_else(
                || {
                    if self.probed.contains(&address) {
                        Target::Probed
                    } else {
                        Target::Here(address)
                    }
                },
                |slot| self.through_slot(slot),
            ),
        }
    }

    /// The slot through which the stub at `address` jumps, if it is one.
    fn stub_slot(&self, address: u64) -> Option<u64> {
        let code = self.image.code(address, STUB_BYTES);
        let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        let jump = decoder
            .iter()
            .take(STUB_INSTRUCTIONS)
            .find(|instruction| instruction.code() != Code::Endbr64)?;
        let is_stub = jump.flow_control() == FlowControl::IndirectBranch && jump.is_ip_rel_memory_operand();
        is_stub.then(|| jump.ip_rel_memory_address())
    }

    fn through_slot(&self, slot: u64) -> Target {
        let Some(import) = self.imports.get(&slot) else {
            return Target::Unknown;
        };
        let is_probed = import.defined_at.is_some_and(|address| self.probed.contains(&address));
        if is_probed || self.probed_names.contains(&import.name) {
            Target::Probed
        } else if is_endless(&import.name) {
            Target::Endless
        } else {
            import.defined_at.map_or(Target::Elsewhere, Target::Here)
        }
    }
}

impl Search {
    fn jump(&mut self, target: &Target, through_probed: bool) -> Result<(), Unclear> {
        match target {
            Target::Here(address) => self.pending.push(*address),
            Target::Probed => self.hands_on |= through_probed,
            Target::Elsewhere => self.hands_on = true,
            Target::Endless => {}
            Target::Unknown => return Err(Unclear::Indirect),
        }
        Ok(())
    }
}

/// Whether it is `xor %eax, %eax`.
fn makes_null(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Code::Xor_rm32_r32 | Code::Xor_r32_rm32)
        && instruction.op0_register() == Register::EAX
        && instruction.op1_register() == Register::EAX
}

/// Whether the instruction is one of those on the way from a result to its `ret` that do not change it.
fn keeps_result(instruction: &Instruction) -> bool {
    let frees_stack = instruction.op0_register() == Register::RSP && instruction.mnemonic() == Mnemonic::Add;
    let restores = instruction.mnemonic() == Mnemonic::Pop && instruction.op0_register() != Register::RAX;
    frees_stack || restores || instruction.flow_control() == FlowControl::Return
}

fn is_endless(name: &str) -> bool {
    // `_ZSt17__throw_bad_allocv`
    let throws = name.strip_prefix("_ZSt").is_some_and(|rest| {
        rest.trim_start_matches(|digit: char| digit.is_ascii_digit())
            .starts_with(THROWING)
    });
    throws || ENDLESS.contains(&name)
}

#[cfg(test)]
mod tests;
