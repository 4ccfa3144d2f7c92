//! Compiles the programs under `fixtures/` and walks them through their gates.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::child::{Child, Ended, PATIENCE, run};
use crate::host;
use crate::truth::{START, Truth};

/// Frame pointers everywhere, little optimisation: what is called is what was written.
pub const PLAIN: &[&str] = &["-O1", "-g", "-fno-omit-frame-pointer", "-pthread"];

/// A compiled fixture.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Where the program is.
    pub path: PathBuf,
}

/// A fixture that runs, and has come to its first gate.
pub struct Running {
    /// The process.
    pub child: Child,
}

impl Fixture {
    /// Compiles a fixture with the ordinary flags.
    pub fn compile(name: &str) -> Result<Self> {
        Self::compile_with(name, PLAIN)
    }

    /// Compiles `fixtures/NAME.c` or `.cc` with these flags, unless that was done before.
    pub fn compile_with(name: &str, flags: &[&str]) -> Result<Self> {
        Self::compile_linked(name, flags, &[])
    }

    /// The same, with what the linker is to take beside it.
    pub fn compile_linked(name: &str, flags: &[&str], libraries: &[&str]) -> Result<Self> {
        Self::compile_by(None, name, flags, libraries)
    }

    /// The same, by another compiler than the machine's own.
    pub fn compile_by(by: Option<&str>, name: &str, flags: &[&str], libraries: &[&str]) -> Result<Self> {
        let cplusplus = directory().join(format!("{name}.cc")).exists();
        let compiler = by.unwrap_or(if cplusplus { "c++" } else { "cc" });
        let source = format!("{name}.{}", if cplusplus { "cc" } else { "c" });
        Self::compile_source(compiler, &source, &[flags, libraries, &["-ldl"]].concat())
    }

    /// Compiles `fixtures/SOURCE` by this compiler with these flags, which follow the source, unless that was done
    /// before.
    pub fn compile_source(compiler: &str, source: &str, flags: &[&str]) -> Result<Self> {
        let path = directory().join(source);
        let name = path.file_stem().and_then(OsStr::to_str).context("no name")?;
        let kept = cached_name(name, &path, &[&[compiler], flags].concat())?;
        if !kept.exists() {
            // Compiled beside and renamed, so that a suite that runs at the same time never sees half a program.
            let draft = kept.with_extension(format!("draft-{}", std::process::id()));
            let mut command = Command::new(compiler);
            command.arg(&path).args(flags).arg("-o").arg(&draft);
            let ended = run(&mut command)?;
            ensure!(
                ended.status.success(),
                "{source} does not compile:\n{}",
                ended.err.join("\n")
            );
            fs::rename(&draft, &kept)?;
        }
        Ok(Self { path: kept })
    }

    /// Starts it, and waits until it is ready: what it allocated before is older than what comes.
    pub fn start(&self, args: &[&str]) -> Result<Running> {
        self.start_preloaded(args, None)
    }

    /// Starts it with a library loaded before all others.
    pub fn start_preloaded(&self, args: &[&str], library: Option<&Path>) -> Result<Running> {
        let mut command = Command::new(&self.path);
        command.args(args).env_remove("TRUTH");
        if let Some(library) = library {
            command.env("LD_PRELOAD", library);
        }
        let mut child = Child::spawn(&mut command)?;
        child.out.expect("READY")?;
        Ok(Running { child })
    }

    /// The path as text, to be an argument of something else.
    pub fn text(&self) -> Result<&str> {
        self.path.to_str().context("the target directory's name is not UTF-8")
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Lets it through its first gate.
    pub fn go(&mut self) -> Result<()> {
        self.child.write("\n")
    }

    /// Waits until its scenario is over, and takes what it says. It still holds everything.
    pub fn truth(&mut self) -> Result<Truth> {
        Truth::parse(&self.child.out.expect(START)?)
    }

    /// Lets it through and waits for its truth.
    pub fn play(&mut self) -> Result<Truth> {
        self.go()?;
        self.truth()
    }

    /// Lets it go from its last gate, and sees it end as it should.
    pub fn end_well(mut self) -> Result<()> {
        self.child.write("\n")?;
        let ended = self.child.finish(PATIENCE)?;
        ensure!(
            ended.status.success(),
            "the fixture ended with {}: {}",
            ended.status,
            ended.err.join("\n")
        );
        Ok(())
    }

    /// Walks it through all its gates, and sees it end as it should: for fixtures that check their own work.
    pub fn play_to_the_end(mut self) -> Result<()> {
        self.play()?;
        self.end_well()
    }

    /// Lets it go from its last gate, however it then ends.
    pub fn end(mut self) -> Result<Ended> {
        self.child.write("\n")?;
        self.child.finish(PATIENCE)
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Where a program made of this source, the headers beside it, and these flags is kept.
pub(crate) fn cached_name(name: &str, source: &Path, flags: &[&str]) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    flags.hash(&mut hasher);
    for source in [
        source,
        &directory().join("truth.h"),
        &directory().join("frames.h"),
        &directory().join("churned.h"),
    ] {
        fs::read(source)
            .with_context(|| format!("no fixture {}", source.display()))?
            .hash(&mut hasher);
    }
    let dir = host::target_dir()
        .join("fixtures")
        .join(format!("{:016x}", hasher.finish()));
    fs::create_dir_all(&dir)?;
    Ok(dir.join(name))
}
