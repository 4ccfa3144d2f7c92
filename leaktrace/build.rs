//! Puts the kernel side where userspace includes it from, `$OUT_DIR/leaktrace`: copied from `LEAKTRACE_BPF_OBJECT`
//! where a packager names a prebuilt object, else built here.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

#[path = "build/toolchain.rs"]
mod toolchain;

/// Package of the kernel side.
const PACKAGE: &str = "leaktrace-ebpf";
/// Names a prebuilt object.
const PREBUILT: &str = "LEAKTRACE_BPF_OBJECT";
/// What an object depends on besides its own package, which aya-build watches.
const ALSO_WATCHED: &[&str] = &[
    "build.rs",
    "build/toolchain.rs",
    "../leaktrace-common/src",
    "../leaktrace-common/Cargo.toml",
    "../Cargo.toml",
    "../Cargo.lock",
];

fn main() {
    println!("cargo::rerun-if-env-changed={PREBUILT}");
    let done = match env::var_os(PREBUILT) {
        Some(object) => copy(Path::new(&object)),
        None => build(),
    };
    // Cargo fails the build for this line; an exit code besides would add a page of its own to it.
    if let Err(error) = done {
        println!("cargo::error={error:#}");
    }
}

fn copy(object: &Path) -> Result<()> {
    ensure!(
        object.is_absolute(),
        "{PREBUILT}={}: give an absolute path",
        object.display()
    );
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(object).with_context(|| format!("{PREBUILT}={}: cannot read it", object.display()))?;
    ensure!(is_bpf(&bytes), "{PREBUILT}={}: not a BPF object", object.display());
    let to = PathBuf::from(variable("OUT_DIR")?).join("leaktrace");
    fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

/// Whether these are the bytes of an ELF file for BPF, in either byte order.
fn is_bpf(bytes: &[u8]) -> bool {
    let machine = bytes.get(18..20);
    bytes.starts_with(b"\x7fELF") && (machine == Some(&[247, 0]) || machine == Some(&[0, 247]))
}

fn build() -> Result<()> {
    for path in ALSO_WATCHED {
        println!("cargo::rerun-if-changed={path}");
    }
    let found = toolchain::find().map_err(|missing| {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        anyhow!(
            "the kernel side cannot be built: {}; run: cargo xtask setup",
            missing.join("; and ")
        )
    })?;
    // Each line that cargo says in there would come out as a warning here; errors still do.
    let (unlock, unlocked) = toolchain::UNLOCK;
    let variables = [
        (unlock, unlocked.into()),
        ("CARGO_TERM_QUIET", "true".into()),
        ("PATH", toolchain::search_path()),
        // The third version of the instruction set: atomics that return the old value, and comparisons of 32 bits.
        // (Atomics alone, by the feature `alu32`, would come with wrong comparisons of negative numbers.) aya-build
        // sets the compiler's flags itself, so this goes by the profile.
        ("CARGO_UNSTABLE_PROFILE_RUSTFLAGS", "true".into()),
        ("CARGO_PROFILE_RELEASE_RUSTFLAGS", "-Ctarget-cpu=v3".into()),
        ("CARGO_PROFILE_RELEASE_BUILD_OVERRIDE_RUSTFLAGS", "".into()),
    ];
    for (name, value) in variables {
        // SAFETY: no other thread runs in this build script.
        unsafe { env::set_var(name, value) };
    }
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..").join(PACKAGE);
    let package = aya_build::Package {
        name: PACKAGE,
        root_dir: &root.to_string_lossy(),
        ..aya_build::Package::default()
    };
    // Without rustup aya-build takes the compiler on PATH, whatever the name.
    let name = found.name.as_deref().unwrap_or_default();
    if let Err(error) = aya_build::build_ebpf([package], aya_build::Toolchain::Custom(name)) {
        bail!("the kernel side ({PACKAGE}) does not build, see the warnings above: {error:#}");
    }
    Ok(())
}

fn variable(name: &str) -> Result<OsString> {
    env::var_os(name).with_context(|| format!("cargo did not set {name}"))
}
