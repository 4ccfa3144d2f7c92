//! Profiles as `go tool pprof` reads them.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::child::run;

/// A profile.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// Names and units of the values: `inuse_space/bytes`.
    pub kinds: Vec<String>,
    /// The one that is shown first, if one is named.
    pub default: Option<String>,
    /// Samples.
    pub samples: Vec<Sample>,
}

/// A sample.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// One value for each kind.
    pub values: Vec<i64>,
    /// Functions, innermost first.
    pub functions: Vec<String>,
    /// Its labels, as they are printed.
    pub labels: String,
}

/// Runs `go tool pprof` with these options, and gives what it prints.
pub fn tool(options: &[&str]) -> Result<String> {
    let home = tempfile::tempdir()?;
    let mut command = Command::new("go");
    command.args(["tool", "pprof"]).args(options);
    // Neither profiles nor settings of the user.
    command.env("HOME", home.path()).env("PPROF_TMPDIR", home.path());
    let ended = run(&mut command)?;
    ensure!(ended.status.success(), "go tool pprof {options:?}: {:?}", ended.err);
    Ok(ended.out.join("\n"))
}

/// Reads a profile from a file or an address.
pub fn read(from: &str) -> Result<Raw> {
    let text = tool(&["-raw", from])?;
    parse(&text).with_context(|| format!("this is no profile: {text:.2000}"))
}

impl Raw {
    /// The values of all samples together, by innermost function.
    pub fn by_function(&self) -> BTreeMap<String, Vec<i64>> {
        let mut sums: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for sample in &self.samples {
            let name = sample.functions.first().cloned().unwrap_or_default();
            let sum = sums.entry(name).or_insert_with(|| vec![0; sample.values.len()]);
            sum.iter_mut()
                .zip(&sample.values)
                .for_each(|(sum, value)| *sum += value);
        }
        sums
    }
}

/// `10 1045: 1 2 3`, then perhaps `state:[select]`, below `Samples:`; `3: 0x47f4ea M=1 main.f /m.go:7 s=0` below
/// `Locations`, with more lines for what is inlined there.
fn parse(text: &str) -> Option<Raw> {
    let (_, rest) = text.split_once("Samples:\n")?;
    let (samples, rest) = rest.split_once("Locations\n")?;
    let (locations, _) = rest.split_once("Mappings\n")?;
    let functions = functions(locations);
    let mut lines = samples.lines();
    let mut raw = Raw::default();
    for kind in lines.next()?.split_whitespace() {
        let name = kind.trim_end_matches("[dflt]");
        if name != kind {
            raw.default = Some(name.to_owned());
        }
        raw.kinds.push(name.to_owned());
    }
    for line in lines {
        let values = line.split_once(": ").and_then(|(values, ids)| {
            let values: Option<Vec<i64>> = values.split_whitespace().map(|value| value.parse().ok()).collect();
            Some((values?, ids))
        });
        match values {
            Some((values, ids)) => raw.samples.push(Sample {
                values,
                functions: ids
                    .split_whitespace()
                    .filter_map(|id| functions.get(id))
                    .flatten()
                    .cloned()
                    .collect(),
                labels: String::new(),
            }),
            None => raw.samples.last_mut()?.labels.push_str(line.trim()),
        }
    }
    Some(raw)
}

fn functions(locations: &str) -> BTreeMap<&str, Vec<String>> {
    let mut functions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut last = "";
    for line in locations.lines() {
        let mut words = line.trim();
        if let Some((id, rest)) = words.split_once(": 0x") {
            last = id;
            words = rest.split_once(' ').map_or("", |(_, rest)| rest);
            if words.starts_with("M=") {
                words = words.split_once(' ').map_or("", |(_, rest)| rest);
            }
        }
        // The name, then file and line, then the line where the function begins.
        let name = words.rsplitn(3, ' ').nth(2).unwrap_or_default();
        functions
            .entry(last)
            .or_default()
            .extend((!name.is_empty()).then(|| name.to_owned()));
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_prints() {
        let text = "PeriodType: space bytes\nSamples:\ninuse_objects/count inuse_space/bytes[dflt]\n\
                    \x20        10       1045: 1 2 \n                state:[chan receive]\n         -1         -8: 2 \n\
                    Locations\n     1: 0x55c16ecd821e M=1 kept /m.c:4 s=0()\n             main /m.c:9 s=0()\n     \
                    2: 0x1 [running] :0 s=0()\nMappings\n1: 0x1/0x2/0x0 /m\n";
        let raw = parse(text).unwrap();
        assert_eq!(raw.kinds, ["inuse_objects/count", "inuse_space/bytes"]);
        assert_eq!(raw.default.as_deref(), Some("inuse_space/bytes"));
        assert_eq!(raw.samples[0].functions, ["kept", "main", "[running]"]);
        assert_eq!(raw.samples[0].labels, "state:[chan receive]");
        assert_eq!(raw.by_function()["[running]"], [-1, -8]);
        assert!(parse("").is_none());
    }
}
