//! `cargo xtask lint`: formatting, and clippy over userspace and the kernel side; a warning is a failure.

use anyhow::{Result, bail, ensure};

use crate::{
    command::{self, cargo, workspace},
    setup::{self, toolchain},
};

/// The target the kernel side is built for.
const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

type Check = fn() -> Result<()>;

/// The subcommand: all of it, whatever fails first.
pub fn run() -> Result<()> {
    setup::ensure(true)?;
    let checks: [(&str, Check); 3] = [
        ("formatting", formatting),
        ("userspace", userspace),
        ("kernel side", kernel_side),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        eprintln!("lint: {name}");
        if let Err(error) = check() {
            eprintln!("lint: {error:#}");
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "not clean: {}", failed.join(", "));
    println!("lint: clean");
    Ok(())
}

fn formatting() -> Result<()> {
    command::run(cargo().args(["fmt", "--all", "--check"]))
}

fn userspace() -> Result<()> {
    let what = [
        "clippy",
        "--quiet",
        "--workspace",
        "--exclude",
        "leaktrace-ebpf",
        "--all-targets",
    ];
    command::run(cargo().args(what).args(["--", "-D", "warnings"]))
}

fn kernel_side() -> Result<()> {
    let Ok(found) = toolchain::find() else {
        bail!("the kernel side cannot be linted without its compiler; run: cargo xtask setup")
    };
    let mut clippy = found.command("cargo");
    clippy
        .current_dir(workspace())
        .args([
            "clippy",
            "--quiet",
            "--package",
            "leaktrace-ebpf",
            "--target",
            TARGET,
            "-Zbuild-std=core",
        ])
        // Its own directory: the flags differ from userspace's, and each would throw the other's work away.
        .args(["--target-dir", "target/lint-ebpf"])
        .args(["--", "-D", "warnings"])
        .env(toolchain::UNLOCK.0, toolchain::UNLOCK.1)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        );
    for variable in ["RUSTC", "RUSTC_WORKSPACE_WRAPPER"] {
        clippy.env_remove(variable);
    }
    command::run(&mut clippy)
}
