//! The entries of `.eh_frame` and `.debug_frame`, one function after another.
//!
//! The entries are framed here rather than by gimli's iterator, which ends at the first broken one, and at a zero
//! length in the middle of the section that some links leave behind.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CallFrameInstruction, CallFrameInstructionIter, CommonInformationEntry, EndianSlice, LittleEndian,
    UnwindOffset, UnwindSection,
};
use leaktrace_common::unwind::Rule;

use super::{
    collect::Collector,
    expression::{Shape, shape},
    state::{Broken, Factors, State},
};

/// A part of a section.
pub type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// Most states remembered at once. Compilers nest two.
const MOST_REMEMBERED: usize = 64;

/// Size of an address in bytes.
const ADDRESS_SIZE: u8 = 8;

type Cie<'data> = CommonInformationEntry<Slice<'data>>;

/// In place of where its common entry is, a common entry has this in `.eh_frame`.
pub const EH_COMMON: u32 = 0;
/// In place of where its common entry is, a common entry has this in `.debug_frame`; twice in the 64-bit format.
pub const DEBUG_COMMON: u32 = u32::MAX;

/// Gives all functions of a section, whose bytes are `bytes`, to `into`.
pub fn read<'data, S: UnwindSection<Slice<'data>>>(
    section: &S,
    bytes: &[u8],
    common_id: u32,
    bases: &BaseAddresses,
    into: &mut Collector,
) {
    let mut entries = Entries {
        section,
        bases,
        common: HashMap::new(),
        allowance: bytes.len(),
        remembered: Vec::new(),
    };
    let mut at = 0;
    while let Some(length) = entry_length(bytes, at) {
        let Some(end) = at.checked_add(length).filter(|&end| end <= bytes.len()) else {
            into.skipped += 1;
            break;
        };
        let id = entry_id(bytes, at, end);
        if length > size_of::<u32>() && id != Some(common_id) && entries.function(at, into).is_err() {
            into.skipped += 1;
        }
        at = end;
    }
}

/// The word after the length field.
fn entry_id(bytes: &[u8], at: usize, end: usize) -> Option<u32> {
    let entry = bytes.get(at..end)?;
    let field = if entry.starts_with(&[u8::MAX; 4]) { 12 } else { 4 };
    entry.get(field..)?.first_chunk().map(|id| u32::from_le_bytes(*id))
}

/// Length of the entry at `at` with its length field; `None` at the end of the section.
pub fn entry_length(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let (short, rest) = rest.split_first_chunk()?;
    match u32::from_le_bytes(*short) {
        u32::MAX => {
            let long = u64::from_le_bytes(*rest.first_chunk()?);
            Some(usize::try_from(long).ok()?.saturating_add(12))
        }
        length => Some(length as usize + 4),
    }
}

struct Entries<'a, 'data, S: UnwindSection<Slice<'data>>> {
    section: &'a S,
    bases: &'a BaseAddresses,
    /// By offset; absent ones were broken.
    common: HashMap<usize, Option<Box<Common<'data>>>>,
    /// Bytes of common entries that may still be read. Entries do not overlap, so the common ones together cannot be
    /// longer than the section; if they could, a file might ask for time in the square of its size.
    allowance: usize,
    remembered: Vec<State>,
}

/// What functions have in common.
struct Common<'data> {
    cie: Cie<'data>,
    initial: State,
}

impl<'data, S: UnwindSection<Slice<'data>>> Entries<'_, 'data, S> {
    fn function(&mut self, at: usize, into: &mut Collector) -> Result<(), Broken> {
        let partial = self
            .section
            .partial_fde_from_offset(self.bases, S::Offset::from(at))
            .map_err(|_| Broken)?;
        let common_at = UnwindOffset::into(partial.cie_offset());
        if !self.common.contains_key(&common_at) {
            let common = self.read_common(common_at).map(Box::new);
            self.common.insert(common_at, common);
        }
        let common = self.common.get(&common_at).and_then(Option::as_deref).ok_or(Broken)?;
        let function = partial.parse(|_, _, _| Ok(common.cie.clone())).map_err(|_| Broken)?;
        let start = function.initial_address();
        let Some(end) = into.function(start, function.len()) else {
            return Ok(());
        };
        self.remembered.clear();
        let mut program = Program {
            section: self.section,
            common,
            signal: function.is_signal_trampoline(),
            remembered: &mut self.remembered,
            state: common.initial,
            address: start,
            end,
        };
        let done = program.run(function.instructions(self.section, self.bases), into);
        let last = if done.is_ok() {
            program.rule()
        } else {
            Rule::UNSUPPORTED
        };
        into.row(program.address, last);
        done
    }

    fn read_common(&mut self, at: usize) -> Option<Common<'data>> {
        let cie = self.section.cie_from_offset(self.bases, S::Offset::from(at)).ok()?;
        self.allowance = self.allowance.checked_sub(cie.entry_len())?;
        let mut initial = State::default();
        let factors = factors(&cie);
        let mut instructions = cie.instructions(self.section, self.bases);
        while let Some(instruction) = instructions.next().ok()? {
            let shape = |expression: &_| shape_of(self.section, &cie, expression);
            initial.apply(&instruction, factors, None, shape).ok()?;
        }
        (cie.address_size() == ADDRESS_SIZE).then_some(Common { cie, initial })
    }
}

fn factors(cie: &Cie<'_>) -> Factors {
    Factors {
        return_address: cie.return_address_register(),
        data: cie.data_alignment_factor(),
    }
}

fn shape_of<'data, S: UnwindSection<Slice<'data>>>(
    section: &S,
    cie: &Cie<'_>,
    expression: &gimli::UnwindExpression<usize>,
) -> Shape {
    expression
        .get(section)
        .map_or(Shape::Other, |expression| shape(expression, cie.encoding()))
}

/// The instructions of a function being followed.
struct Program<'a, 'data, S> {
    section: &'a S,
    common: &'a Common<'data>,
    signal: bool,
    remembered: &'a mut Vec<State>,
    state: State,
    address: u64,
    end: u64,
}

impl<'data, S: UnwindSection<Slice<'data>>> Program<'_, 'data, S> {
    fn run(
        &mut self,
        mut instructions: CallFrameInstructionIter<'_, Slice<'data>>,
        into: &mut Collector,
    ) -> Result<(), Broken> {
        while self.address < self.end {
            match instructions.next().map_err(|_| Broken)? {
                Some(instruction) => self.follow(&instruction, into)?,
                None => break,
            }
        }
        Ok(())
    }

    fn follow(&mut self, instruction: &CallFrameInstruction<usize>, into: &mut Collector) -> Result<(), Broken> {
        match *instruction {
            CallFrameInstruction::AdvanceLoc { delta } => {
                let delta = u64::from(delta).wrapping_mul(self.common.cie.code_alignment_factor());
                self.advance(self.address.checked_add(delta).ok_or(Broken)?, into)
            }
            CallFrameInstruction::SetLoc { address } => self.advance(address, into),
            CallFrameInstruction::RememberState if self.remembered.len() < MOST_REMEMBERED => {
                self.remembered.push(self.state);
                Ok(())
            }
            CallFrameInstruction::RestoreState => {
                self.state = self.remembered.pop().ok_or(Broken)?;
                Ok(())
            }
            _ => {
                let cie = &self.common.cie;
                let shape = |expression: &_| shape_of(self.section, cie, expression);
                self.state
                    .apply(instruction, factors(cie), Some(&self.common.initial), shape)
            }
        }
    }

    fn advance(&mut self, to: u64, into: &mut Collector) -> Result<(), Broken> {
        if to < self.address {
            return Err(Broken);
        }
        into.row(self.address, self.rule());
        self.address = to;
        Ok(())
    }

    fn rule(&self) -> Rule {
        self.state.rule(self.signal)
    }
}
