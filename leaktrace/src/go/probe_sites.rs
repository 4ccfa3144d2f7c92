//! Where in Go's runtime spans are handed out and given back, in a program without symbols. Pure.

use iced_x86::{Instruction, Mnemonic, Register};

use super::locate::instructions;
use super::pclntab::Table;
use super::words::Words;

/// Virtual addresses of the instructions that are probed, as the file counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapProbes {
    /// A span of small objects has been handed out: it is described where RAX points to.
    pub refill: u64,
    /// As `refill`, for a span that is one large object.
    pub large: u64,
    /// A span is given back: it is described where RBX points to.
    pub uncache: u64,
}

impl HeapProbes {
    /// Finds them; nothing unless all are found.
    pub fn find(table: &Table, words: &Words<'_>) -> Option<Self> {
        let start = |name| table.named(name).map(|function| function.start);
        let refill = instructions(table, words, "runtime.(*mcache).refill")?;
        let large = instructions(table, words, "runtime.(*mcache).allocLarge")?;
        let uncache = instructions(table, words, "runtime.(*mcentral).uncacheSpan")?;
        Some(Self {
            refill: tested_after(&refill, start("runtime.(*mcentral).cacheSpan")?)?,
            large: tested_after(&large, start("runtime.(*mheap).alloc")?)?,
            uncache: uncache
                .iter()
                .take(8)
                .find(|each| each.mnemonic() == Mnemonic::Push && each.op0_register() == Register::RBP)?
                .ip(),
        })
    }
}

/// The jump that follows a test of what `callee` has returned.
fn tested_after(code: &[Instruction], callee: u64) -> Option<u64> {
    let call = code
        .iter()
        .position(|each| each.mnemonic() == Mnemonic::Call && each.near_branch_target() == callee)?;
    let mut after = code.get(call + 1..)?.iter().filter(|each| each.mnemonic() != Mnemonic::Nop);
    let (test, jump) = (after.next()?, after.next()?);
    let is_test = test.mnemonic() == Mnemonic::Test
        && test.op0_register() == Register::RAX
        && test.op1_register() == Register::RAX;
    (is_test && matches!(jump.mnemonic(), Mnemonic::Je | Mnemonic::Jne)).then(|| jump.ip())
}
