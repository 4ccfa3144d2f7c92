//! Goroutines as Go prints them when a program panics, and at `?debug=2`. Pure.

use std::io::{self, Write};

use super::stacks::is_wrapper;
use crate::profile::Frame;
use crate::profile::goroutines::{CreationSite, GoroutineStack, Goroutines, Single};
use crate::report::label::{frame_name, one_line};

/// Functions of the runtime that Go shows because they run functions of the program.
const CALLBACKS: &[&str] = &["runtime.runFinalizers", "runtime.runfinq", "runtime.runCleanups"];

/// Most bytes of text, about as many as Go itself writes.
const MOST: usize = 64 << 20;

/// Writes each goroutine with its stack, by number; those that are proven to wait for ever are marked. Arguments are not
/// known.
///
/// # Errors
/// What `out` refused.
pub fn write_traces(goroutines: &Goroutines, out: &mut Vec<u8>) -> io::Result<()> {
    let stacks = goroutines.stacks.iter();
    let mut each: Vec<(&Single, &GoroutineStack)> = stacks
        .flat_map(|stack| stack.each.iter().map(move |one| (one, stack)))
        .collect();
    each.sort_by_key(|(one, _)| one.id);
    let count = each.len();
    for (at, (one, stack)) in each.into_iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        if out.len() >= MOST {
            return writeln!(out, "...{} more goroutines: too much text...", count - at);
        }
        write_header(*one, &stack.state, out)?;
        write_calls(goroutines, &stack.stack.frames, out)?;
        if let Some(site) = goroutines.sites.get(stack.site) {
            write_creator(goroutines, site, one.parent, out)?;
        }
    }
    Ok(())
}

/// `goroutine 12 [chan receive, 5 minutes]:`.
fn write_header(one: Single, state: &str, out: &mut dyn Write) -> io::Result<()> {
    let said = state.ends_with("(leaked)");
    let leaked = if one.leaked && !said { " (leaked)" } else { "" };
    let minutes = one.waited_ns.unwrap_or(0) / 60_000_000_000;
    let waited = if minutes > 0 {
        format!(", {minutes} minutes")
    } else {
        String::new()
    };
    writeln!(out, "goroutine {} [{}{leaked}{waited}]:", one.id, one_line(state))
}

fn write_calls(goroutines: &Goroutines, frames: &[Frame], out: &mut dyn Write) -> io::Result<()> {
    if frames.is_empty() {
        return writeln!(out, "\tgoroutine running on other thread; stack unavailable");
    }
    let is_shown = |frame: &&Frame| frame.name().is_none_or(is_shown) && !is_wrapper(frame);
    for frame in frames.iter().filter(is_shown) {
        writeln!(out, "{}(...)", frame_name(frame))?;
        let offset = if frame.inlined {
            None
        } else {
            goroutines.offsets.get(&frame.address)
        };
        write_place(frame, offset.copied(), out)?;
    }
    Ok(())
}

/// The statement is where the innermost call is; the function is the one that it was inlined into, as in Go's own.
fn write_creator(goroutines: &Goroutines, site: &CreationSite, parent: u64, out: &mut dyn Write) -> io::Result<()> {
    let (Some(statement), Some(function)) = (site.created_by.first(), site.created_by.last()) else {
        return Ok(());
    };
    if !function.name().is_none_or(is_shown) {
        return Ok(());
    }
    write!(out, "created by {}", frame_name(function))?;
    if parent > 0 {
        write!(out, " in goroutine {parent}")?;
    }
    writeln!(out)?;
    write_place(statement, goroutines.offsets.get(&statement.address).copied(), out)
}

fn write_place(frame: &Frame, offset: Option<u64>, out: &mut dyn Write) -> io::Result<()> {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => write!(out, "\t{}:{line}", one_line(file))?,
        _ => write!(out, "\t{}", one_line(frame.module_name()))?,
    }
    offset.map_or(Ok(()), |offset| write!(out, " +{offset:#x}"))?;
    writeln!(out)
}

/// Of the runtime's own functions Go shows only those that other packages can name.
fn is_shown(name: &str) -> bool {
    let own = name.strip_prefix("runtime.");
    let exported = |rest: &str| rest.starts_with(|first: char| first.is_ascii_uppercase());
    name.contains('.') && own.is_none_or(exported) || CALLBACKS.contains(&name)
}
