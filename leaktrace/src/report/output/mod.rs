//! Where reports go: standard output and files. A file appears under its name whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};

use super::{Format, Metric, View, report, terminal};
use crate::cli::ReportArgs;
use crate::profile::Profile;
use crate::settings::size::parse_size;

/// Writes every report that `args` ask for; without `--output`, one to standard output. A broken pipe is success.
///
/// # Errors
/// One line: what could not be written, why, what to do.
pub fn write_reports(profile: &Profile, args: &ReportArgs) -> anyhow::Result<()> {
    let view = plain_view(args)?;
    if args.output.is_empty() {
        return write_stdout(profile, args.format.into(), &view);
    }
    args.output.iter().try_for_each(|path| {
        if is_stdout(path) {
            write_stdout(profile, args.format.into(), &view)
        } else {
            write_file(profile, path, &view)
        }
    })
}

/// The view that `args` ask for, as it is for a file.
///
/// # Errors
/// One line, when a size is malformed.
pub fn plain_view(args: &ReportArgs) -> anyhow::Result<View> {
    let min_bytes = parse_size(&args.min_bytes).map_err(|error| anyhow!("--min-bytes: {error}"))?;
    Ok(View {
        metric: Metric::from(args.metric),
        top: args.top,
        min_bytes,
        width: None,
        colour: false,
    })
}

/// Writes a report to standard output, fitted to the terminal if it is one. A broken pipe is success.
///
/// # Errors
/// One line: why, and what to do.
pub fn write_stdout(profile: &Profile, format: Format, view: &View) -> anyhow::Result<()> {
    if format == Format::Pprof && io::stdout().is_terminal() {
        bail!("pprof is binary and standard output is a terminal; use --output FILE.pb.gz");
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = report(format)
        .write(profile, &terminal::fitted(*view), &mut out)
        .and_then(|()| Ok(out.flush()?));
    if let Err(error) = &written
        && io_error(error).is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    {
        // What is still buffered would only fail again when dropped.
        let _ = out.into_parts();
        return Ok(());
    }
    written.map_err(|error| failed(Path::new("standard output"), &error))
}

/// Writes a report to a file in the format of its ending, by way of a temporary file beside it. Devices and pipes are
/// written as they are.
///
/// # Errors
/// One line: what, why, what to do.
pub fn write_file(profile: &Profile, path: &Path, view: &View) -> anyhow::Result<()> {
    let format = Format::from_path(path).or_else(|error| if is_special(path) { Ok(Format::Text) } else { Err(error) });
    let format = format.map_err(|error| anyhow!(error))?;
    let write = |file: &File| -> anyhow::Result<()> {
        let mut out = BufWriter::new(file);
        report(format).write(profile, view, &mut out)?;
        Ok(out.flush()?)
    };
    let written = if is_special(path) {
        open_special(path).and_then(|file| write(&file))
    } else {
        replace(path, write)
    };
    match written {
        Err(error) if io_error(&error).is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => Ok(()),
        written => written.map_err(|error| failed(path, &error)),
    }
}

/// Whether the ending of `path` names a format; what is not a file by that name needs none.
///
/// # Errors
/// One line: which endings there are.
pub fn check_format(path: &Path) -> anyhow::Result<()> {
    if is_stdout(path) || is_special(path) {
        return Ok(());
    }
    Format::from_path(path).map(drop).map_err(|error| anyhow!(error))
}

/// Finds out, before a long trace, whether a report can be written to `path`. Changes nothing.
///
/// # Errors
/// One line: what, why, what to do.
pub fn check_writable(path: &Path) -> anyhow::Result<()> {
    if is_stdout(path) {
        return Ok(());
    }
    if is_special(path) {
        // A pipe is not opened: its reader may come only when there is something to read.
        return fs::metadata(path)
            .map(drop)
            .map_err(|error| failed(path, &error.into()));
    }
    check_format(path)?;
    let target = followed(path);
    if target.is_dir() {
        bail!("cannot write {}: it is a directory; name a file in it", path.display());
    }
    let tried = beside(&target).map(drop);
    let tried = tried.or_else(|error| {
        if target.exists() {
            open_existing(&target).map(drop)
        } else {
            Err(error)
        }
    });
    tried.map_err(|error| failed(path, &error.into()))
}

/// Whether this path is the word for standard output.
fn is_stdout(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdout")
}

/// Whether this is something that must not be replaced by a file: a device, a pipe, an open descriptor.
fn is_special(path: &Path) -> bool {
    ["/dev/stderr", "/dev/fd", "/proc"]
        .iter()
        .any(|special| path.starts_with(special))
        || fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

fn open_special(path: &Path) -> anyhow::Result<File> {
    Ok(OpenOptions::new().append(true).open(path)?)
}

fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// The file that a symbolic link leads to, so that the link stays one.
fn followed(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // The process's umask is taken off this.
    let mode = fs::Permissions::from_mode(0o666);
    tempfile::Builder::new()
        .prefix(".leaktrace-")
        .permissions(mode)
        .tempfile_in(folder)
}

fn replace(path: &Path, write: impl Fn(&File) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let target = followed(path);
    let file = match beside(&target) {
        Ok(file) => file,
        // The folder takes no new file, the old file may take new contents.
        Err(error) => {
            let file = open_existing(&target).map_err(|_| error)?;
            file.set_len(0)?;
            return write(&file);
        }
    };
    write(file.as_file())?;
    if let Ok(old) = fs::metadata(&target) {
        file.as_file().set_permissions(old.permissions())?;
        // Best effort: only root may give files away.
        let _ = fchown(file.as_file(), Some(old.uid()), Some(old.gid()));
    }
    // Some file systems say only now that the disk is full.
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|error| error.error)?;
    Ok(())
}

fn io_error(error: &anyhow::Error) -> Option<&io::Error> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

fn failed(path: &Path, error: &anyhow::Error) -> anyhow::Error {
    let Some(io) = io_error(error) else {
        return anyhow!("cannot write {}: {error:#}", path.display());
    };
    let advice = match io.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space, or choose another place",
        io::ErrorKind::NotFound => "make the folder first, or choose another place",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "choose a place that you may write to",
        io::ErrorKind::NotADirectory => "part of the path is a file; choose another place",
        _ => "choose another place",
    };
    anyhow!("cannot write {}: {}; {advice} with --output", path.display(), why(io))
}

/// The reason without the number that the standard library puts behind it.
pub(super) fn why(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
