//! Small programs for tests: compiled where the test runs, held at a known place, ended with the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Compiles `source` with `compiler` to `dir/name`.
pub fn compile(dir: &Path, name: &str, compiler: &[&str], source: &str) -> PathBuf {
    let extension = match compiler[0] {
        "g++" => "cc",
        "rustc" => "rs",
        "go" => "go",
        _ => "c",
    };
    let (input, output) = (dir.join(format!("{name}.{extension}")), dir.join(name));
    std::fs::write(&input, source).unwrap();
    run(Command::new(compiler[0])
        .args(&compiler[1..])
        .arg("-o")
        .arg(&output)
        .arg(&input)
        .current_dir(dir));
    output
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A program that has said something on its standard output and now waits; killed when dropped.
pub struct Running {
    /// What it said, in words.
    pub words: Vec<String>,
    child: Child,
}

impl Running {
    /// Starts `command` and waits for its first line.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(!line.is_empty(), "{command:?} ended at once");
        Self {
            words: line.split_whitespace().map(str::to_owned).collect(),
            child,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Word `index` of its line, as a hexadecimal number.
    pub fn address(&self, index: usize) -> u64 {
        u64::from_str_radix(self.words[index].trim_start_matches("0x"), 16).unwrap()
    }

    /// Sends it a line and waits for the line that it answers.
    pub fn tell(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        line.trim().to_owned()
    }

    /// As [`Self::tell`], for an answer that is an address.
    pub fn ask(&mut self) -> u64 {
        u64::from_str_radix(self.tell().trim_start_matches("0x"), 16).unwrap()
    }

    /// Kills it and takes its exit status: nothing is left of it.
    pub fn end(mut self) {
        self.stop();
    }

    /// Kills it, but leaves the zombie.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Strips `program` to its dynamic symbols and adds the others in `.gnu_debugdata`, packed by `packer`, as distributions
/// do it.
pub fn pack_symbols(program: &Path, packer: &[&str]) {
    let (mini, keep) = (program.with_extension("mini"), program.with_extension("keep"));
    let names = |options: &[&str], kinds: &[&str]| -> Vec<String> {
        let nm = Command::new("nm").args(options).arg(program).output().unwrap();
        let lines = String::from_utf8(nm.stdout).unwrap();
        let fields = lines.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let kept = fields.filter(|fields| kinds.is_empty() || fields.get(1).is_some_and(|kind| kinds.contains(kind)));
        kept.map(|fields| fields[0].to_owned()).collect()
    };
    let dynamic = names(&["-D", "--format=posix", "--defined-only"], &[]);
    let mut local = names(&["--format=posix", "--defined-only"], &["T", "t", "D"]);
    local.retain(|name| !dynamic.contains(name));
    std::fs::write(&keep, local.join("\n") + "\n").unwrap();
    run(Command::new("objcopy").arg("--only-keep-debug").arg(program).arg(&mini));
    run(Command::new("objcopy")
        .args(["-S", "--remove-section=.gdb_index", "--remove-section=.comment"])
        .arg(format!("--keep-symbols={}", keep.display()))
        .arg(&mini));
    run(Command::new(packer[0]).args(&packer[1..]).arg("--force").arg(&mini));
    run(Command::new("strip").arg(program));
    run(Command::new("objcopy")
        .arg(format!("--add-section=.gnu_debugdata={}.xz", mini.display()))
        .arg(program));
}
