//! The unwinding state at an address, as call frame instructions change it, and its compact rule.
//!
//! Of the sixteen registers that the instructions speak of, only those are followed that lead to the next frame.

use gimli::{CallFrameInstruction, Register, UnwindExpression};
use leaktrace_common::unwind::{CfaKind, FramePointerKind, Rule};

use super::expression::Shape;

/// DWARF number of the frame pointer on x86-64.
const RBP: u16 = 6;
/// DWARF number of the stack pointer on x86-64.
const RSP: u16 = 7;

/// Where the ucontext of a signal frame has the interrupted code's registers, from the frame's stack pointer.
const SIGNAL_RBP: i64 = 120;
const SIGNAL_RSP: i64 = 160;
const SIGNAL_RIP: i64 = 168;

/// How a register of the caller is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saved {
    /// Nothing said, or said to be unchanged.
    Same,
    Undefined,
    AtCfa(i64),
    /// Stored at the address that an expression gives.
    At(Shape),
    /// In another register, or computed.
    Other,
}

/// The state at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The CFA is this register + the offset, unless there is an expression. As in libgcc, the offset outlives an
    /// expression: hand-written code goes back from one by naming just the register.
    cfa_register: u16,
    cfa_offset: i64,
    cfa_expression: Option<Shape>,
    frame_pointer: Saved,
    return_address: Saved,
}

/// What stays the same for all instructions of a function.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    /// Number of the column of the return address.
    pub return_address: Register,
    /// Factor of offsets.
    pub data: i64,
}

/// An instruction that cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Default for State {
    fn default() -> Self {
        Self {
            cfa_register: 0,
            cfa_offset: 0,
            cfa_expression: None,
            frame_pointer: Saved::Same,
            return_address: Saved::Same,
        }
    }
}

impl State {
    /// Follows an instruction that neither moves on nor remembers. `initial` is the state at a function's start,
    /// absent while that is being found; `shape` recognizes an expression.
    pub fn apply(
        &mut self,
        instruction: &CallFrameInstruction<usize>,
        factors: Factors,
        initial: Option<&Self>,
        shape: impl Fn(&UnwindExpression<usize>) -> Shape,
    ) -> Result<(), Broken> {
        use CallFrameInstruction as I;
        let scaled = |factored: i64| factored.wrapping_mul(factors.data);
        match *instruction {
            I::DefCfa { register, offset } => self.define_cfa(register, offset as i64),
            I::DefCfaSf {
                register,
                factored_offset,
            } => self.define_cfa(register, scaled(factored_offset)),
            I::DefCfaRegister { register } => self.define_cfa(register, self.cfa_offset),
            I::DefCfaOffset { offset } => self.cfa_offset = offset as i64,
            I::DefCfaOffsetSf { factored_offset } => self.cfa_offset = scaled(factored_offset),
            I::DefCfaExpression { expression } => self.cfa_expression = Some(shape(&expression)),
            I::Undefined { register } => self.save(register, factors, Saved::Undefined),
            I::SameValue { register } => self.save(register, factors, Saved::Same),
            I::Offset {
                register,
                factored_offset,
            } => self.save(register, factors, Saved::AtCfa(scaled(factored_offset as i64))),
            I::OffsetExtendedSf {
                register,
                factored_offset,
            } => self.save(register, factors, Saved::AtCfa(scaled(factored_offset))),
            I::Register { dest_register, .. } => self.save(dest_register, factors, Saved::Other),
            I::ValOffset { register, .. } | I::ValOffsetSf { register, .. } | I::ValExpression { register, .. } => {
                self.save(register, factors, Saved::Other);
            }
            I::Expression { register, expression } => {
                if self.column(register, factors).is_some() {
                    self.save(register, factors, Saved::At(shape(&expression)));
                }
            }
            I::Restore { register } => self.restore(register, factors, initial.ok_or(Broken)?),
            I::ArgsSize { .. } | I::Nop => {}
            // Pointer authentication is of another machine; the rest is followed by the caller.
            _ => return Err(Broken),
        }
        Ok(())
    }

    fn define_cfa(&mut self, register: Register, offset: i64) {
        (self.cfa_register, self.cfa_offset, self.cfa_expression) = (register.0, offset, None);
    }

    fn cfa(&self) -> Shape {
        self.cfa_expression.unwrap_or(Shape::Register {
            register: self.cfa_register,
            offset: self.cfa_offset,
        })
    }

    fn column(&mut self, register: Register, factors: Factors) -> Option<&mut Saved> {
        if register == factors.return_address {
            Some(&mut self.return_address)
        } else if register.0 == RBP {
            Some(&mut self.frame_pointer)
        } else {
            None
        }
    }

    fn save(&mut self, register: Register, factors: Factors, saved: Saved) {
        if let Some(column) = self.column(register, factors) {
            *column = saved;
        }
    }

    fn restore(&mut self, register: Register, factors: Factors, initial: &Self) {
        let mut initial = *initial;
        if let Some(&mut saved) = initial.column(register, factors) {
            self.save(register, factors, saved);
        }
    }

    /// The compact rule of this state; `signal` in code that a signal handler returns to.
    pub fn rule(&self, signal: bool) -> Rule {
        if self.return_address == Saved::Undefined {
            return Rule::END;
        }
        if signal {
            return if self.is_ucontext() {
                Rule::SIGNAL
            } else {
                Rule::UNSUPPORTED
            };
        }
        if self.return_address != Saved::AtCfa(-8) {
            return Rule::UNSUPPORTED;
        }
        let (frame_pointer, frame_pointer_offset) = frame_pointer_rule(self.frame_pointer);
        match cfa_rule(self.cfa()) {
            Some((cfa, cfa_offset, cfa_addend)) => Rule {
                cfa: cfa as u8,
                frame_pointer: frame_pointer as u8,
                zero: 0,
                cfa_offset,
                cfa_addend,
                frame_pointer_offset,
            },
            None => Rule::UNSUPPORTED,
        }
    }

    fn is_ucontext(&self) -> bool {
        let at = |offset| Saved::At(Shape::Register { register: RSP, offset });
        let cfa = Shape::Stored {
            register: RSP,
            offset: SIGNAL_RSP,
            addend: 0,
        };
        self.cfa() == cfa && self.frame_pointer == at(SIGNAL_RBP) && self.return_address == at(SIGNAL_RIP)
    }
}

/// Kind, offset and addend.
fn cfa_rule(cfa: Shape) -> Option<(CfaKind, i32, i32)> {
    let (kind, offset, addend) = match cfa {
        Shape::Register { register, offset } => (
            by_register(register, CfaKind::StackPointer, CfaKind::FramePointer)?,
            offset,
            0,
        ),
        Shape::Stored {
            register,
            offset,
            addend,
        } => {
            let kind = by_register(register, CfaKind::AtStackPointer, CfaKind::AtFramePointer)?;
            (kind, offset, addend)
        }
        Shape::Plt { threshold } => (CfaKind::Plt, i64::try_from(threshold).ok()?, 0),
        Shape::Other => return None,
    };
    Some((kind, i32::try_from(offset).ok()?, i32::try_from(addend).ok()?))
}

fn by_register(register: u16, stack: CfaKind, frame: CfaKind) -> Option<CfaKind> {
    match register {
        RSP => Some(stack),
        RBP => Some(frame),
        _ => None,
    }
}

fn frame_pointer_rule(saved: Saved) -> (FramePointerKind, i32) {
    let (kind, offset) = match saved {
        Saved::Same => (FramePointerKind::Same, 0),
        Saved::AtCfa(offset) => (FramePointerKind::AtCfa, offset),
        Saved::At(Shape::Register { register: RBP, offset }) => (FramePointerKind::AtFramePointer, offset),
        Saved::Undefined | Saved::At(_) | Saved::Other => (FramePointerKind::Undefined, 0),
    };
    match i32::try_from(offset) {
        Ok(offset) => (kind, offset),
        Err(_) => (FramePointerKind::Undefined, 0),
    }
}
