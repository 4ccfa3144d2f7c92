//! The command line, as clap types only. What the flags mean is in `settings`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// See which call sites of a running process leak memory.
///
/// Attaches to an unmodified process through eBPF uprobes, keeps its outstanding allocations by stack, and reports
/// which call sites hold how much, and how fast they grow. The target needs no restart and runs on whatever happens
/// to leaktrace.
#[derive(Debug, Parser)]
#[command(
    name = "leaktrace",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What else leaktrace can do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of a trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Everything but a trace.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a saved profile in another format.
    Render(RenderArgs),
    /// Show what a trace of a process would do; attaches nothing and needs no root for processes of your own.
    Inspect(InspectArgs),
    /// Show the goroutines of a running Go process: how many, who made them, what they wait for, which become more.
    ///
    /// Reads the process's memory and places no probes; the process is never stopped.
    Goroutines(GoroutinesArgs),
    /// Trace a process and answer like Go's pprof endpoint: heap and allocs of any process, goroutines of a Go process.
    ///
    /// For `go tool pprof` and all that reads from such an endpoint, with a process that has none. Ends at Ctrl-C or with
    /// the process.
    Serve(ServeArgs),
    /// Print the man page (roff) or a shell's completions.
    #[command(hide = true)]
    Generate {
        /// What to print.
        what: Generate,
    },
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Process to look at.
    #[arg(short, long, value_name = "PID")]
    pub pid: u32,
    /// Format on standard output.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub format: PlainFormat,
}

/// A format of what is no profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlainFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What `generate` prints.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Generate {
    /// The man page.
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
}

/// Options of a trace.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Process to attach to.
    #[arg(short, long, value_name = "PID", conflicts_with = "program")]
    pub pid: Option<u32>,
    /// Stop after this long (30s, 5m); without it, at Ctrl-C or when the process ends.
    #[arg(short, long, value_name = "TIME")]
    pub duration: Option<String>,
    /// Time between the short reports.
    #[arg(short, long, value_name = "TIME", default_value = "10s")]
    pub interval: String,
    /// Most live blocks to keep; what comes beyond is counted as lost.
    #[arg(long, value_name = "N", default_value = "4194304")]
    pub max_live: String,
    /// Most different stacks to keep.
    #[arg(long, value_name = "N", default_value = "65536")]
    pub max_stacks: String,
    /// Set the rate of a Go program's own heap profile to one sample for N bytes while it is traced. Writes into the
    /// process: it costs it time, and stays set if leaktrace is killed (SIGKILL).
    #[arg(long, value_name = "N")]
    pub go_mem_profile_rate: Option<String>,
    /// Do not hold the command at its end: for programs that do not run under ptrace.
    #[arg(long, requires = "program", conflicts_with = "pid")]
    pub no_hold: bool,
    /// At the end, find out what holds the live objects of Go's heap: looks through a copy of it.
    #[arg(long)]
    pub reach: bool,
    /// How to attach, for when the best way of this kernel is not wanted.
    #[arg(long, value_name = "WAY", default_value = "auto", hide = true)]
    pub attach_with: AttachWay,
    /// Say more on standard error: how the probes were attached, how long each step took, and the kernel side's
    /// debug lines.
    #[arg(short, long)]
    pub verbose: bool,
    /// What is written, and where.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Command to start, and to trace from its first instruction to its end.
    #[arg(last = true, value_name = "CMD")]
    pub program: Vec<std::ffi::OsString>,
}

/// How probes are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttachWay {
    /// The best that this kernel has.
    #[default]
    Auto,
    /// One link, entry and return together (Linux 6.13).
    Session,
    /// One link for entries, one for returns (Linux 6.6).
    Multi,
    /// A perf event for each probe.
    Perf,
    /// For measuring: handlers that do nothing.
    #[value(hide = true)]
    Empty,
    /// For measuring: stacks alone, by the tables.
    #[value(hide = true)]
    Walk,
    /// For measuring: stacks alone, by the kernel's own helper.
    #[value(hide = true)]
    KernelWalk,
}

/// What a trace writes, and where.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// As for a saved profile.
    #[command(flatten)]
    pub report: ReportArgs,
    /// Leave blocks younger than this out of the sites.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub min_age: String,
}

/// Options of `render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// A profile saved as JSON; `-` reads standard input.
    pub file: PathBuf,
    /// What is written, and where.
    #[command(flatten)]
    pub output: ReportArgs,
}

/// Options of `goroutines`.
#[derive(Debug, Args)]
pub struct GoroutinesArgs {
    /// The Go process.
    #[arg(short, long, value_name = "PID")]
    pub pid: u32,
    /// Look again and again, and show which become more: until Ctrl-C, the end of the process, or --duration.
    #[arg(short, long)]
    pub watch: bool,
    /// Time between two looks; implies --watch [default: 5s].
    #[arg(short, long, value_name = "TIME")]
    pub interval: Option<String>,
    /// Stop after this long; implies --watch.
    #[arg(short, long, value_name = "TIME")]
    pub duration: Option<String>,
    /// Prove which goroutines wait for what nobody can give them any more: looks twice through a copy of the heap.
    #[arg(short, long)]
    pub leaks: bool,
    /// Format on standard output.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub format: GoroutinesFormat,
    /// How many of the `go` statements the text shows.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Say on standard error how long each look took.
    #[arg(short, long)]
    pub verbose: bool,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Process to attach to.
    #[arg(short, long, value_name = "PID")]
    pub pid: u32,
    /// Where to answer; port 0 takes any that is free. Whoever can reach the address can read the process's stacks.
    #[arg(short, long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6060")]
    pub listen: String,
    /// Leave blocks younger than this out of the profiles.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub min_age: String,
    /// Most live blocks to keep; what comes beyond is counted as lost.
    #[arg(long, value_name = "N", default_value = "4194304")]
    pub max_live: String,
    /// Most different stacks to keep.
    #[arg(long, value_name = "N", default_value = "65536")]
    pub max_stacks: String,
    /// How to attach, for when the best way of this kernel is not wanted.
    #[arg(long, value_name = "WAY", default_value = "auto", hide = true)]
    pub attach_with: AttachWay,
    /// Say more on standard error.
    #[arg(short, long)]
    pub verbose: bool,
}

/// A format for goroutines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GoroutinesFormat {
    /// For people.
    Text,
    /// All of it, as data.
    Json,
    /// Folded stacks, one line each, for flame graphs.
    Folded,
}

/// Which reports are written, and where.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Write a report to FILE; its ending chooses the format (.json .folded .svg .pb.gz .txt); may be repeated.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Format on standard output.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub format: FormatArg,
    /// What flame graphs and folded stacks show.
    #[arg(long, value_name = "METRIC", default_value = "live-bytes")]
    pub metric: MetricArg,
    /// How many sites the text shows.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// The text leaves out sites with fewer live bytes (64KiB).
    #[arg(long, value_name = "SIZE", default_value = "0")]
    pub min_bytes: String,
}

/// A format of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
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

/// What flame graphs and folded stacks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricArg {
    /// Bytes outstanding.
    LiveBytes,
    /// Blocks outstanding.
    LiveCount,
    /// Bytes allocated.
    AllocBytes,
    /// Blocks allocated.
    AllocCount,
}
