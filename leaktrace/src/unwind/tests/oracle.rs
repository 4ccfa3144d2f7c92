//! What gimli makes of a file, evaluated with numbers: for each stretch of addresses, how to get the caller's
//! registers from made-up ones. Shares no code with the tables but the reading of an instruction's bytes.

use std::borrow::Cow;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, DebugFrame, EhFrame, EndianSlice, EvaluationResult, Expression,
    FrameDescriptionEntry, LittleEndian, Location, Reader, RegisterRule, UnwindContext, UnwindContextStorage,
    UnwindSection, UnwindTableRow, Value,
};
use leaktrace_common::unwind::Registers;
use object::{Object, ObjectSection};

use super::word_at;

type Slice<'data> = EndianSlice<'data, LittleEndian>;

const RBP: gimli::Register = gimli::Register(6);
const RSP: gimli::Register = gimli::Register(7);
const RIP: gimli::Register = gimli::Register(16);

/// Padding between functions up to this length may have the rule of the function before it.
const PADDING: u64 = 16;

/// Deep enough for all that is found in real files.
struct Deep;
impl<T: gimli::ReaderOffset> UnwindContextStorage<T> for Deep {
    type Rules = [(gimli::Register, RegisterRule<T>); 64];
    type Stack = Box<[UnwindTableRow<T, Self>; 40]>;
}

/// What an unwinder should find at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Gap,
    End,
    /// Needs other registers.
    Beyond,
    /// Instructions that gimli refuses.
    Broken,
    /// The frame pointer is absent where gimli cannot tell it.
    Caller {
        instruction_pointer: u64,
        stack_pointer: u64,
        frame_pointer: Option<u64>,
    },
}

/// Addresses with one row.
pub struct Stretch<'a> {
    pub start: u64,
    pub end: u64,
    evaluate: &'a dyn Fn(&Registers) -> Expected,
}

impl Stretch<'_> {
    /// What to expect of these registers, whose instruction pointer lies in the stretch.
    pub fn expected(&self, registers: &Registers) -> Expected {
        (self.evaluate)(registers)
    }
}

/// Calls `visit` for all stretches of a file, in the order of their addresses. Answers the number of functions, or
/// `None` for a file without unwinding information.
pub fn each_stretch(data: &[u8], mut visit: impl FnMut(&Stretch<'_>)) -> Option<usize> {
    let file = object::File::parse(data).ok()?;
    let address = |name: &str| file.section_by_name(name).map_or(0, |section| section.address());
    let contents = |name: &str| -> Cow<'_, [u8]> {
        file.section_by_name(name)
            .and_then(|section| section.uncompressed_data().ok())
            .unwrap_or_default()
    };
    let (eh_bytes, debug_bytes) = (contents(".eh_frame"), contents(".debug_frame"));
    if eh_bytes.is_empty() && debug_bytes.is_empty() {
        return None;
    }
    let bases = BaseAddresses::default()
        .set_eh_frame(address(".eh_frame"))
        .set_text(address(".text"))
        .set_got(address(".got"));
    let eh_frame = EhFrame::new(&eh_bytes, LittleEndian);
    let debug_frame = DebugFrame::new(&debug_bytes, LittleEndian);
    let mut functions: Vec<Function<'_>> = Vec::new();
    collect(&eh_frame, &bases, |fde| functions.push(Function { fde, debug: false }));
    collect(&debug_frame, &bases, |fde| {
        functions.push(Function { fde, debug: true });
    });
    functions.sort_by_key(|function| function.fde.initial_address());
    functions.dedup_by_key(|function| function.fde.initial_address());
    for (index, function) in functions.iter().enumerate() {
        let next = functions.get(index + 1).map(|next| next.fde.initial_address());
        let last = if function.debug {
            rows(&debug_frame, &bases, &function.fde, next, &mut visit)
        } else {
            rows(&eh_frame, &bases, &function.fde, next, &mut visit)
        };
        let end = function.fde.end_address();
        let next = next.unwrap_or(u64::MAX);
        if end >= next {
            continue;
        }
        let gap = |_: &Registers| Expected::Gap;
        let after_last = |registers: &Registers| {
            if function.debug {
                evaluate(&debug_frame, &function.fde, last.as_ref(), registers)
            } else {
                evaluate(&eh_frame, &function.fde, last.as_ref(), registers)
            }
        };
        visit(&Stretch {
            start: end,
            end: next,
            evaluate: if next - end < PADDING { &after_last } else { &gap },
        });
    }
    Some(functions.len())
}

struct Function<'data> {
    fde: FrameDescriptionEntry<Slice<'data>>,
    debug: bool,
}

fn collect<'data, S: UnwindSection<Slice<'data>>>(
    section: &S,
    bases: &BaseAddresses,
    mut visit: impl FnMut(FrameDescriptionEntry<Slice<'data>>),
) {
    let mut entries = section.entries(bases);
    while let Some(entry) = entries.next().expect("an undamaged file") {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(S::cie_from_offset).expect("an undamaged file");
        if fde.initial_address() != 0 && fde.len() != 0 {
            visit(fde);
        }
    }
}

/// The rules of a row for the three registers.
struct Row {
    cfa: CfaRule<usize>,
    frame_pointer: Option<RegisterRule<usize>>,
    return_address: Option<RegisterRule<usize>>,
}

/// Visits the rows of a function up to the next function's start. Answers the last row, unless it is broken.
fn rows<'data, S: UnwindSection<Slice<'data>>>(
    section: &S,
    bases: &BaseAddresses,
    fde: &FrameDescriptionEntry<Slice<'data>>,
    next: Option<u64>,
    visit: &mut impl FnMut(&Stretch<'_>),
) -> Option<Row> {
    let end = next.map_or(fde.end_address(), |next| next.min(fde.end_address()));
    let mut context = UnwindContext::<usize, Deep>::new_in();
    let mut table = fde.rows(section, bases, &mut context).ok();
    let mut at = fde.initial_address();
    let mut last = None;
    while at < end {
        let row = match table.as_mut().map(gimli::UnwindTable::next_row) {
            Some(Ok(Some(row))) if row.contains(at) => row,
            Some(Ok(Some(_))) => continue,
            _ => {
                let beyond = |_: &Registers| Expected::Broken;
                visit(&Stretch {
                    start: at,
                    end,
                    evaluate: &beyond,
                });
                return None;
            }
        };
        let until = row.end_address().min(end);
        let row = Row {
            cfa: row.cfa().clone(),
            frame_pointer: row.register(RBP),
            return_address: row.register(fde.cie().return_address_register()),
        };
        visit(&Stretch {
            start: at,
            end: until,
            evaluate: &|registers: &Registers| evaluate(section, fde, Some(&row), registers),
        });
        last = Some(row);
        at = until;
    }
    last
}

fn evaluate<'data, S: UnwindSection<Slice<'data>>>(
    section: &S,
    fde: &FrameDescriptionEntry<Slice<'data>>,
    row: Option<&Row>,
    registers: &Registers,
) -> Expected {
    let Some(row) = row else { return Expected::Broken };
    let compute = |expression: &gimli::UnwindExpression<usize>, initial: Option<u64>| {
        let expression = expression.get(section).expect("gimli has checked it");
        value(expression, fde.cie().encoding(), initial, registers)
    };
    let restore = |rule: &Option<RegisterRule<usize>>, unchanged: u64, cfa: u64| match rule {
        None | Some(RegisterRule::SameValue) => Some(unchanged),
        Some(RegisterRule::Offset(offset)) => Some(word_at(cfa.wrapping_add(*offset as u64))),
        Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add(*offset as u64)),
        Some(RegisterRule::Expression(expression)) => compute(expression, Some(cfa)).map(word_at),
        Some(RegisterRule::ValExpression(expression)) => compute(expression, Some(cfa)),
        Some(RegisterRule::Register(register)) => known(*register, registers),
        _ => None,
    };
    if row.return_address == Some(RegisterRule::Undefined) {
        return Expected::End;
    }
    let cfa = match &row.cfa {
        CfaRule::RegisterAndOffset { register, offset } => {
            known(*register, registers).map(|value| value.wrapping_add(*offset as u64))
        }
        CfaRule::Expression(expression) => compute(expression, None),
    };
    let Some(cfa) = cfa else { return Expected::Beyond };
    // With no rule for it, there is no return address to be had.
    let Some(instruction_pointer) = row
        .return_address
        .is_some()
        .then(|| restore(&row.return_address, 0, cfa))
        .flatten()
    else {
        return Expected::Beyond;
    };
    Expected::Caller {
        instruction_pointer,
        stack_pointer: cfa,
        frame_pointer: restore(&row.frame_pointer, registers.frame_pointer, cfa),
    }
}

fn known(register: gimli::Register, registers: &Registers) -> Option<u64> {
    match register {
        RBP => Some(registers.frame_pointer),
        RSP => Some(registers.stack_pointer),
        RIP => Some(registers.instruction_pointer),
        _ => None,
    }
}

fn value<R: Reader>(
    expression: Expression<R>,
    encoding: gimli::Encoding,
    initial: Option<u64>,
    registers: &Registers,
) -> Option<u64> {
    let mut evaluation = expression.evaluation(encoding);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut result = evaluation.evaluate().ok()?;
    loop {
        result = match result {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => evaluation
                .resume_with_register(Value::Generic(known(register, registers)?))
                .ok()?,
            EvaluationResult::RequiresMemory { address, .. } => {
                evaluation.resume_with_memory(Value::Generic(word_at(address))).ok()?
            }
            _ => return None,
        };
    }
    match evaluation.result().first()?.location {
        Location::Address { address } => Some(address),
        _ => None,
    }
}
