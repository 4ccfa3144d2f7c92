//! The text report: what an engineer reads in an incident. First the sentence that matters, then the sites, then the
//! accounting on one line.

use std::io::Write;

use super::{Report, View, wrap::wrapped};
use crate::profile::Profile;

mod accounting;
mod golang;
mod headline;
pub(super) mod paint;
mod runtime;
mod sites;
pub(super) mod stack;
mod target;

pub(super) struct TextReport;

impl Report for TextReport {
    fn write(&self, profile: &Profile, view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
        let paint = paint::Paint(view.colour);
        writeln!(out, "{}", paint.bold(&headline::headline(profile)))?;
        for caution in headline::cautions(profile) {
            writeln!(out, "{}", paint.warn(&caution))?;
        }
        writeln!(out, "{}", paint.faint(&target::line(profile)))?;
        sites::write(profile, view, out)?;
        runtime::write(profile, view, out)?;
        writeln!(out)?;
        wrapped(&accounting::line(profile), width(view), "  ")
            .iter()
            .try_for_each(|line| writeln!(out, "{line}"))?;
        Ok(())
    }
}

/// Columns of what is wrapped: also without a terminal, as people read that too.
fn width(view: &View) -> usize {
    view.width.unwrap_or(USUAL_WIDTH)
}

/// Columns where nothing is known of the terminal.
const USUAL_WIDTH: usize = 80;

#[cfg(test)]
mod tests;
