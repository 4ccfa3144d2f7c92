//! Where a module's names come from, told without reading them.

use std::{os::fd::AsRawFd as _, sync::Arc};

use serde::Serialize;

use super::{MAX_BYTES, debug_file, golang::GoTables, image::has_debug, mini_debug};
use crate::target::{Module, Root, printable};

/// The best source of names that a module has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from", content = "path")]
pub enum NameSource {
    /// Go's own table in the file: functions, files, lines and inlined functions.
    GoTable,
    /// Its own debug information: files, lines and inlined functions.
    DebugInfo,
    /// A file of its own with debug information or symbols, at this path.
    DebugFile(String),
    /// Its full symbol table: functions.
    Symtab,
    /// `.symtab` packed into `.gnu_debugdata`, with `.dynsym`: functions, local ones too.
    MiniDebugInfo,
    /// Its symbols for dynamic linking: functions that it exports.
    Dynsym,
    /// None: frames are module and offset.
    Nothing,
}

/// The source of names of `module`, in a process that has the root `process`; `host` is our own root.
pub fn name_source(module: &Arc<Module>, process: Option<&Root>, host: Option<&Root>) -> NameSource {
    let headers = module.headers();
    // Asked as a trace asks it: a file that only looks like Go's has no table.
    if GoTables::default().of(module, &mut { MAX_BYTES }).is_some() {
        return NameSource::GoTable;
    }
    if has_debug(headers) {
        return NameSource::DebugInfo;
    }
    let separate = host.and_then(|host| debug_file::find(module, process, host));
    if let Some(found) = separate {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", found.file.as_raw_fd()));
        let path = link.unwrap_or_default();
        return NameSource::DebugFile(printable(path.as_os_str().as_encoded_bytes()));
    }
    if mini_debug::is_offered(headers) {
        return NameSource::MiniDebugInfo;
    }
    match (headers.section(b".symtab"), headers.section(b".dynsym")) {
        (Some(_), _) => NameSource::Symtab,
        (None, Some(_)) => NameSource::Dynsym,
        (None, None) => NameSource::Nothing,
    }
}
