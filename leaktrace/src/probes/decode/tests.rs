//! One piece of code per rule, as bytes with their assembly beside them.

use super::*;
use crate::probes::catalogue::every_function;

const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
const TEST_RDI: &[u8] = &[0x48, 0x85, 0xff];
const TEST_RSI: &[u8] = &[0x48, 0x85, 0xf6];
const XOR_EAX: &[u8] = &[0x31, 0xc0];
const MOV_RBP_RSP: &[u8] = &[0x48, 0x89, 0xe5];
const SUB_RSP: &[u8] = &[0x48, 0x83, 0xec, 0x18];
const SYSCALL: &[u8] = &[0x0f, 0x05];
const PUSH_RBP: &[u8] = &[0x55];
const PUSH_R12: &[u8] = &[0x41, 0x54];
const RET: &[u8] = &[0xc3];
const NOP5: &[u8] = &[0x0f, 0x1f, 0x44, 0, 0];
const NOP7: &[u8] = &[0x0f, 0x1f, 0x80, 0, 0, 0, 0];

fn je(distance: i8) -> Vec<u8> {
    vec![0x74, distance.cast_unsigned()]
}

fn place_in(name: &str, code: &[&[u8]]) -> (u64, bool) {
    let function = every_function().find(|function| function.name == name).unwrap();
    let placement = place(&code.concat(), &function.spec);
    (placement.offset, placement.emulated)
}

#[test]
fn an_emulated_first_instruction_is_the_place() {
    assert_eq!(place_in("malloc", &[PUSH_RBP, RET]), (0, true));
    assert_eq!(place_in("malloc", &[PUSH_R12, RET]), (0, true));
    assert_eq!(place_in("malloc", &[&[0xe9, 0, 1, 0, 0]]), (0, true), "jmp");
    assert_eq!(place_in("malloc", &[&[0xe8, 0, 1, 0, 0], RET]), (0, true), "call");
    assert_eq!(
        place_in("malloc", &[&[0x0f, 0x8f, 0, 1, 0, 0], RET]),
        (0, true),
        "jg near"
    );
    assert_eq!(place_in("malloc", &[NOP5, RET]), (0, true));
}

#[test]
fn only_what_the_kernel_emulates_counts() {
    for (code, what) in [
        (&[0xff, 0xe0][..], "jmp rax"),
        (&[0xff, 0xf0], "push rax, long form"),
        (&[0x49, 0x54], "push r12, 49 prefix"),
        (&[0x6a, 1], "push 1"),
        (&[0xf2, 0xe9, 0, 1, 0, 0], "bnd jmp"),
        (&[0x66, 0x74, 0], "je with an operand size"),
        (&[0xe3, 0], "jrcxz"),
    ] {
        assert_eq!(place_in("malloc", &[code, RET]), (0, false), "{what}");
    }
}

#[test]
fn passes_what_changes_nothing() {
    assert_eq!(place_in("malloc", &[ENDBR64, PUSH_R12, RET]), (4, true));
    assert_eq!(
        place_in("malloc", &[ENDBR64, XOR_EAX, TEST_RDI, &je(0), RET]),
        (9, true)
    );
    assert_eq!(
        place_in("malloc", &[XOR_EAX, &[0xe8, 0, 1, 0, 0], RET]),
        (2, true),
        "a call"
    );
    // mov [rsp-8], rbx
    assert_eq!(
        place_in("malloc", &[&[0x48, 0x89, 0x5c, 0x24, 0xf8], PUSH_RBP, RET]),
        (5, true)
    );
}

#[test]
fn stops_where_an_argument_is_overwritten() {
    let mul_rdx = &[0x48, 0xf7, 0xe2][..];
    assert_eq!(
        place_in("reallocarray", &[mul_rdx, PUSH_RBP, RET]),
        (0, false),
        "rdx is the size, implicitly written"
    );
    assert_eq!(
        place_in("malloc", &[mul_rdx, PUSH_RBP, RET]),
        (3, true),
        "rdx is nothing to malloc"
    );
    // mov edi, eax; movzx edi, dil: a part is the whole
    assert_eq!(place_in("malloc", &[&[0x89, 0xc7], PUSH_RBP, RET]), (0, false));
    // cmove rdi, rax: perhaps
    assert_eq!(
        place_in("malloc", &[&[0x48, 0x0f, 0x44, 0xf8], PUSH_RBP, RET]),
        (0, false)
    );
    // xor r9d, r9d: the file offset of a mapping
    assert_eq!(place_in("mmap", &[&[0x45, 0x31, 0xc9], PUSH_RBP, RET]), (0, false));
}

#[test]
fn keeps_the_return_address_on_top_where_the_return_is_probed() {
    assert_eq!(place_in("malloc", &[SUB_RSP, TEST_RDI, &je(0), RET]), (0, false));
    assert_eq!(place_in("free", &[SUB_RSP, TEST_RSI, &je(0), RET]), (7, true));
    assert_eq!(
        place_in("malloc", &[MOV_RBP_RSP, PUSH_RBP, RET]),
        (0, false),
        "the caller's frame pointer is gone"
    );
    assert_eq!(place_in("munmap", &[&[0x5b], PUSH_RBP, RET]), (0, false), "pop rbx");
}

#[test]
fn never_after_the_deed() {
    assert_eq!(
        place_in("munmap", &[&[0xb8, 0x0b, 0, 0, 0], SYSCALL, &je(0), RET]),
        (0, false)
    );
    assert_eq!(
        place_in("free", &[TEST_RSI, &[0xff, 0xd0], PUSH_RBP, RET]),
        (0, false),
        "call rax"
    );
    // mov [rdi], rax; lock xadd [rdi], rax
    assert_eq!(place_in("free", &[&[0x48, 0x89, 0x07], PUSH_RBP, RET]), (0, false));
    assert_eq!(
        place_in("free", &[&[0xf0, 0x48, 0x0f, 0xc1, 0x07], PUSH_RBP, RET]),
        (0, false)
    );
    assert_eq!(
        place_in("malloc", &[XOR_EAX, RET, PUSH_RBP]),
        (0, false),
        "behind the return"
    );
}

#[test]
fn only_up_to_the_first_branch() {
    assert_eq!(place_in("malloc", &[TEST_RSI, &je(1), PUSH_RBP, RET]), (3, true));
}

#[test]
fn a_jump_to_the_place_or_before_it_would_count_calls_twice() {
    let back = |distance: i8| vec![0xeb, distance.cast_unsigned()];
    // 0 xor; 2 test; 5 je; 7 jmp
    let with = |jump: &[u8]| place_in("malloc", &[XOR_EAX, TEST_RDI, &je(2), jump, RET]);
    assert_eq!(with(&back(-9)), (0, false), "to the start");
    assert_eq!(with(&back(-7)), (0, false), "to the test");
    assert_eq!(with(&back(-4)), (0, false), "to the place itself");
    assert_eq!(with(&back(-2)), (5, true), "after it");
    let call = |distance: i8| [&[0xe8][..], &i32::from(distance).to_le_bytes()].concat();
    assert_eq!(with(&call(-12)), (5, true), "a call of the function itself is a call");
    assert_eq!(with(&call(-10)), (0, false), "a call into its middle");
}

#[test]
fn five_byte_nops_only_at_the_start() {
    assert_eq!(place_in("malloc", &[ENDBR64, NOP5, RET]), (0, false));
    assert_eq!(place_in("malloc", &[ENDBR64, NOP7, RET]), (4, true));
    assert_eq!(
        place_in("malloc", &[ENDBR64, NOP7, PUSH_RBP, RET]),
        (11, true),
        "emulated by every kernel"
    );
}

#[test]
fn frees_of_nothing_are_passed_over_where_every_other_comes_by() {
    assert_eq!(place_in("free", &[TEST_RDI, &je(1), PUSH_RBP, RET]), (5, true));
    assert_eq!(
        place_in("free", &[TEST_RDI, XOR_EAX, &je(1), PUSH_RBP, RET]),
        (5, true),
        "flags of the xor: any free"
    );
    assert_eq!(
        place_in("free", &[TEST_RSI, &je(1), PUSH_RBP, RET]),
        (3, true),
        "not the pointer"
    );
    assert_eq!(
        place_in("free", &[&[0x85, 0xff], &je(1), PUSH_RBP, RET]),
        (2, true),
        "half of the pointer"
    );
    assert_eq!(
        place_in("free", &[TEST_RDI, &[0x75, 1], PUSH_RBP, RET]),
        (3, true),
        "blocks jump"
    );
    assert_eq!(
        place_in("free", &[TEST_RDI, &je(1), RET, RET]),
        (3, true),
        "nothing better follows"
    );
    let jump_back = &[0xeb, (-3_i8).cast_unsigned()][..];
    assert_eq!(
        place_in("free", &[TEST_RDI, &je(1), PUSH_RBP, jump_back, RET]),
        (3, true),
        "hit again by the jump"
    );
}

#[test]
fn code_that_does_not_decode_is_probed_at_its_start() {
    assert_eq!(place_in("malloc", &[]), (0, false));
    assert_eq!(
        place_in("malloc", &[XOR_EAX, PUSH_RBP, &[0x06], RET]),
        (0, false),
        "invalid in 64-bit code"
    );
    assert_eq!(
        place_in("malloc", &[XOR_EAX, PUSH_RBP, &[0xe8, 0]]),
        (0, false),
        "cut off"
    );
    assert_eq!(place_in("malloc", &[PUSH_RBP, &[0x06]]), (0, true));
}

proptest::proptest! {
    #[test]
    fn any_bytes_give_a_place_within_them(code in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
        for function in every_function() {
            let placement = place(&code, &function.spec);
            proptest::prop_assert!(placement.offset == 0 || placement.offset < code.len() as u64);
            proptest::prop_assert!(placement.offset == 0 || placement.emulated);
        }
    }
}
