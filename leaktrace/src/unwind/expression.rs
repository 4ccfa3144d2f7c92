//! The few DWARF expressions that compilers, assemblers and linkers write into unwinding tables, recognized by form.

use gimli::{Encoding, Expression, Operation};

use super::frames::Slice;

/// Most operations of a recognized expression: the one of a procedure linkage table has nine.
const MOST_OPERATIONS: usize = 9;

/// DWARF number of the instruction pointer on x86-64.
const RIP: u16 = 16;
/// DWARF number of the stack pointer on x86-64.
const RSP: u16 = 7;

/// What an expression computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Register + offset.
    Register { register: u16, offset: i64 },
    /// What is stored at register + offset, + addend.
    Stored { register: u16, offset: i64, addend: i64 },
    /// Stack pointer + 8, and + 8 more from byte `threshold` of each 16 on.
    Plt { threshold: u64 },
    /// Anything else.
    Other,
}

/// Recognizes an expression.
pub fn shape(expression: Expression<Slice<'_>>, encoding: Encoding) -> Shape {
    let mut operations = [Operation::Nop; MOST_OPERATIONS];
    let mut count = 0;
    let mut rest = expression.operations(encoding);
    loop {
        match (rest.next(), operations.get_mut(count)) {
            (Ok(Some(operation)), Some(slot)) => *slot = operation,
            (Ok(None), _) => break,
            _ => return Shape::Other,
        }
        count += 1;
    }
    operations.get(..count).map_or(Shape::Other, of_operations)
}

fn of_operations(operations: &[Operation<Slice<'_>>]) -> Shape {
    match operations {
        [Operation::RegisterOffset { register, offset, .. }, rest @ ..] => match rest {
            [Operation::RegisterOffset { .. }, ..] => plt(operations),
            [
                Operation::Deref {
                    size: 8, space: false, ..
                },
                rest @ ..,
            ] => match sum(rest) {
                Some(addend) => Shape::Stored {
                    register: register.0,
                    offset: *offset,
                    addend,
                },
                None => Shape::Other,
            },
            _ => match sum(rest) {
                Some(more) => Shape::Register {
                    register: register.0,
                    offset: offset.wrapping_add(more),
                },
                None => Shape::Other,
            },
        },
        _ => Shape::Other,
    }
}

/// The sum of additions of constants.
fn sum(operations: &[Operation<Slice<'_>>]) -> Option<i64> {
    operations.iter().try_fold(0_i64, |sum, operation| match operation {
        Operation::PlusConstant { value } => Some(sum.wrapping_add(*value as i64)),
        Operation::Nop => Some(sum),
        _ => None,
    })
}

/// `rsp + 8 + (((rip & 15) >= threshold) << 3)`, which linkers write for `.plt`.
fn plt(operations: &[Operation<Slice<'_>>]) -> Shape {
    match operations {
        [
            Operation::RegisterOffset {
                register: gimli::Register(RSP),
                offset: 8,
                ..
            },
            Operation::RegisterOffset {
                register: gimli::Register(RIP),
                offset: 0,
                ..
            },
            Operation::UnsignedConstant { value: 15 },
            Operation::And,
            Operation::UnsignedConstant { value: threshold },
            Operation::Ge,
            Operation::UnsignedConstant { value: 3 },
            Operation::Shl,
            Operation::Plus,
        ] => Shape::Plt { threshold: *threshold },
        _ => Shape::Other,
    }
}
