//! Finds what builds the kernel side: bpf-linker, and a compiler with the standard library's source whose LLVM
//! bpf-linker can read. Shared by `build.rs`, which asks, and `xtask`, which installs what is missing; std only.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest bpf-linker that keeps the debug information the kernel side needs.
pub const LINKER: (u32, u32) = (0, 13);
/// The LLVM that `cargo xtask setup` builds bpf-linker on.
pub const LLVM: u32 = 22;
/// Name under which rustup knows Debian's compiler, where `cargo xtask setup` had to fall back to it.
pub const DEBIAN: &str = "leaktrace-debian";
/// Lets a stable compiler build `core`, as only a nightly one may otherwise.
pub const UNLOCK: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// A compiler that may build the kernel side.
pub struct Toolchain {
    /// What rustup calls it; `None` is the compiler on `PATH`, where there is no rustup.
    pub name: Option<String>,
}

/// Something without which the kernel side cannot be built.
pub enum Missing {
    /// A bpf-linker; the text says what is wrong.
    Linker(String),
    /// A compiler; the text says why each one known does not do.
    Compiler(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linker(why) => f.write_str(why),
            Self::Compiler(why) => write!(f, "no compiler fits ({why})"),
        }
    }
}

impl Toolchain {
    /// A command that runs `program` of this toolchain.
    pub fn command(&self, program: &str) -> Command {
        let Some(name) = &self.name else {
            return Command::new(program);
        };
        let mut command = Command::new("rustup");
        // Looking must never install.
        command.env("RUSTUP_AUTO_INSTALL", "0").args(["run", name, program]);
        command
    }

    /// The compiler's LLVM, if there is such a compiler.
    pub fn llvm(&self) -> Option<u32> {
        let about = output(self.command("rustc").arg("-vV"))?;
        let version = about.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
        version.split('.').next()?.parse().ok()
    }

    /// Whether the source of `core` is there to be built.
    fn has_source(&self) -> bool {
        let sysroot = output(self.command("rustc").args(["--print", "sysroot"]));
        sysroot.is_some_and(|root| {
            Path::new(root.trim())
                .join("lib/rustlib/src/rust/library/core")
                .is_dir()
        })
    }

    /// Why this compiler does not do for a bpf-linker that reads up to `llvm`, if it does not.
    fn unfit(&self, llvm: u32) -> Option<&'static str> {
        match self.llvm() {
            None => Some("not installed"),
            Some(own) if own > llvm => Some("its LLVM is newer than bpf-linker's"),
            Some(_) if !self.has_source() => Some("no rust-src"),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or("rustc on PATH"))
    }
}

/// The toolchain to build the kernel side with, or all that is missing.
pub fn find() -> Result<Toolchain, Vec<Missing>> {
    let linker = linker();
    let compiler = compiler(*linker.as_ref().unwrap_or(&LLVM));
    match (linker, compiler) {
        (Ok(_), Ok(found)) => Ok(found),
        (linker, compiler) => Err(linker
            .err()
            .map(Missing::Linker)
            .into_iter()
            .chain(compiler.err().map(Missing::Compiler))
            .collect()),
    }
}

/// The compilers to try, best first: the active one, so that userspace and kernel side share it.
pub fn candidates() -> Vec<Toolchain> {
    if output(Command::new("rustup").arg("--version")).is_none() {
        return vec![Toolchain { name: None }];
    }
    let mut names: Vec<_> = active().into_iter().collect();
    for name in ["nightly", DEBIAN] {
        if !names.iter().any(|known| known.starts_with(name)) {
            names.push(name.to_owned());
        }
    }
    names.into_iter().map(|name| Toolchain { name: Some(name) }).collect()
}

/// rustup's name of the active toolchain; rustup's own cargo puts it in the environment.
fn active() -> Option<String> {
    env::var("RUSTUP_TOOLCHAIN").ok().or_else(|| {
        let shown = output(Command::new("rustup").args(["show", "active-toolchain"]))?;
        shown.split_whitespace().next().map(str::to_owned)
    })
}

fn compiler(llvm: u32) -> Result<Toolchain, String> {
    let mut reasons = Vec::new();
    for candidate in candidates() {
        match candidate.unfit(llvm) {
            None => return Ok(candidate),
            Some(why) => reasons.push(format!("{candidate}: {why}")),
        }
    }
    Err(reasons.join(", "))
}

/// The newest LLVM whose bitcode the installed bpf-linker reads, or what is wrong with that bpf-linker.
pub fn linker() -> Result<u32, String> {
    let path = search_path();
    let file = env::split_paths(&path)
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file());
    let file = file.ok_or("there is no bpf-linker")?;
    let about = output(Command::new(&file).arg("--version"));
    let about = about.ok_or_else(|| format!("{} does not run", file.display()))?;
    let mut numbers = about
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < LINKER {
        return Err(format!(
            "{} is too old, {}.{} is needed",
            about.trim(),
            LINKER.0,
            LINKER.1
        ));
    }
    Ok(linked_llvm(&file).unwrap_or(LLVM))
}

/// `PATH`, then where cargo installs programs: rustup puts that on `PATH`, a system's cargo does not.
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    let dirs = env::split_paths(&path).chain(home.map(|home| home.join("bin")));
    env::join_paths(dirs).unwrap_or(path)
}

/// The LLVM library that bpf-linker loads, unless it carries its own.
fn linked_llvm(linker: &Path) -> Option<u32> {
    let libraries = output(Command::new("ldd").arg(linker))?;
    // `libLLVM.so.22.1`, on some systems `libLLVM-22.so.1`.
    let (_, name) = libraries.split_once("libLLVM")?;
    name.split(|c: char| !c.is_ascii_digit())
        .find(|digits| !digits.is_empty())?
        .parse()
        .ok()
}

/// What a command prints, if it can be run and succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
