//! Goroutines, for people and for other tools. Pure but for [`view`], which looks at the terminal.

mod interval;
mod text;

use std::collections::BTreeMap;
use std::io::{self, Write};

pub use self::interval::write_interval;
pub use self::text::write_text;

use super::folded::{self, frame_label};
use super::{Metric, View, terminal};
use crate::profile::Frame;
use crate::profile::goroutines::{CreationSite, Goroutines};

/// How goroutines are shown on standard output.
pub fn view(top: usize) -> View {
    terminal::fitted(View {
        metric: Metric::LiveCount,
        top,
        min_bytes: 0,
        width: None,
        colour: false,
    })
}

/// Folded stacks: `outermost;…;innermost COUNT`, one line per stack, stacks with the same names added up. The state of
/// the goroutines is the innermost.
///
/// # Errors
/// What `out` refused.
pub fn write_folded(goroutines: &Goroutines, out: &mut dyn Write) -> io::Result<()> {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for one in &goroutines.stacks {
        let state = Frame {
            function: Some(format!("[{}]", one.state)),
            ..Frame::default()
        };
        let mut stack = one.stack.clone();
        stack.frames.insert(0, state);
        *lines.entry(folded::fold_stack(&stack, frame_label)).or_default() += one.count;
    }
    for (stack, count) in lines {
        writeln!(out, "{stack} {count}")?;
    }
    Ok(())
}

/// Where a `go` statement is, in a few words: function, file and line.
fn creator(site: &CreationSite) -> String {
    let Some(frame) = site.created_by.first() else {
        return "the runtime".to_owned();
    };
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("  {file}:{line}"),
        _ => String::new(),
    };
    format!("{}{place}", super::label::frame_name(frame))
}

#[cfg(test)]
mod tests;
