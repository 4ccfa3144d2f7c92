//! What the terminal on standard output is like. The only place of the reports that looks at the environment.

use std::env;
use std::io::{self, IsTerminal};

use terminal_size::{Width, terminal_size_of};

use super::View;

/// Columns below which fitting would leave nothing of a name.
const LEAST_WIDTH: usize = 40;

/// `view` fitted to standard output: its width and colours if it is a terminal, unchanged if not.
pub fn fitted(view: View) -> View {
    View {
        width: width(),
        colour: colour(),
        ..view
    }
}

/// Columns of the terminal on standard output; `None` when it is not one.
pub fn width() -> Option<usize> {
    let stdout = io::stdout();
    let (Width(columns), _) = stdout.is_terminal().then(|| terminal_size_of(&stdout))??;
    Some(usize::from(columns).max(LEAST_WIDTH))
}

/// Whether standard output is a terminal that colours are wanted on: `NO_COLOR` is not set, `TERM` not `dumb`.
pub fn colour() -> bool {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !refused && env::var_os("TERM").is_none_or(|term| term != "dumb")
}
