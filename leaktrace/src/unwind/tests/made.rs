//! Sections made by hand: what compilers write seldom, or must not write at all.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use leaktrace_common::unwind::{CfaKind, FramePointerKind, PAGE_BITS, Rule};

use super::{process::vdso, rows::check_form};
use crate::unwind::{
    CodeSegment, FrameSection, RuleInterner, Table, UnwindError, UnwindSections, build, sections, table,
};

const CODE: u64 = 0x40_1000;
const CODE_SIZE: u64 = 0x40_0000;

const ADVANCE_4: u8 = 0x44;
const REMEMBER: u8 = 0x0A;
const RESTORE: u8 = 0x0B;
const CFA_OFFSET: u8 = 0x0E;
const CFA_REGISTER: u8 = 0x0D;
const CFA_EXPRESSION: u8 = 0x0F;
const EXPRESSION: u8 = 0x10;
const UNDEFINED: u8 = 0x07;
/// Not an instruction.
const BAD: u8 = 0x3F;

/// An `.eh_frame` in the making.
#[derive(Default)]
struct Made(Vec<u8>);

impl Made {
    /// A common entry with absolute addresses: CFA is rsp + 8, return address below it. Answers its offset.
    fn common(&mut self, augmentation: &[u8]) -> usize {
        let at = self.0.len();
        let instructions = [0x0C, 7, 8, 0x90, 1];
        let body = [
            &[0, 0, 0, 0, 1][..],
            augmentation,
            &[0, 1, 0x78, 16, 1, 0],
            &instructions,
        ]
        .concat();
        self.entry(&body);
        at
    }

    fn function(&mut self, common: usize, start: u64, length: u64, instructions: &[u8]) {
        let back = (self.0.len() + 4 - common) as u32;
        let body = [
            &back.to_le_bytes()[..],
            &start.to_le_bytes(),
            &length.to_le_bytes(),
            &[0],
            instructions,
        ]
        .concat();
        self.entry(&body);
    }

    fn entry(&mut self, body: &[u8]) {
        self.0.extend((body.len() as u32).to_le_bytes());
        self.0.extend(body);
    }

    fn sections(self) -> UnwindSections<'static> {
        UnwindSections {
            eh_frame: Some(FrameSection {
                address: 0x40_0000,
                bytes: Cow::Owned(self.0),
            }),
            debug_frame: None,
            text_address: CODE,
            got_address: 0,
            code: vec![CodeSegment {
                address: CODE,
                file_offset: 0x1000,
                size: CODE_SIZE,
            }],
        }
    }

    fn table(self) -> Table {
        build(&self.sections()).expect("sections")
    }
}

fn stack_pointer(offset: i32) -> Rule {
    Rule {
        cfa_offset: offset,
        ..Rule::bare(CfaKind::StackPointer)
    }
}

fn rows(table: &Table) -> Vec<(u64, Rule)> {
    table.iter().map(|(address, rule)| (address - CODE, *rule)).collect()
}

#[test]
fn gaps_are_kept_and_padding_is_absorbed() {
    let mut made = Made::default();
    let common = made.common(b"zR");
    // Out of order, as linkers write them.
    made.function(common, CODE + 0x100, 0x10, &[ADVANCE_4, CFA_OFFSET, 16]);
    made.function(common, CODE, 0x21, &[ADVANCE_4, CFA_OFFSET, 24]);
    made.function(common, CODE + 0x30, 0x10, &[UNDEFINED, 16]);
    let expected = [
        (0, stack_pointer(8)),
        (4, stack_pointer(24)),
        (0x30, Rule::END),
        (0x40, Rule::GAP),
        (0x100, stack_pointer(8)),
        (0x104, stack_pointer(16)),
        (0x110, Rule::GAP),
    ];
    assert_eq!(rows(&made.table()), expected);
}

#[test]
fn of_overlapping_functions_the_last_to_start_holds() {
    let mut made = Made::default();
    let common = made.common(b"zR");
    made.function(common, CODE, 0x100, &[CFA_OFFSET, 16]);
    made.function(common, CODE + 0x40, 0x20, &[CFA_OFFSET, 32]);
    made.function(common, CODE + 0x40, 0x30, &[CFA_OFFSET, 48]);
    let expected = [(0, stack_pointer(16)), (0x40, stack_pointer(32)), (0x60, Rule::GAP)];
    assert_eq!(rows(&made.table()), expected);
}

#[test]
fn what_is_broken_is_counted_and_the_rest_is_kept() {
    let mut made = Made::default();
    let common = made.common(b"zR");
    made.function(common, CODE, 0x40, &[ADVANCE_4, BAD, ADVANCE_4, CFA_OFFSET, 16]);
    // Discarded by the linker: not an error.
    made.function(common, 0, 0x40, &[]);
    made.function(common, CODE + 0x80, 0, &[]);
    // Not in the code; and a common entry that is none.
    made.function(common, CODE + CODE_SIZE, 0x40, &[]);
    made.function(common + 4, CODE + 0x200, 0x40, &[]);
    // A zero length in the middle.
    made.0.extend([0; 4]);
    made.function(common, CODE + 0x40, 0x40, &[RESTORE]);
    made.function(common, CODE + 0x80, u64::MAX, &[CFA_OFFSET, 16]);
    // Cut off.
    made.0.extend(100_u32.to_le_bytes());
    let table = made.table();
    let expected = [
        (0, stack_pointer(8)),
        (4, Rule::UNSUPPORTED),
        (0x80, stack_pointer(16)),
        (CODE_SIZE, Rule::GAP),
    ];
    assert_eq!((rows(&table), table.skipped), (expected.to_vec(), 5));
}

#[test]
fn states_are_remembered() {
    let mut made = Made::default();
    let common = made.common(b"zR");
    let program = [
        CFA_OFFSET, 16, REMEMBER, ADVANCE_4, CFA_OFFSET, 32, ADVANCE_4, RESTORE, ADVANCE_4, CFA_OFFSET, 8, ADVANCE_4,
    ];
    made.function(common, CODE, 0x20, &program);
    let expected = [16, 32, 16, 8].map(stack_pointer);
    let table = made.table();
    assert_eq!(
        rows(&table).iter().map(|row| row.1).take(4).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn the_offset_outlives_an_expression_as_in_libgcc() {
    let mut made = Made::default();
    let common = made.common(b"zR");
    // *(rsp + 16) + 8, then rsp again.
    let program = [
        CFA_OFFSET,
        56,
        CFA_EXPRESSION,
        5,
        0x77,
        16,
        0x06,
        0x23,
        8,
        ADVANCE_4,
        CFA_REGISTER,
        7,
    ];
    made.function(common, CODE, 0x20, &program);
    let stored = Rule {
        cfa_offset: 16,
        cfa_addend: 8,
        ..Rule::bare(CfaKind::AtStackPointer)
    };
    assert_eq!(rows(&made.table())[..2], [(0, stored), (4, stack_pointer(56))]);
}

#[test]
fn a_frame_pointer_that_cannot_be_told_is_undefined() {
    let mut made = Made::default();
    let common = made.common(b"zR");
    // Stored at rsp + 8; then at rbp - 8.
    made.function(
        common,
        CODE,
        0x20,
        &[EXPRESSION, 6, 2, 0x77, 8, ADVANCE_4, EXPRESSION, 6, 2, 0x76, 0x78],
    );
    let [first, second] =
        [(FramePointerKind::Undefined, 0), (FramePointerKind::AtFramePointer, -8)].map(|(kind, at)| Rule {
            frame_pointer: kind as u8,
            frame_pointer_offset: at,
            ..stack_pointer(8)
        });
    assert_eq!(rows(&made.table())[..2], [(0, first), (4, second)]);
}

/// A signal frame is one only where the ucontext is where the kernel puts it.
#[test]
fn signal_frames_are_checked() {
    let context = |rip: u8| {
        let mut program = vec![CFA_EXPRESSION, 4, 0x77, 0xA0, 1, 0x06];
        program.extend([EXPRESSION, 6, 3, 0x77, 0xF8, 0, EXPRESSION, 16, 3, 0x77, rip, 1]);
        program
    };
    let mut made = Made::default();
    let common = made.common(b"zRS");
    made.function(common, CODE, 0x20, &context(0xA8));
    made.function(common, CODE + 0x20, 0x20, &context(0xB0));
    made.function(common, CODE + 0x40, 0x20, &[]);
    let expected = [(0, Rule::SIGNAL), (0x20, Rule::UNSUPPORTED), (0x60, Rule::GAP)];
    assert_eq!(rows(&made.table()), expected);
}

#[test]
fn each_page_begins_with_a_row() {
    let mut made = Made::default();
    let common = made.common(b"zR");
    let far = 5 << PAGE_BITS;
    made.function(common, CODE, 0x2_0000, &[CFA_OFFSET, 16]);
    made.function(common, CODE + far, 0x10, &[CFA_OFFSET, 32]);
    let table = made.table();
    let mut rules = RuleInterner::default();
    let packed = rules.pack(&table);
    check_form(&packed).expect("form");
    assert_eq!(packed.page_count(), 6);
    let at = |offset: u64| *packed.lookup(rules.rules(), CODE + offset);
    assert_eq!([at(0), at(0x1_FFFF), at(0x1_F000)], [stack_pointer(16); 3]);
    assert_eq!([at(0x2_0000), at(far - 1), at(far + 0x10)], [Rule::GAP; 3]);
    assert_eq!([at(far), at(far + 0xF)], [stack_pointer(32); 2]);
    assert_eq!(*packed.lookup(rules.rules(), CODE - 1), Rule::GAP);
    assert_eq!(*packed.lookup(rules.rules(), u64::MAX), Rule::GAP);
}

#[test]
fn rules_beyond_the_last_number_are_unsupported_and_counted() {
    let mut made = Made::default();
    let common = made.common(b"zR");
    let mut program = Vec::new();
    for offset in 0..70_000_u32 {
        // Three bytes of LEB128.
        let [low, middle, high] = [offset, offset >> 7, offset >> 14].map(|part| part as u8);
        program.extend([CFA_OFFSET, low | 0x80, middle | 0x80, high & 0x7F, ADVANCE_4]);
    }
    made.function(common, CODE, 4 * 70_000, &program);
    let mut rules = RuleInterner::default();
    let packed = rules.pack(&made.table());
    assert_eq!((rules.rules().len(), rules.refused()), (65_536, 70_000 + 2 - 65_536));
    assert_eq!(*packed.lookup(rules.rules(), CODE + 4 * 60_000), stack_pointer(60_000));
    assert_eq!(*packed.lookup(rules.rules(), CODE + 4 * 69_999), Rule::UNSUPPORTED);
}

#[test]
fn mappings_are_found_by_their_place_in_the_file() {
    let mut made = Made::default();
    let common = made.common(b"zR");
    made.function(common, CODE, 0x20, &[]);
    let mut sections = made.sections();
    // Two segments whose borders lie in one page of the file.
    sections.code = vec![
        CodeSegment {
            address: 0x1000,
            file_offset: 0x1000,
            size: 0x2345,
        },
        CodeSegment {
            address: CODE + 0x345,
            file_offset: 0x3345,
            size: CODE_SIZE,
        },
    ];
    let mut rules = RuleInterner::default();
    let packed = rules.pack(&build(&sections).expect("sections"));
    assert_eq!(packed.load_bias(0x7000_1000, 0x1000), Some(0x7000_0000));
    assert_eq!(packed.load_bias(0x7040_1000, 0x3000), Some(0x7000_0000));
    assert_eq!(packed.load_bias(0x7040_2000, 0x4000), Some(0x7000_0000));
    assert_eq!(
        (packed.load_bias(0, 0), packed.load_bias(0, 0x3000 + CODE_SIZE * 2)),
        (None, None)
    );
    let mapping = packed.mapping(0x7040_1000, 0x7040_2000, 0x3000, 7).expect("code");
    assert_eq!(
        (mapping.bias, mapping.first_page),
        (0x7000_0000 + packed.first_address, 7)
    );
}

/// A `.debug_frame` whose functions have a common entry each, each entry going on to where the last one ends: the
/// instructions of one are the others, in a block to be passed over.
fn overlapping_common_entries(count: u32) -> Vec<u8> {
    const PIECE: u32 = 15;
    let end = 8 + count * PIECE;
    let mut bytes = [(end - 4).to_le_bytes(), [u8::MAX; 4]].concat();
    for index in 0..count {
        let at = 8 + index * PIECE + 2;
        bytes.extend([CFA_EXPRESSION, 13]);
        bytes.extend((end - at - 4).to_le_bytes());
        bytes.extend([u8::MAX, u8::MAX, u8::MAX, u8::MAX, 1, 0, 1, 0x78, 16]);
    }
    for index in 0..count {
        let at = 8 + index * PIECE + 2;
        bytes.extend(20_u32.to_le_bytes());
        bytes.extend(at.to_le_bytes());
        bytes.extend((CODE + u64::from(index) * 16).to_le_bytes());
        bytes.extend(16_u64.to_le_bytes());
    }
    bytes
}

#[test]
fn common_entries_cannot_cost_the_square_of_the_size() {
    let of = |count| {
        let mut sections = Made::default().sections();
        let mut section = sections.eh_frame.take().expect("made");
        section.bytes = Cow::Owned(overlapping_common_entries(count));
        sections.debug_frame = Some(section);
        build(&sections).expect("sections")
    };
    // One or two are short enough to be believed.
    assert_eq!(of(1).skipped, 0);
    let start = Instant::now();
    let table = of(50_000);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(table.skipped > 49_990 && table.rows.len() < 10);
}

#[test]
fn files_that_have_no_tables_are_told_apart() {
    let of = |data: &[u8]| table(data).map(|table| table.rows.len());
    assert_eq!(of(b""), Err(UnwindError::NotElf));
    assert_eq!(of(b"#!/bin/sh\n"), Err(UnwindError::NotElf));
    assert_eq!(of(b"\x7fELF"), Err(UnwindError::OtherMachine));
    let mut image = vdso();
    image[18] = 183;
    assert_eq!(of(&image), Err(UnwindError::OtherMachine));
    let mut image = vdso();
    image[56..58].fill(0);
    assert_eq!(of(&image), Err(UnwindError::NoCode));
    let mut far = Made::default().sections();
    far.code.push(CodeSegment {
        address: 1 << 40,
        file_offset: 0,
        size: 1,
    });
    assert_eq!(build(&far).map(|table| table.rows.len()), Err(UnwindError::TooLarge));
    far.eh_frame = None;
    far.code.pop();
    assert_eq!(build(&far).map(|table| table.rows.len()), Err(UnwindError::NoTables));
}

/// Program headers alone lead to the same table.
#[test]
fn stripped_section_headers_change_nothing() {
    let own = std::fs::read("/proc/self/exe").expect("a file");
    let libc = std::fs::read("/lib/x86_64-linux-gnu/libc.so.6").or_else(|_| std::fs::read("/lib64/libc.so.6"));
    for mut image in [vdso(), own, libc.expect("a C library")] {
        let mut expected = sections(&*image).expect("sections");
        expected.debug_frame = None;
        let expected = build(&expected).expect("tables");
        // e_shoff, e_shnum, e_shstrndx.
        image[40..48].fill(0);
        image[60..64].fill(0);
        let found = table(&*image).expect("tables");
        assert!(expected.rows.len() > 10 && found == expected);
    }
}
