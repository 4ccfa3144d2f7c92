//! `cargo xtask demo`: a small server that leaks, traced for ten seconds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

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
    let outputs = [FLAME_GRAPH, PROFILE].map(|name| workspace().join(name));
    for old in &outputs {
        // What is there afterwards is then of this run.
        let _ = fs::remove_file(old);
    }
    let server = Command::new(&program).stdin(Stdio::null()).spawn();
    let server = Kept(server.with_context(|| format!("cannot run {}", program.display()))?);
    trace(&leaktrace, server.0.id())?;
    for output in &outputs {
        ensure!(output.is_file(), "leaktrace wrote no {}", output.display());
    }
    let [flame_graph, profile] = outputs.map(|path| path.display().to_string());
    println!("\nFlame graph: {flame_graph}\nProfile:     {profile}");
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
    let outputs = ["-o", FLAME_GRAPH, "-o", PROFILE];
    command
        .current_dir(workspace())
        .args(["--pid", &pid, "--duration", "10s", "--interval", "3s"])
        .args(outputs);
    run_command(&mut command)
}
