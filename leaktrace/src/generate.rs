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
        Generate::Man => clap_mangen::Man::new(Cli::command()).render(&mut text)?,
        Generate::Bash => complete(Shell::Bash, &mut text),
        Generate::Zsh => complete(Shell::Zsh, &mut text),
        Generate::Fish => complete(Shell::Fish, &mut text),
    }
    io::stdout().write_all(&text).context("cannot write to standard output")
}

fn complete(shell: Shell, text: &mut Vec<u8>) {
    clap_complete::generate(shell, &mut Cli::command(), "leaktrace", text);
}
