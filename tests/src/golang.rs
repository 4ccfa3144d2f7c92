//! Go programs under `fixtures/go`, built by several versions of Go, and what Go itself says of its goroutines.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde::Deserialize;

use crate::child::{Child, run};
use crate::fixture::cached_name;
use crate::host;
use crate::needs::Need;
use crate::trial::trial;

/// The versions that are tested beside the distribution's, newest first.
const VERSIONS: &str = include_str!("../go-versions");
/// Without symbols and debug information, as programs are shipped.
const STRIPPED: &str = "-ldflags=-s -w";

/// A version of Go.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Its number; `distribution` for the distribution's own.
    pub name: String,
    go: PathBuf,
}

/// How a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// As `go build` does it.
    Plain,
    /// Without symbols and debug information.
    Stripped,
    /// Without them, and position-independent.
    StrippedPie,
}

/// The distribution's Go, and the versions that the set-up has fetched: the usual ones, or all in exhaustive tests.
pub fn toolchains() -> Vec<Toolchain> {
    let own = host::find_program("go").map(|go| Toolchain {
        name: "distribution".to_owned(),
        go,
    });
    let exhaustive = env::var_os("LEAKTRACE_EXHAUSTIVE").is_some();
    let lines = VERSIONS.lines().filter(|line| !line.starts_with('#'));
    let versions = lines.filter_map(|line| match line.split_once(' ') {
        Some((version, _)) => Some(version),
        None => exhaustive.then_some(line),
    });
    let fetched = versions.map(|version| Toolchain {
        name: version.to_owned(),
        go: host::target_dir().join("go").join(version).join("go/bin/go"),
    });
    own.into_iter().chain(fetched).collect()
}

/// A test that is run with each version of Go.
pub type Test = fn(&Toolchain) -> Result<()>;

/// The trials `GROUP::NAME::VERSION` of these tests, with each version of Go; left out, visibly, where that is not there.
pub fn trials(group: &str, needs: &[Need], tests: &[(&str, Test)]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for toolchain in toolchains() {
        for &(name, test) in tests {
            let toolchain = toolchain.clone();
            let there = toolchain.is_there();
            let name = format!("{group}::{name}::{}", toolchain.name);
            trials.push(if there {
                trial(name, needs, move || test(&toolchain))
            } else {
                let why = format!("skipped: no Go {} (cargo xtask setup --tests)", toolchain.name);
                Trial::test(name, || Ok(())).with_kind(why).with_ignored_flag(true)
            });
        }
    }
    trials
}

impl Toolchain {
    /// Whether it is there.
    pub fn is_there(&self) -> bool {
        self.go.is_file()
    }

    /// Builds `fixtures/go/NAME.go`, unless that was done before.
    pub fn build(&self, name: &str, build: Build) -> Result<PathBuf> {
        self.build_of(&[name], build)
    }

    /// Builds a program of several files `fixtures/go/NAME.go`, named after the first, unless that was done before.
    pub fn build_of(&self, names: &[&str], build: Build) -> Result<PathBuf> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/go");
        let sources: Vec<PathBuf> = names.iter().map(|name| directory.join(format!("{name}.go"))).collect();
        let (Some(name), Some(source)) = (names.first(), sources.first()) else {
            bail!("a program of no files");
        };
        let flags: &[&str] = match build {
            Build::Plain => &[],
            Build::Stripped => &[STRIPPED],
            Build::StrippedPie => &[STRIPPED, "-buildmode=pie"],
        };
        // All files but the first, which is looked at anyway.
        let others: Vec<String> = sources
            .iter()
            .skip(1)
            .map(fs::read_to_string)
            .collect::<Result<_, _>>()
            .with_context(|| format!("no fixtures {names:?}"))?;
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let path = cached_name(name, source, &[&[self.name.as_str()], flags, &others].concat())?;
        if !path.exists() {
            // Built beside and renamed, so that a suite that runs at the same time never sees half a program.
            let draft = path.with_extension(format!("draft-{}", std::process::id()));
            let mut command = Command::new(&self.go);
            command.envs([("GO111MODULE", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "")]);
            let ended = run(command.args(["build", "-o"]).arg(&draft).args(flags).args(&sources))?;
            ensure!(
                ended.status.success(),
                "{name} does not build with {}:\n{}",
                self.name,
                ended.err.join("\n")
            );
            fs::rename(&draft, &path)?;
        }
        Ok(path)
    }

    /// Builds and starts a fixture, and waits until it is ready.
    pub fn start(&self, name: &str, build: Build) -> Result<Child> {
        let mut child = Child::spawn(&mut Command::new(self.build(name, build)?))?;
        child.out.expect("READY")?;
        Ok(child)
    }
}

/// What Go says of the goroutines of its own program.
#[derive(Debug, Deserialize)]
pub struct Truth {
    /// `runtime.NumGoroutine`.
    pub goroutines: u64,
    /// All stacks, as Go prints them when a program panics.
    pub stacks: String,
    /// `runtime.Version`.
    pub version: String,
}

/// A goroutine in Go's own words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// What it is doing.
    pub state: String,
    /// Its functions, innermost first, without the runtime's own, which Go hides.
    pub functions: Vec<String>,
    /// Line of the `go` statement that made it.
    pub created_at: Option<u32>,
}

impl Truth {
    /// Asks a fixture for it.
    pub fn ask(child: &mut Child) -> Result<Self> {
        child.write("truth\n")?;
        let line = child.out.expect("TRUTH ")?;
        serde_json::from_str(line.trim_start_matches("TRUTH ")).context("the fixture's truth cannot be read")
    }

    /// Its goroutines but the main one, which is busy telling; each with how many are like it.
    pub fn told(&self) -> BTreeMap<Told, u64> {
        let mut told = BTreeMap::new();
        for paragraph in self.stacks.split("\n\n") {
            if let Some(one) = parse(paragraph) {
                *told.entry(one).or_default() += 1;
            }
        }
        told
    }
}

/// `goroutine 7 [chan receive, 2 minutes]:`, then two lines for each call.
fn parse(paragraph: &str) -> Option<Told> {
    let mut lines = paragraph.lines();
    let (number, rest) = lines.next()?.strip_prefix("goroutine ")?.split_once(' ')?;
    if number == "1" {
        return None;
    }
    let state = rest.trim_start_matches('[').split([']', ',']).next()?;
    let mut told = Told {
        state: state.to_owned(),
        functions: Vec::new(),
        created_at: None,
    };
    while let (Some(call), Some(place)) = (lines.next(), lines.next()) {
        if call.starts_with("created by ") {
            let line = place.rsplit_once(':')?.1.split(' ').next()?;
            told.created_at = line.parse().ok();
        } else {
            told.functions.push(call.rsplit_once('(')?.0.to_owned());
        }
    }
    told.functions.retain(|name| is_shown(name));
    Some(told)
}

/// Whether Go shows a function in its traces: of its own only what other packages can name.
pub fn is_shown(name: &str) -> bool {
    let own = name.strip_prefix("runtime.");
    own.is_none_or(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_gos_own_traces() {
        let stacks = "goroutine 1 [running]:\nmain.truth()\n\t/m.go:1 +0x1\n\n\
            goroutine 7 [chan receive, 2 minutes]:\nmain.(*server).next(...)\n\t/m.go:37\n\
            main.(*server).serve(0x0)\n\t/m.go:34 +0x2a\ncreated by main.spawn in goroutine 1\n\t/m.go:42 +0x6b";
        let truth = Truth {
            goroutines: 2,
            stacks: stacks.to_owned(),
            version: String::new(),
        };
        let expected = Told {
            state: "chan receive".to_owned(),
            functions: vec!["main.(*server).next".to_owned(), "main.(*server).serve".to_owned()],
            created_at: Some(42),
        };
        assert_eq!(truth.told(), BTreeMap::from([(expected, 1)]));
    }

    #[test]
    fn the_runtimes_own_functions_are_hidden() {
        assert!(is_shown("main.main") && is_shown("runtime.Gosched") && !is_shown("runtime.gopark"));
    }
}
