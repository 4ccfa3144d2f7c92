//! `cargo xtask setup`: looks at what is missing, installs that and nothing else, and says each step and why.

mod apt;
mod compiler;
mod golang;
mod linker;
mod packages;

use std::env;

use anyhow::{Result, bail};

use self::toolchain::Missing;

#[path = "../../../leaktrace/build/toolchain.rs"]
pub mod toolchain;

/// The subcommand.
pub fn run(tests: bool) -> Result<()> {
    if tests {
        for_tests(false)?;
        for_lints()?;
    } else {
        for_build()?;
    }
    eprintln!(
        "setup: all there to build{}",
        if tests { ", test and lint" } else { "" }
    );
    Ok(())
}

/// Installs what is missing to build; like its fellows silent when nothing is.
pub fn for_build() -> Result<()> {
    // A packager's object needs nothing to be built.
    if env::var_os("LEAKTRACE_BPF_OBJECT").is_none() {
        kernel_side()
    } else {
        Ok(())
    }
}

/// Installs what is missing to build and test; `exhaustive` is for the long tests too.
pub fn for_tests(exhaustive: bool) -> Result<()> {
    for_build()?;
    apt::ensure(packages::TESTS)?;
    golang::ensure(exhaustive)
}

/// Installs what is missing to build and lint.
pub fn for_lints() -> Result<()> {
    for_build()?;
    compiler::ensure_lints()
}

fn kernel_side() -> Result<()> {
    let Err(missing) = toolchain::find() else { return Ok(()) };
    for missing in missing {
        match missing {
            Missing::Linker(why) => linker::install(&why)?,
            Missing::Compiler(why) => compiler::install(&why)?,
        }
    }
    // bpf-linker and the compiler must fit each other, which only shows when both are there.
    match toolchain::find() {
        Ok(_) => Ok(()),
        Err(still) => {
            let still: Vec<_> = still.iter().map(ToString::to_string).collect();
            bail!("the kernel side still cannot be built: {}", still.join("; "))
        }
    }
}

fn say(what: &str, why: &str) {
    eprintln!("setup: installing {what}: {why}");
}
