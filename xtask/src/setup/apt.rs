//! Debian packages: which are missing, and installing those. The only step of the set-up that needs root.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{packages::Package, say};
use crate::{
    command::{on_path, run},
    privilege::as_root,
};

/// Installs these packages without starting their services.
const SCRIPT: &str = include_str!("apt-install.sh");

/// Installs those of these packages that are not there. Elsewhere than on Debian, names what they bring.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !is_there(package)).collect();
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    let list = names.join(" ");
    if missing.is_empty() {
        return Ok(());
    }
    if !on_path("apt-get") {
        bail!("missing, and this is not Debian: install what your system calls {list}, and run this again");
    }
    for package in missing {
        say(package.name, package.why);
    }
    let mut install = as_root("sh", &[], &format!("apt-get install {list}"))
        .with_context(|| format!("neither root nor sudo: as root, run: apt-get install {list}"))?;
    run(install.args(["-euc", SCRIPT, "apt-install.sh"]).args(names))
        .map_err(|_| anyhow::anyhow!("apt-get could not install {list}; what it said is above"))
}

fn is_there(package: &Package) -> bool {
    package.shown_by.iter().any(|sign| {
        if sign.starts_with('/') {
            exists(sign)
        } else {
            on_path(sign)
        }
    })
}

/// Whether a path exists in which one directory may be `*`.
fn exists(pattern: &str) -> bool {
    let Some((parent, below)) = pattern.split_once("/*/") else {
        return Path::new(pattern).exists();
    };
    fs::read_dir(parent).is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join(below).exists()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_directory() {
        assert!(exists("/proc/*/status"));
        assert!(exists("/proc/self/status"));
        assert!(!exists("/proc/*/no-such-file"));
        assert!(!exists("/no-such-directory/*/status"));
    }

    #[test]
    fn the_script_names_the_package_manager_and_puts_the_policy_back() {
        assert!(SCRIPT.contains("apt-get install"));
        assert!(SCRIPT.contains("trap 'rm -f \"$policy\"' EXIT"));
    }
}
