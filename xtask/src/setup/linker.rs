//! bpf-linker, built from source on the LLVM of the Rust compiler.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::{apt, packages, say, toolchain};
use crate::command::{cargo, on_path, run};

const VERSION: &str = "0.13.0";

/// Builds and installs bpf-linker where cargo installs programs.
pub fn install(why: &str) -> Result<()> {
    let prefix = llvm()?;
    say(
        &format!("bpf-linker {VERSION}"),
        &format!("it links the kernel side, and {why}; takes a minute or two"),
    );
    let feature = format!("llvm-{}", toolchain::LLVM);
    // `--force`: one of this version may be there and not work, for its LLVM is gone.
    let options = [
        "--version",
        VERSION,
        "--locked",
        "--force",
        "--quiet",
        "--no-default-features",
    ];
    let mut build = cargo();
    build
        .args(["install", "bpf-linker"])
        .args(options)
        .args(["--features", &feature])
        .env("LLVM_PREFIX", prefix);
    run(&mut build)
}

/// Where LLVM is: Debian's packages, else what llvm-config says.
fn llvm() -> Result<String> {
    if on_path("apt-get") {
        apt::ensure(packages::LINKER)?;
        return Ok(format!("/usr/lib/llvm-{}", toolchain::LLVM));
    }
    [&*format!("llvm-config-{}", toolchain::LLVM), "llvm-config"]
        .into_iter()
        .find_map(prefix)
        .with_context(|| {
            let llvm = toolchain::LLVM;
            format!(
                "bpf-linker is missing and cannot be built: no LLVM {llvm} found, and this is not Debian; install LLVM \
             {llvm} with its headers and llvm-config, or bpf-linker {VERSION} itself, and run this again"
            )
        })
}

/// Where the LLVM of this llvm-config is, if it is the right one.
fn prefix(config: &str) -> Option<String> {
    let ask = |question| {
        let answer = Command::new(config).arg(question).output().ok()?;
        Some(String::from_utf8(answer.stdout).ok()?.trim().to_owned())
    };
    ask("--version")?
        .starts_with(&format!("{}.", toolchain::LLVM))
        .then(|| ask("--prefix"))?
}
