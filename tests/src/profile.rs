//! The saved profile as a reader from outside sees it: the fields of the contract, read from JSON.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::truth::Amounts;

/// A profile.
#[derive(Clone, Debug, Deserialize)]
pub struct Profile {
    /// `leaktrace.profile/1`.
    pub schema: String,
    /// What was traced.
    pub target: Target,
    /// When.
    pub window: Window,
    /// Totals.
    pub accounting: Accounting,
    /// Sites.
    pub sites: Vec<Site>,
    /// Totals over time.
    pub timeline: Vec<Value>,
    /// What is known of a Go program.
    #[serde(default)]
    pub go: Value,
}

/// What was traced.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// Process ids.
    pub pids: Vec<u32>,
    /// The command line.
    pub command: String,
    /// The executable.
    pub exe: String,
    /// `c`, `c++` and so on.
    pub language: String,
    /// Allocators traced.
    pub allocators: Vec<String>,
    /// How it ended: `{"status": 0}`, `{"signal": 9}` or `"ended"`.
    #[serde(default)]
    pub exit: Value,
}

/// When.
#[derive(Clone, Debug, Deserialize)]
pub struct Window {
    /// Nanoseconds since 1970.
    pub start_unix_ns: u64,
    /// Nanoseconds since 1970.
    pub end_unix_ns: u64,
    /// Nanoseconds.
    pub duration_ns: u64,
}

/// Totals.
#[derive(Clone, Debug, Deserialize)]
pub struct Accounting {
    /// Blocks allocated.
    pub allocations: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Bytes outstanding.
    pub live_bytes: u64,
    /// Blocks outstanding.
    pub live_count: u64,
    /// 1 when every allocation is seen.
    pub sample_bytes: u64,
    /// What was lost.
    pub lost: BTreeMap<String, u64>,
    /// What was counted and is no loss.
    #[serde(default)]
    pub notes: BTreeMap<String, u64>,
    /// Whether nothing was lost.
    pub complete: bool,
}

/// One stack that allocates.
#[derive(Clone, Debug, Deserialize)]
pub struct Site {
    /// Stable within a profile.
    pub id: String,
    /// Bytes and blocks.
    #[serde(flatten)]
    pub amounts: Amounts,
    /// What leaktrace concludes.
    pub verdict: String,
    /// Why.
    pub why: String,
    /// Half the width of the interval in which the truth lies in nine cases of ten, relative to the number.
    #[serde(default)]
    pub estimate_error: Option<f64>,
    /// `go`; nothing for the heap of a native allocator.
    #[serde(default)]
    pub heap: Option<String>,
    /// What else there is to say of a site of Go's heap.
    #[serde(default)]
    pub go: Value,
    /// What was found to hold its blocks, the most first.
    #[serde(default)]
    pub holders: Vec<Value>,
    /// Where.
    pub stack: Stack,
}

/// A stack, innermost frame first.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    /// Whether it was unwound to its end.
    pub whole: bool,
    /// How it ended: `whole`, `too_deep`, `unsettled` and so on.
    #[serde(default)]
    pub end: String,
    /// Frames.
    pub frames: Vec<Frame>,
}

/// A frame.
#[derive(Clone, Debug, Deserialize)]
pub struct Frame {
    /// Address in the process.
    pub address: u64,
    /// Path of the module.
    pub module: String,
    /// Its build id.
    pub build_id: Option<String>,
    /// Name of the function.
    pub function: Option<String>,
    /// Source file.
    #[serde(default)]
    pub file: Option<String>,
    /// Source line.
    #[serde(default)]
    pub line: Option<u32>,
    /// Whether this call was inlined into the next frame.
    pub inlined: bool,
}

impl Profile {
    /// Reads a profile from text.
    pub fn parse(text: &str) -> Result<Self> {
        let profile: Self = serde_json::from_str(text).with_context(|| format!("this is no profile: {text:.300}"))?;
        ensure!(profile.schema == "leaktrace.profile/1", "schema {:?}", profile.schema);
        Ok(profile)
    }

    /// Reads a profile from a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("no profile in {}", path.display()))?;
        Self::parse(&text)
    }

    /// The share of all allocations whose stacks are whole.
    pub fn whole_share(&self) -> f64 {
        let count =
            |sites: &mut dyn Iterator<Item = &Site>| sites.map(|site| site.amounts.allocated_count).sum::<u64>();
        let whole = count(&mut self.sites.iter().filter(|site| site.stack.whole));
        whole as f64 / count(&mut self.sites.iter()).max(1) as f64
    }

    /// The sum of all sites whose innermost function is `function`.
    pub fn of_function(&self, function: &str) -> Amounts {
        let mut sum = Amounts::default();
        for site in self.sites_of(function) {
            sum += site.amounts;
        }
        sum
    }

    /// The sites whose innermost function is `function`.
    pub fn sites_of(&self, function: &str) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(move |site| site.function() == function)
    }
}

impl Site {
    /// The innermost function, without its parameters; empty when it has no name.
    pub fn function(&self) -> &str {
        self.stack.frames.first().map_or("", Frame::name)
    }

    /// The file name of the module of the innermost frame.
    pub fn module(&self) -> &str {
        let module = self.stack.frames.first().map_or("", |frame| &frame.module);
        module.rsplit('/').next().unwrap_or(module)
    }
}

impl Stack {
    /// Its addresses, innermost first: one for each call that was not inlined.
    pub fn addresses(&self) -> Vec<u64> {
        let called = self.frames.iter().filter(|frame| !frame.inlined);
        called.map(|frame| frame.address).collect()
    }
}

impl Frame {
    /// Its function, without parameters; empty when it has no name.
    pub fn name(&self) -> &str {
        let name = self.function.as_deref().unwrap_or("");
        name.split_once('(').map_or(name, |(before, _)| before)
    }
}
