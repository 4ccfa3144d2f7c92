//! Goroutines, for people and for other tools. Pure but for [`view`], which looks at the terminal.

mod counts;
mod interval;
mod pprof;
mod stacks;
mod text;
mod traces;

use std::collections::BTreeMap;
use std::io::{self, Write};

pub use self::counts::write_counts;
pub use self::interval::write_interval;
pub use self::pprof::{Profiled, write_pprof};
pub use self::text::write_text;
pub use self::traces::write_traces;

use super::folded::{self, frame_label};
use super::{Metric, View, terminal};
use crate::profile::Frame;
use crate::profile::goroutines::{CreationSite, GoroutineStack, Goroutines};

/// Which goroutines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those that are proven to wait for ever.
    Leaked,
}

impl Which {
    /// The name of Go's profile of them.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "goroutine",
            Self::Leaked => "goroutineleak",
        }
    }

    /// How many of a stack's.
    fn of(self, one: &GoroutineStack) -> u64 {
        match self {
            Self::All => one.count,
            Self::Leaked => one.leaked,
        }
    }
}

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
