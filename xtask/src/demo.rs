//! `cargo xtask demo`: a small server that leaks, traced for ten seconds.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    build,
    command::{run as run_command, workspace},
    privilege::as_root,
    setup,
};

const FLAME_GRAPH: &str = "leaktrace-demo.svg";
const PROFILE: &str = "leaktrace-demo.json";

/// A child that does not outlive its owner.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The subcommand.
pub fn run() -> Result<()> {
    setup::ensure(false)?;
    let leaktrace = build::leaktrace()?;
    let program = compile()?;
    let server = Command::new(&program).stdin(Stdio::null()).spawn();
    let server = Kept(server.with_context(|| format!("cannot run {}", program.display()))?);
    trace(&leaktrace, server.0.id())?;
    let here = env::current_dir().context("cannot tell the current directory")?;
    println!("\nFlame graph: {}", here.join(FLAME_GRAPH).display());
    println!(
        "Profile:     {} (leaktrace render, leaktrace diff)",
        here.join(PROFILE).display()
    );
    Ok(())
}

fn compile() -> Result<PathBuf> {
    let program = workspace().join("target/leaktrace-demo");
    let source = workspace().join("xtask/demo/sessions.c");
    let flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-o"];
    run_command(Command::new("cc").args(flags).arg(&program).arg(&source))?;
    Ok(program)
}

fn trace(leaktrace: &Path, pid: u32) -> Result<()> {
    let mut command = as_root(leaktrace, &[], "leaktrace, for uprobes need root")
        .context("neither root nor sudo: tracing needs root; run this as root")?;
    let pid = pid.to_string();
    eprintln!("demo: leaktrace --pid {pid} --duration 10s --interval 3s -o {FLAME_GRAPH} -o {PROFILE}");
    run_command(
        command
            .args(["--pid", &pid, "--duration", "10s", "--interval", "3s"])
            .args(["-o", FLAME_GRAPH, "-o", PROFILE]),
    )
}
