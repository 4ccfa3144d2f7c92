//! The man page and shell completions, made from the command line's own definitions.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Cli, Generate};

/// Prints what is asked for to standard output.
pub fn generate(what: Generate) -> anyhow::Result<()> {
    // By way of memory: the generators take a failed write for a fault of their own.
    let mut text = Vec::new();
    match what {
        Generate::Man => man(&mut text)?,
        Generate::Bash => complete(Shell::Bash, &mut text),
        Generate::Zsh => complete(Shell::Zsh, &mut text),
        Generate::Fish => complete(Shell::Fish, &mut text),
    }
    io::stdout().write_all(&text).context("cannot write to standard output")
}

/// The man page, with what the command line's definitions do not tell.
fn man(text: &mut Vec<u8>) -> io::Result<()> {
    clap_mangen::Man::new(Cli::command()).render(text)?;
    text.extend_from_slice(MORE.as_bytes());
    Ok(())
}

/// Sections at the end of the man page (roff).
const MORE: &str = r#".SH "EXIT STATUS"
.TP
\fB0\fR
Done.
.TP
\fB1\fR
It could not be done: one line on standard error says what, why and what to do.
.TP
\fB2\fR
Wrong usage.
.PP
The exit status of a command that leaktrace launches is in the report, and does not change leaktrace's own.
.SH EXAMPLES
.TP
Trace a running process until Ctrl\-C:
\fBsudo leaktrace \-\-pid 4711\fR
.TP
For five minutes, with a flame graph and a profile to keep:
\fBsudo leaktrace \-\-pid 4711 \-\-duration 5m \-o leaks.svg \-o leaks.json\fR
.TP
A command from its first instruction to its end:
\fBsudo leaktrace \-\- ./server \-\-port 8080\fR
.TP
What a trace would do, with nothing attached:
\fBleaktrace inspect \-\-pid 4711\fR
.TP
Answer like Go's pprof endpoint, for a process that has none:
\fBsudo leaktrace serve \-\-pid 4711\fR, then \fBgo tool pprof http://127.0.0.1:6060/debug/pprof/heap\fR
.TP
A saved profile, later and elsewhere:
\fBleaktrace render leaks.json \-\-metric alloc\-bytes \-o allocated.svg\fR
"#;

fn complete(shell: Shell, text: &mut Vec<u8>) {
    clap_complete::generate(shell, &mut Cli::command(), "leaktrace", text);
}
