//! `cargo xtask build`, and building one program for the other subcommands.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    command::{self, cargo, shown},
    setup,
};

/// The subcommand.
pub fn run(release: bool) -> Result<()> {
    setup::ensure(false)?;
    let mut build = cargo();
    build.arg("build");
    if release {
        build.arg("--release");
    }
    command::run(&mut build)
}

/// Builds leaktrace as its users run it, and says where it is.
pub fn leaktrace() -> Result<PathBuf> {
    executable(
        cargo().args(["build", "--release", "--package", "leaktrace", "--bin", "leaktrace"]),
        "leaktrace",
    )
}

/// Runs a cargo command that builds the target `name`, and says where its executable is.
pub fn executable(build: &mut Command, name: &str) -> Result<PathBuf> {
    let build = build
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let output = build.output().with_context(|| format!("cannot run {}", shown(build)))?;
    ensure!(output.status.success(), "{} failed ({})", shown(build), output.status);
    let messages = String::from_utf8_lossy(&output.stdout);
    let found = messages.lines().find_map(|line| executable_in(line, name));
    found.with_context(|| format!("{} built no {name}", shown(build)))
}

/// The executable that one of cargo's messages says it built for the target `name`.
fn executable_in(message: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let executable = message.get("executable")?.as_str()?;
    (message.get("target")?.get("name")? == name).then(|| PathBuf::from(executable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_of_the_named_target_is_found() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"suite"},"executable":"/t/suite-1"}"#;
        assert_eq!(executable_in(message, "suite"), Some(PathBuf::from("/t/suite-1")));
        assert_eq!(executable_in(message, "leaktrace"), None);
    }

    #[test]
    fn libraries_and_other_words_are_not_executables() {
        let library = r#"{"reason":"compiler-artifact","target":{"name":"suite"},"executable":null}"#;
        assert_eq!(executable_in(library, "suite"), None);
        assert_eq!(executable_in("Compiling suite", "suite"), None);
    }
}
