//! The man page and shell completions, made from the command line's own definitions.

use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Cli, Generate};

/// Prints what is asked for to standard output.
pub fn generate(what: Generate) -> anyhow::Result<()> {
    match what {
        Generate::Man => clap_mangen::Man::new(Cli::command()).render(&mut io::stdout())?,
        Generate::Bash => complete(Shell::Bash),
        Generate::Zsh => complete(Shell::Zsh),
        Generate::Fish => complete(Shell::Fish),
    }
    Ok(())
}

fn complete(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "leaktrace", &mut io::stdout());
}
