//! Over images compiled here and the C library of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::ReadCache;

use super::*;

const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";

/// Compiles `source` as a shared library; none where there is no C compiler.
fn library(directory: &Path, source: &str, arguments: &[&str]) -> Option<PathBuf> {
    let (input, output) = (directory.join("input.c"), directory.join("output.so"));
    fs::write(&input, source).unwrap();
    let mut cc = Command::new("cc");
    let cc = cc
        .args(["-O1", "-shared", "-fPIC", "-nostdlib", "-o"])
        .arg(&output)
        .arg(&input)
        .args(arguments);
    match cc.status() {
        Ok(status) => assert!(status.success(), "cc: {status}"),
        Err(error) => {
            eprintln!("skipped: no C compiler ({error})");
            return None;
        }
    }
    Some(output)
}

#[test]
fn finds_functions_where_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let source = "int one(void){return 1;} static int two(void){return 2;} int (*keep)(void)=two; int elsewhere(void);
        int three(void){return elsewhere();} long number=5;";
    let Some(path) = library(directory.path(), source, &[]) else {
        return;
    };
    let bytes = fs::read(path).unwrap();
    let image = Image::parse(bytes.as_slice()).unwrap();
    let functions = image.functions(&["one", "two", "three", "elsewhere", "number"]);
    assert_eq!(functions.found.keys().collect::<Vec<_>>(), ["one", "three"]);
    let one = functions.found["one"];
    assert_eq!(
        image.bytes(&one),
        &bytes[one.file_offset as usize..][..one.size as usize]
    );
    assert!(image.bytes(&one).ends_with(&[0xb8, 1, 0, 0, 0, 0xc3]), "mov eax,1; ret");
    let (start, end) = image.code_range().unwrap();
    assert!((start..end).contains(&one.address));
    assert!(image.variable("number").is_some_and(|address| address >= end));
    assert_eq!(image.variable("one"), None);
}

#[test]
fn takes_the_default_version() {
    let directory = tempfile::tempdir().unwrap();
    let map = directory.path().join("versions.map");
    fs::write(&map, "V1 { global: give; lonely; local: *; }; V2 { global: give; } V1;").unwrap();
    let source = "__asm__(\".symver give_old,give@V1\\n.symver give_new,give@@V2\\n.symver lonely_old,lonely@V1\");
        int give_old(void){return 1;} int give_new(void){return 2;} int lonely_old(void){return 3;}";
    let script = format!("-Wl,--version-script={}", map.display());
    for arguments in [[script.as_str(), "-g"], [script.as_str(), "-s"]] {
        let Some(path) = library(directory.path(), source, &arguments) else {
            return;
        };
        let bytes = fs::read(path).unwrap();
        let image = Image::parse(bytes.as_slice()).unwrap();
        let found = image.functions(&["give", "lonely"]).found;
        assert!(
            image.bytes(&found["give"]).ends_with(&[0xb8, 2, 0, 0, 0, 0xc3]),
            "{arguments:?}: {found:?}"
        );
        assert!(
            image.bytes(&found["lonely"]).ends_with(&[0xb8, 3, 0, 0, 0, 0xc3]),
            "{arguments:?}: {found:?}"
        );
    }
}

#[test]
fn refuses_resolvers_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let source = "static int real(void){return 1;} static void *choose(void){return real;}
        int chosen(void) __attribute__((ifunc(\"choose\")));";
    let Some(path) = library(directory.path(), source, &[]) else {
        return;
    };
    let bytes = fs::read(path).unwrap();
    let functions = Image::parse(bytes.as_slice()).unwrap().functions(&["chosen"]);
    assert!(functions.found.is_empty());
    assert_eq!(functions.refused["chosen"], Refusal::Indirect);
}

#[test]
fn says_what_is_wrong_with_a_file() {
    let mut header = [0_u8; 64];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    header[18] = 62;
    let parse = |bytes: &[u8]| Image::parse(bytes).map(drop).unwrap_err();
    assert_eq!(parse(b""), ElfError::NotElf);
    assert_eq!(parse(b"#!/bin/sh\n"), ElfError::NotElf);
    assert_eq!(parse(&header[..12]), ElfError::Truncated);
    assert_eq!(parse(&header[..40]), ElfError::Truncated);
    let with = |at: usize, value: u8| {
        let mut changed = header;
        changed[at] = value;
        parse(&changed)
    };
    assert_eq!(with(4, 1), ElfError::Class32);
    assert_eq!(with(18, 183), ElfError::Machine(183));
    assert_eq!(with(5, 2), ElfError::Machine(62 << 8));
    let mut promising = header;
    promising[40] = 64;
    promising[58] = 64;
    promising[60] = 9;
    assert_eq!(parse(&promising), ElfError::Truncated);
}

#[test]
fn survives_any_single_wrong_byte() {
    let directory = tempfile::tempdir().unwrap();
    let Some(path) = library(directory.path(), "int one(void){return 1;} long number=5;", &[]) else {
        return;
    };
    let good = fs::read(path).unwrap();
    let mut parsed = 0;
    for at in 0..good.len() {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let Ok(image) = Image::parse(bytes.as_slice()) else {
                continue;
            };
            parsed += 1;
            let functions = image.functions(&["one"]);
            for function in functions.found.values() {
                assert!(image.bytes(function).len() <= good.len());
            }
            drop((
                image.variable("number"),
                image.needed(),
                image.interpreter(),
                image.code_range(),
            ));
        }
    }
    assert!(parsed > good.len(), "most damage is outside the headers");
}

#[test]
fn reads_the_c_library_without_reading_it_whole() {
    let Ok(file) = fs::File::open(LIBC) else {
        eprintln!("skipped: no {LIBC}");
        return;
    };
    let cache = ReadCache::new(file);
    let image = Image::parse(&cache).unwrap();
    let found = image.functions(&["malloc", "free", "cfree", "mmap", "brk"]).found;
    assert!(found.contains_key("malloc") && found.contains_key("free") && found.contains_key("brk"));
    assert_eq!(image.bytes(&found["malloc"]).len() as u64, found["malloc"].size);
    assert!(image.variable("__curbrk").is_some());
    assert_eq!(image.needed(), ["ld-linux-x86-64.so.2"]);
}
