use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::go::test_programs::Toolchain;
use crate::target::AddressSpace;
use crate::target::test_programs::run;

const SOURCE: &str = include_str!("../test_holders.go");

/// A program that holds objects in every way, and where it says that they are.
struct Holding {
    child: Child,
    groups: BTreeMap<String, Vec<u64>>,
}

impl Holding {
    fn start(program: &Path) -> Self {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut holding = Self {
            child,
            groups: BTreeMap::new(),
        };
        loop {
            let line = lines.next().unwrap().unwrap();
            let mut words = line.split(' ');
            let name = words.next().unwrap().to_owned();
            if name == "end" {
                return holding;
            }
            holding
                .groups
                .insert(name, words.map(|word| word.parse().unwrap()).collect());
        }
    }

    /// What holds each group.
    fn holders(&self) -> BTreeMap<&str, Vec<Holder>> {
        let space = AddressSpace::read(self.child.id()).unwrap();
        let runtime = Runtime::open(&space).unwrap();
        let groups: Vec<Vec<u64>> = self.groups.values().cloned().collect();
        let named = |address| {
            groups
                .iter()
                .flatten()
                .any(|one| *one == address)
                .then(|| "main.newSession".to_owned())
        };
        let found = find(&runtime, &groups, &named).unwrap();
        assert!(found.heap_bytes > 0 && found.unreadable == 0, "{found:?}");
        self.groups.keys().map(String::as_str).zip(found.holders).collect()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        // A test that fails leaves no program behind; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first holder, which must hold nearly all.
fn main_holder<'a>(holders: &'a BTreeMap<&str, Vec<Holder>>, group: &str) -> &'a Holder {
    let holder = holders[group]
        .first()
        .unwrap_or_else(|| panic!("{group} is not held: {holders:#?}"));
    assert!(holder.of == 192 && holder.held >= 180, "{group}: {holders:#?}");
    holder
}

#[test]
fn the_roots_of_a_running_program_are_named() {
    for go in Toolchain::all_there() {
        for flags in [&["-buildmode=exe"], &["-buildmode=pie"]] {
            let holding = Holding::start(&go.build(flags, SOURCE));
            let holders = holding.holders();
            let root = |group| main_holder(&holders, group).root.as_str();
            let variables = ["map", "slice", "channel", "blobs", "list"].map(root);
            let expected = [
                "main.sessions",
                "main.known+0x8",
                "main.queue",
                "main.blobs",
                "main.head",
            ];
            assert_eq!(variables, expected, "{go:?} {holders:#?}");
            others_are_named(&go, &holders);
        }
    }
}

/// What is held by other than variables, with symbols or without.
fn others_are_named(go: &Toolchain, holders: &BTreeMap<&str, Vec<Holder>>) {
    let root = |group| main_holder(holders, group).root.as_str();
    // The compiler may wrap what a go statement calls.
    let line = SOURCE
        .lines()
        .position(|line| line == "\tgo worker(made, wait)")
        .unwrap()
        + 1;
    let stack = root("stack");
    assert!(stack.starts_with("the stack of a goroutine in main."), "{go:?} {stack}");
    assert!(
        stack.ends_with(&format!(", created by main.main (main.go:{line})")),
        "{go:?} {stack}"
    );
    assert_eq!(root("finalizer"), "192 finalizers", "{go:?}");
    assert_eq!(
        root("timer"),
        "a timer, or another of the runtime's own lists",
        "{go:?} {holders:#?}"
    );
    let garbage: u64 = holders["garbage"].iter().map(|holder| holder.held).sum();
    assert!(garbage < 20, "{go:?} {holders:#?}");
    let list = main_holder(holders, "list");
    assert!(list.chain.iter().any(|link| link.ends_with(" more")), "{list:?}");
    assert!(list.chain.contains(&"object of main.newSession".to_owned()), "{list:?}");
    assert!(main_holder(holders, "blobs").chain.len() == 1, "{holders:#?}");
}

#[test]
fn variables_of_stripped_programs_are_named_by_who_uses_them() {
    for go in Toolchain::all_there() {
        let whole = go.build(&["-buildmode=exe"], SOURCE);
        let symbols = crate::go::tests::symbols(&go, &whole);
        let directory = tempfile::tempdir().unwrap();
        let stripped = directory.path().join("stripped");
        run(Command::new("strip").arg("-o").arg(&stripped).arg(&whole));
        let holding = Holding::start(&stripped);
        let holders = holding.holders();
        for (group, variable) in [
            ("map", "main.sessions"),
            ("list", "main.head"),
            ("channel", "main.queue"),
        ] {
            let root = &main_holder(&holders, group).root;
            let mut places = symbols
                .iter()
                .filter(|(_, names)| names.iter().any(|name| name == variable));
            let (place, _) = places.next().unwrap();
            let expected = format!("a variable at {place:#x} that main.");
            assert!(
                root.starts_with(&expected),
                "{go:?} {group}: {root}, expected {expected}"
            );
        }
        others_are_named(&go, &holders);
    }
}
