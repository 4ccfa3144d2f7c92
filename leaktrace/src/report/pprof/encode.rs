//! From rows of stacks and values to the messages of pprof, whatever is counted. Pure.

use std::io::{self, Write};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::locations::Locations;
use super::mappings::Mappings;
use super::proto;
use super::table::Table;
use crate::profile::{Stack, TargetInfo, Tool, Window};
use crate::report::label;

/// A kind of value and its unit.
pub(crate) type Kind = (&'static str, &'static str);

/// What is written.
pub(crate) struct Sheet<'a> {
    /// The kinds of values that each row has.
    pub kinds: &'a [Kind],
    /// The one to be shown first; none where there is only one.
    pub default: Option<&'static str>,
    /// What is counted, and how much of it is one sample.
    pub period: (Kind, u64),
    /// Who wrote it.
    pub tool: &'a Tool,
    /// Of what.
    pub target: &'a TargetInfo,
    /// When.
    pub window: Window,
    /// What else is to be said.
    pub notes: Vec<String>,
    /// The stacks.
    pub rows: Vec<Row<'a>>,
}

/// A stack, and what was counted there.
pub(crate) struct Row<'a> {
    /// Where.
    pub stack: &'a Stack,
    /// One for each kind; less than nothing in a difference.
    pub values: Vec<i64>,
    /// Name and text of what else is known.
    pub labels: Vec<(&'static str, &'a str)>,
}

impl Sheet<'_> {
    /// Writes it, compressed.
    pub(crate) fn write(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let encoded = self.encode()?.encode_to_vec();
        compressed(&encoded, out)?;
        Ok(())
    }

    /// The message.
    pub(super) fn encode(&self) -> anyhow::Result<proto::Profile> {
        let mut strings = Table::new(String::new());
        let sample_type = self.kinds.iter().map(|kind| value_type(&mut strings, *kind)).collect();
        let default_sample_type = self.default.map_or(0, |name| strings.index(name.to_owned()) as i64);
        let mappings = Mappings::of(self.target, self.rows.iter().map(|row| row.stack));
        let mut locations = Locations::new(&mappings, &mut strings);
        let stacks: Vec<Vec<u64>> = self.rows.iter().map(|row| locations.of_stack(row.stack)).collect();
        let (location, function) = locations.finish();
        let rows = self.rows.iter().zip(stacks);
        Ok(proto::Profile {
            sample_type,
            sample: rows.map(|(row, stack)| row.sample(stack, &mut strings)).collect(),
            mapping: mappings.messages(&mut strings),
            location,
            function,
            time_nanos: signed(self.window.start_unix_ns)?,
            duration_nanos: signed(self.window.duration_ns)?,
            period_type: Some(value_type(&mut strings, self.period.0)),
            period: signed(self.period.1)?,
            comment: self.comments(&mut strings),
            default_sample_type,
            string_table: strings.into_values(),
        })
    }

    /// What pprof has no field for.
    fn comments(&self, strings: &mut Table<String>) -> Vec<i64> {
        let (tool, target) = (self.tool, self.target);
        let own = [
            format!("{} {}", tool.name, tool.version),
            format!("{} on {}, {}", target.command, target.host, target.kernel),
        ];
        let all = own.iter().chain(&self.notes);
        all.map(|comment| strings.index(label::one_line(comment).into_owned()) as i64)
            .collect()
    }
}

impl Row<'_> {
    fn sample(&self, location_id: Vec<u64>, strings: &mut Table<String>) -> proto::Sample {
        let label = |(key, text): &(&'static str, &str)| proto::Label {
            key: strings.index((*key).to_owned()) as i64,
            str: strings.index(label::one_line(text).into_owned()) as i64,
        };
        proto::Sample {
            location_id,
            value: self.values.clone(),
            label: self.labels.iter().map(label).collect(),
        }
    }
}

fn value_type(strings: &mut Table<String>, (name, unit): Kind) -> proto::ValueType {
    proto::ValueType {
        r#type: strings.index(name.to_owned()) as i64,
        unit: strings.index(unit.to_owned()) as i64,
    }
}

fn compressed(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut out = GzEncoder::new(out, Compression::default());
    out.write_all(bytes)?;
    out.finish()?.flush()
}

/// A number as pprof holds it.
pub(crate) fn signed(value: u64) -> anyhow::Result<i64> {
    i64::try_from(value).context("a number is too large for pprof; the profile cannot be true")
}
