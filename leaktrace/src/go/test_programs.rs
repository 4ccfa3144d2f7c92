//! Go programs for tests, built by several versions of Go.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::target::test_programs::run;

/// Which versions are tested, newest first.
const VERSIONS: &str = include_str!("../../../tests/go-versions");

/// A method, a generic function, a closure, inlined calls, and the standard library with its assembly.
pub const SOURCE: &str = r#"package main

import (
	"fmt"
	"os"
)

type Server struct{ n int }

//go:noinline
func (s *Server) handle(x int) int { return outer(x) + s.n }

func outer(x int) int { return inner(x) * 2 }
func inner(x int) int {
	if x > 3 {
		panic("too large")
	}
	return x + len(os.Args)
}

//go:noinline
func apply[T any](xs []T, f func(T) T) []T {
	out := make([]T, 0, len(xs))
	for _, x := range xs {
		out = append(out, f(x))
	}
	return out
}

func main() {
	fmt.Println((&Server{}).handle(1), apply([]int{1, 2}, func(x int) int { return outer(x) }))
	os.Stdin.Read(make([]byte, 1))
}
"#;

/// One version of Go.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The program `go`.
    pub go: PathBuf,
}

impl Toolchain {
    /// The distribution's Go: old as a rule.
    fn of_system() -> Self {
        Self { go: "go".into() }
    }

    /// The version that the set-up has put into the target directory.
    fn version(version: &str) -> Self {
        let toolchain = Self::at(version);
        assert!(
            toolchain.go.is_file(),
            "no Go {version} at {}; run: cargo xtask setup --tests",
            toolchain.go.display()
        );
        toolchain
    }

    fn at(version: &str) -> Self {
        Self {
            go: target_dir().join("go").join(version).join("go/bin/go"),
        }
    }

    /// The oldest and the newest.
    pub fn oldest_and_newest() -> [Self; 2] {
        let newest = VERSIONS.lines().find_map(|line| line.strip_suffix(" usual"));
        [Self::of_system(), Self::version(newest.unwrap())]
    }

    /// Every version that is there: the usual ones always, the others where they were fetched.
    pub fn all_there() -> Vec<Self> {
        let lines = VERSIONS.lines().filter(|line| !line.starts_with('#'));
        let fetched = lines.filter_map(|line| match line.strip_suffix(" usual") {
            Some(version) => Some(Self::version(version)),
            None => Some(Self::at(line)).filter(|toolchain| toolchain.go.is_file()),
        });
        std::iter::once(Self::of_system()).chain(fetched).collect()
    }

    /// `1.27` of Go 1.27.3.
    pub fn version_number(&self) -> String {
        let output = self.command(&["env", "GOVERSION"]).output().unwrap();
        let version = String::from_utf8(output.stdout).unwrap();
        let mut parts = version.trim().trim_start_matches("go").split('.');
        format!("{}.{}", parts.next().unwrap(), parts.next().unwrap())
    }

    /// A command of this version, away from modules, networks and other versions.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.go);
        command
            .args(words)
            .envs([("GO111MODULE", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "")]);
        command
    }

    /// Builds `source` with these flags, unless that was done before.
    pub fn build(&self, flags: &[&str], source: &str) -> PathBuf {
        let programs = target_dir().join("go-programs");
        // The name of the source is in the program: it must not depend on the flags.
        let input = programs.join(format!("{:016x}", hash(source))).join("main.go");
        let program = programs.join(format!("{:016x}", hash((&self.go, flags, source))));
        if !program.exists() {
            std::fs::create_dir_all(input.parent().unwrap()).unwrap();
            // Made beside and renamed: tests run at the same time.
            let draft = programs.join(format!("draft-{:?}", std::thread::current().id()));
            std::fs::write(&draft, source).unwrap();
            std::fs::rename(&draft, &input).unwrap();
            run(self.command(&["build", "-o"]).arg(&draft).args(flags).arg(&input));
            std::fs::rename(&draft, &program).unwrap();
        }
        program
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn target_dir() -> PathBuf {
    // Without `..`: the programs find themselves under this very path.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from)
}
