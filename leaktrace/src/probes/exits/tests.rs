//! One function in assembly per rule.

use std::fs;
use std::process::Command;

use super::*;

/// How calls of `subject` end in a library assembled from this, as places after its start; none where there is no
/// assembler. `malloc` is a function that is probed.
fn exits_of(subject: &str) -> Option<Result<Vec<u64>, Unclear>> {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("input.s"), directory.path().join("library.so"));
    let source = format!(".text\n.globl subject\n.type subject, @function\nsubject:\n{subject}\n");
    fs::write(&input, source).unwrap();
    let status = Command::new("cc")
        .args(["-shared", "-nostdlib", "-o"])
        .arg(&output)
        .arg(&input)
        .status();
    match status {
        Ok(status) => assert!(status.success(), "cc: {status}"),
        Err(error) => {
            eprintln!("skipped: no C compiler ({error})");
            return None;
        }
    }
    let bytes = fs::read(output).unwrap();
    let image = Image::parse(bytes.as_slice()).unwrap();
    let start = image.functions(&["subject"]).found["subject"].address;
    let names = BTreeSet::from(["malloc".to_owned()]);
    let found = Flow::new(&image, BTreeSet::new(), &names).exits(start);
    Some(found.map(|exits| match exits {
        Exits::ThroughOthers => Vec::new(),
        Exits::Returns(places) => places.into_iter().map(|place| place - start).collect(),
    }))
}

fn check(subject: &str, expected: Result<&[u64], Unclear>) {
    if let Some(found) = exits_of(subject) {
        assert_eq!(found.as_deref().map_err(|unclear| *unclear), expected, "{subject}");
    }
}

#[test]
fn every_ret_on_every_path_is_an_exit() {
    check("test %rdi, %rdi\n je 1f\n ret\n 1: xor %eax, %eax\n ret", Ok(&[5, 8]));
    // To another function, as by a tail call, and back up.
    check("1: dec %rdi\n je 1b\n jmp other\n nop\n other: repz ret", Ok(&[8]));
}

#[test]
fn code_that_no_path_reaches_is_no_exit() {
    check("ret\n ret", Ok(&[0]));
    check("ud2\n ret", Ok(&[]));
    check("call abort@plt\n ret", Ok(&[]));
    check("call _ZSt17__throw_bad_allocv@plt\n ret", Ok(&[]));
    check("call other@plt\n ret", Ok(&[5]));
}

#[test]
fn what_comes_from_a_probed_function_is_that_functions() {
    check("call malloc@plt\n test %rax, %rax\n je 1f\n ret\n 1: ud2", Ok(&[]));
    check("jmp malloc@plt", Ok(&[]));
    check("jmp *malloc@GOTPCREL(%rip)", Ok(&[]));
    // All but failures.
    check(
        "test %rdi, %rdi\n je 1f\n jmp malloc@plt\n 1: xor %eax, %eax\n pop %rbx\n ret",
        Ok(&[]),
    );
    // A part of what it returns is its own: then all ends are its ends.
    check("test %rdi, %rdi\n je 1f\n ret\n 1: call malloc@plt\n ret", Ok(&[5, 11]));
}

#[test]
fn what_cannot_be_followed_is_refused() {
    check(
        "test %rdi, %rdi\n je 1f\n ret\n 1: jmp malloc@plt",
        Err(Unclear::HandsOn),
    );
    check("jmp elsewhere@plt", Err(Unclear::HandsOn));
    check("jmp *%rax", Err(Unclear::Indirect));
    check(".byte 0x06", Err(Unclear::Undecodable));
    check(".rept 20000\n nop\n .endr\n ret", Err(Unclear::TooLong));
    // Off the end of the code.
    check("nop", Err(Unclear::Undecodable));
}
