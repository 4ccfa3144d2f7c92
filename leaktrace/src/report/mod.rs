//! Reports: one profile written in one of several formats, each in its own file behind [`Report`].
//!
//! Works on a [`Profile`] only, so that a saved one can do all that a live one can. [`output`] is the only file here
//! that opens files; [`terminal`] the only one that looks at the terminal and its environment.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use crate::cli::{FormatArg, MetricArg};
use crate::profile::{Profile, Site};

mod folded;
pub mod goroutines;
mod interval;
mod json;
mod label;
pub mod output;
pub mod pprof;
mod records;
mod render;
mod svg;
pub mod terminal;
mod text;
pub(crate) mod wrap;

pub use self::interval::write_interval;
pub(crate) use self::label::one_line;
pub use self::output::{check_writable, write_reports};
pub use self::render::render;

/// One format of reports.
pub trait Report: Sync {
    /// Writes `profile` as `view` asks.
    ///
    /// # Errors
    /// What `out` refused, as a [`std::io::Error`] in the chain; or what the format cannot hold.
    fn write(&self, profile: &Profile, view: &View, out: &mut dyn Write) -> anyhow::Result<()>;
}

/// Which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// The saved profile.
    Json,
    /// Folded stacks, one line each.
    Folded,
    /// A flame graph.
    Svg,
    /// Gzipped pprof.
    Pprof,
}

/// The report in `format`.
pub fn report(format: Format) -> &'static dyn Report {
    match format {
        Format::Text => &text::TextReport,
        Format::Json => &json::JsonReport,
        Format::Folded => &folded::FoldedReport,
        Format::Svg => &svg::SvgReport,
        Format::Pprof => &pprof::PprofReport,
    }
}

impl Format {
    /// The format that a file's ending asks for.
    ///
    /// # Errors
    /// One line that names the endings there are.
    pub fn from_path(path: &Path) -> Result<Self, String> {
        let name = path
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or_default()
            .to_ascii_lowercase();
        let endings = [
            (".txt", Self::Text),
            (".json", Self::Json),
            (".folded", Self::Folded),
            (".svg", Self::Svg),
            (".pb.gz", Self::Pprof),
            (".pprof", Self::Pprof),
            (".pb", Self::Pprof),
        ];
        endings
            .into_iter()
            .find(|(ending, _)| name.ends_with(ending))
            .map(|(_, format)| format)
            .ok_or_else(|| {
                format!(
                    "the name `{}` does not say which format to write; end it in .txt, .json, .folded, .svg or .pb.gz",
                    path.display()
                )
            })
    }
}

impl From<FormatArg> for Format {
    fn from(arg: FormatArg) -> Self {
        match arg {
            FormatArg::Text => Self::Text,
            FormatArg::Json => Self::Json,
            FormatArg::Folded => Self::Folded,
            FormatArg::Svg => Self::Svg,
            FormatArg::Pprof => Self::Pprof,
        }
    }
}

/// What folded stacks and flame graphs show of each site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// Bytes outstanding.
    #[default]
    LiveBytes,
    /// Blocks outstanding.
    LiveCount,
    /// Bytes allocated in the window.
    AllocBytes,
    /// Blocks allocated in the window.
    AllocCount,
}

impl Metric {
    /// Its value for a site.
    pub fn of(self, site: &Site) -> u64 {
        match self {
            Self::LiveBytes => site.live_bytes,
            Self::LiveCount => site.live_count,
            Self::AllocBytes => site.allocated_bytes,
            Self::AllocCount => site.allocated_count,
        }
    }

    /// What it is called: `live bytes`.
    pub fn name(self) -> &'static str {
        match self {
            Self::LiveBytes => "live bytes",
            Self::LiveCount => "live blocks",
            Self::AllocBytes => "allocated bytes",
            Self::AllocCount => "allocated blocks",
        }
    }

    /// What is counted: `bytes` or `blocks`.
    pub fn unit(self) -> &'static str {
        match self {
            Self::LiveBytes | Self::AllocBytes => "bytes",
            Self::LiveCount | Self::AllocCount => "blocks",
        }
    }
}

impl From<MetricArg> for Metric {
    fn from(arg: MetricArg) -> Self {
        match arg {
            MetricArg::LiveBytes => Self::LiveBytes,
            MetricArg::LiveCount => Self::LiveCount,
            MetricArg::AllocBytes => Self::AllocBytes,
            MetricArg::AllocCount => Self::AllocCount,
        }
    }
}

/// How a profile is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// What folded stacks and flame graphs show.
    pub metric: Metric,
    /// Most sites that the text shows.
    pub top: usize,
    /// The text leaves out sites with fewer live bytes.
    pub min_bytes: u64,
    /// Columns of the terminal; `None` when there is none, and everything is kept whole.
    pub width: Option<usize>,
    /// Whether the text is coloured.
    pub colour: bool,
}

impl Default for View {
    fn default() -> Self {
        Self {
            metric: Metric::default(),
            top: 10,
            min_bytes: 0,
            width: None,
            colour: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_choose_formats() {
        for (name, format) in [
            ("a.txt", Format::Text),
            ("a.b.JSON", Format::Json),
            ("/tmp/x.folded", Format::Folded),
            ("x.svg", Format::Svg),
            ("x.pb.gz", Format::Pprof),
            ("x.pprof", Format::Pprof),
            ("x.pb", Format::Pprof),
        ] {
            assert_eq!(Format::from_path(Path::new(name)), Ok(format), "{name}");
        }
        for name in ["x", "x.gz", "json", ".", "x.html"] {
            assert!(Format::from_path(Path::new(name)).expect_err(name).contains(".pb.gz"));
        }
    }
}
