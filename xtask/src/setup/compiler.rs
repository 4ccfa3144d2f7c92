//! The compiler of the kernel side: the standard library's source through rustup, else Debian's compiler; and the
//! components that lint.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{
    apt, packages, say,
    toolchain::{self, Toolchain},
};
use crate::command::{on_path, run};

/// Makes a compiler able to build the kernel side.
pub fn install(why: &str) -> Result<()> {
    let newest = toolchain::linker().unwrap_or(toolchain::LLVM);
    let usable = |candidate: &Toolchain| candidate.llvm().is_some_and(|llvm| llvm <= newest);
    for candidate in toolchain::candidates().iter().filter(|candidate| usable(candidate)) {
        let Some(name) = candidate.name.as_deref().filter(|name| *name != toolchain::DEBIAN) else {
            continue;
        };
        say(
            &format!("rust-src for {name}"),
            "the kernel side builds `core` for BPF from source",
        );
        match add_component("rust-src", name) {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("setup: {error:#}"),
        }
    }
    debian(why)
}

/// Debian's compiler, known to rustup under a name of its own, so that nothing else changes to it.
fn debian(why: &str) -> Result<()> {
    if !on_path("apt-get") {
        bail!(
            "no compiler for the kernel side ({why}), and this is not Debian: add rust-src to a Rust toolchain on \
             LLVM {} or older, and run this again",
            toolchain::LLVM
        );
    }
    eprintln!("setup: falling back to Debian's Rust compiler ({why})");
    apt::ensure(packages::COMPILER).context("no compiler for the kernel side: rustup has none and Debian's failed")?;
    if on_path("rustup") {
        run(Command::new("rustup").args(["toolchain", "link", toolchain::DEBIAN, "/usr"]))?;
    }
    Ok(())
}

/// Adds rustfmt and clippy to the active toolchain, and clippy to the kernel side's where that is another.
pub fn ensure_lints() -> Result<()> {
    let candidates = toolchain::candidates();
    if let Some(active) = candidates.first() {
        ensure_component(active, "rustfmt", "rustfmt")?;
        ensure_component(active, "clippy", "clippy-driver")?;
    }
    match toolchain::find() {
        Ok(found) if found.name.as_deref() == Some(toolchain::DEBIAN) => apt::ensure(packages::COMPILER_LINTS),
        Ok(found) => ensure_component(&found, "clippy", "clippy-driver"),
        // A prebuilt kernel side: there is nothing to lint it with, as `lint` says.
        Err(_) => Ok(()),
    }
}

fn ensure_component(toolchain: &Toolchain, component: &str, program: &str) -> Result<()> {
    let mut version = toolchain.command(program);
    version
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if version.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let name = toolchain.name.as_deref();
    let name = name.with_context(|| format!("{component} is missing, and there is no rustup to add it"))?;
    say(&format!("{component} for {name}"), "`cargo xtask lint` uses it");
    add_component(component, name)
}

fn add_component(component: &str, toolchain: &str) -> Result<()> {
    let mut add = Command::new("rustup");
    add.args(["--quiet", "component", "add", component, "--toolchain", toolchain]);
    // Offline is an answer, for which there is a next way; rustup need not show its own source for it.
    run(add.env("RUST_BACKTRACE", "0"))
}
