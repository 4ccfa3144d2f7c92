//! A Go program that says of itself what its runtime says, and is quiet while it is not asked.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Runtime;
use super::test_programs::Toolchain;
use crate::target::AddressSpace;

/// Its source.
pub const TOLD: &str = include_str!("test_told.go");
/// Ways to build it: each puts code and variables elsewhere.
pub const MODES: [&[&str]; 3] = [
    &["-buildmode=exe"],
    &["-buildmode=pie"],
    &["-buildmode=exe", "-ldflags=-s -w"],
];

/// The program, running.
pub struct Told {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// One answer: numbers by the word that they follow, and of those that occur again and again all.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    numbers: HashMap<String, Vec<Vec<u64>>>,
}

impl Answer {
    /// The numbers behind `word`.
    pub fn of(&self, word: &str) -> &[u64] {
        self.all(word).first().map(Vec::as_slice).unwrap_or_default()
    }

    /// Those of every line that begins with `word`.
    pub fn all(&self, word: &str) -> &[Vec<u64>] {
        self.numbers.get(word).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Told {
    /// Starts `program` with these arguments and variables of the environment.
    pub fn start(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let output = BufReader::new(output);
        let mut told = Self { child, input, output };
        // It answers once it is up; what an answer needs is there from then on.
        told.ask("t");
        told
    }

    /// As a program of `go`, as it is.
    pub fn of(go: &Toolchain, flags: &[&str]) -> Self {
        Self::start(&go.build(flags, TOLD), &[], &[])
    }

    /// Does what each letter of `commands` says; gives the answer to the last, which must be `t`.
    pub fn ask(&mut self, commands: &str) -> Answer {
        self.input.write_all(commands.as_bytes()).unwrap();
        let mut answer = Answer::default();
        for _ in commands.matches('t') {
            answer = self.answer();
        }
        answer
    }

    /// Reads what must be compared with an answer, while nothing happens: between two answers that are the same.
    pub fn while_quiet<T>(&mut self, read: impl Fn() -> T) -> (Answer, T) {
        let mut before = self.ask("t");
        for _ in 0..200 {
            let value = read();
            let after = self.ask("t");
            if before == after {
                return (after, value);
            }
            before = after;
        }
        panic!("it never comes to rest: {before:?}");
    }

    fn answer(&mut self) -> Answer {
        let mut answer = Answer::default();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it has ended");
            let mut words = line.split_whitespace();
            let name = words.next().unwrap();
            if name == "end" {
                return answer;
            }
            let numbers = words.map(|word| {
                word.parse::<i64>()
                    .map_or_else(|_| word.parse().unwrap(), i64::cast_unsigned)
            });
            answer
                .numbers
                .entry(name.to_owned())
                .or_default()
                .push(numbers.collect());
        }
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its memory map, and its runtime as it is found from outside.
    pub fn runtime(&self) -> (AddressSpace, Runtime) {
        let space = AddressSpace::read(self.pid()).unwrap();
        let runtime = Runtime::open(&space).unwrap();
        (space, runtime)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // A test that fails leaves no program behind; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
