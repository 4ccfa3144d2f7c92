//! What is done to the symbols of programs: split off and packed as distributions do it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::child::run;

/// The steps by which distributions make `MiniDebugInfo`; `$1` is the program.
const STEPS: &str = r#"
set -e
nm -D --format=posix --defined-only "$1" | awk '{ print $1 }' | LC_ALL=C sort > dynamic
nm --format=posix --defined-only "$1" | awk '$2 == "T" || $2 == "t" || $2 == "D" { print $1 }' | LC_ALL=C sort > all
LC_ALL=C comm -13 dynamic all > keep
objcopy --only-keep-debug "$1" mini
objcopy -S --remove-section .gdb_index --remove-section .comment --keep-symbols=keep mini
xz -f mini
strip "$1"
objcopy --add-section .gnu_debugdata=mini.xz "$1"
"#;

/// Strips `program` to its dynamic symbols, and adds those of its other functions in `.gnu_debugdata`.
pub fn pack(program: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut shell = Command::new("sh");
    shell.args(["-c", STEPS, "sh"]).arg(program).current_dir(dir.path());
    let ended = run(&mut shell)?;
    ensure!(ended.status.success(), "{:?}", ended.err);
    Ok(())
}
