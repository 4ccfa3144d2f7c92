//! `leaktrace render`: a saved profile in another format.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::anyhow;

use super::output::{check_writable, plain_view, why, write_reports};
use crate::cli::RenderArgs;
use crate::profile::{self, Profile, ReadError};

/// Reads the profile that `args` name and writes the reports that they ask for.
///
/// # Errors
/// One line: what, why, what to do.
pub fn render(args: &RenderArgs) -> anyhow::Result<()> {
    plain_view(&args.output)?;
    args.output.output.iter().try_for_each(|path| check_writable(path))?;
    write_reports(&read(&args.file)?, &args.output)
}

fn read(path: &Path) -> anyhow::Result<Profile> {
    let (name, read) = if path == Path::new("-") {
        ("standard input".to_owned(), profile::read(io::stdin().lock()))
    } else {
        let opened = File::open(path).map_err(ReadError::Io);
        (path.display().to_string(), opened.and_then(profile::read))
    };
    read.map_err(|error| match error {
        ReadError::Io(error) => {
            anyhow!(
                "cannot read {name}: {}; name a profile saved with --output FILE.json",
                why(&error)
            )
        }
        other => anyhow!("cannot read {name}: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::profile::fixture;

    fn run(words: &[&str]) -> Result<(), String> {
        let cli = Cli::try_parse_from(["leaktrace", "render"].iter().chain(words)).expect("parses");
        let Some(Command::Render(args)) = cli.command else {
            panic!("not render")
        };
        render(&args).map_err(|error| format!("{error:#}"))
    }

    fn saved(folder: &Path) -> PathBuf {
        let path = folder.join("saved.json");
        fs::write(&path, serde_json::to_vec(&fixture::profile()).expect("JSON")).expect("writes");
        path
    }

    #[test]
    fn a_saved_profile_is_written_in_every_format_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = saved(folder.path());
        let [picture, stacks] = ["out.svg", "out.folded"].map(|name| folder.path().join(name).display().to_string());
        run(&[
            &file.display().to_string(),
            "-o",
            &picture,
            "-o",
            &stacks,
            "--metric",
            "alloc-count",
        ])
        .expect("renders");
        assert!(
            fs::read_to_string(picture)
                .expect("a file")
                .contains("allocated blocks")
        );
        assert!(
            fs::read_to_string(stacks)
                .expect("a file")
                .contains("orders::reply(int) 1214000\n")
        );
    }

    #[test]
    fn failures_are_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = saved(folder.path()).display().to_string();
        let missing = run(&["/none.json"]).expect_err("missing");
        assert_eq!(
            missing,
            "cannot read /none.json: No such file or directory; name a profile saved with --output FILE.json"
        );
        assert!(
            run(&[&file, "--min-bytes", "lots"])
                .expect_err("a size")
                .starts_with("--min-bytes: `lots` is not a size")
        );
        assert!(
            run(&[&file, "-o", "/none/a.svg"])
                .expect_err("no folder")
                .starts_with("cannot write /none/a.svg")
        );
        let text = folder.path().join("text.json");
        fs::write(&text, "hello").expect("writes");
        assert!(
            run(&[&text.display().to_string()])
                .expect_err("text")
                .contains("not a leaktrace profile")
        );
    }
}
