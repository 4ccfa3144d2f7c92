//! pprof: gzipped `profile.proto`, for `go tool pprof` and the many tools that read the same.

use std::io::Write;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::{Report, View, label};
use crate::profile::{Profile, Site};

mod locations;
mod mappings;
mod proto;
mod table;

use self::locations::Locations;
use self::mappings::Mappings;
use self::table::Table;

pub(super) struct PprofReport;

impl Report for PprofReport {
    fn write(&self, profile: &Profile, _view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
        let encoded = encode(profile)?.encode_to_vec();
        let mut out = GzEncoder::new(out, Compression::default());
        out.write_all(&encoded)?;
        out.finish()?.flush()?;
        Ok(())
    }
}

fn encode(profile: &Profile) -> anyhow::Result<proto::Profile> {
    let mut strings = Table::new(String::new());
    let sample_type = sample_types(&mut strings);
    let default_sample_type = strings.index("inuse_space".to_owned()) as i64;
    let mappings = Mappings::of(profile);
    let mut locations = Locations::new(&mappings, &mut strings);
    let mut sample = profile
        .sites
        .iter()
        .map(|site| sample(site, locations.of_stack(&site.stack)))
        .collect::<Result<Vec<_>, _>>()?;
    let (location, function) = locations.finish();
    for (sample, site) in sample.iter_mut().zip(&profile.sites) {
        sample.label = ending(site, &mut strings).into_iter().collect();
    }
    Ok(proto::Profile {
        sample_type,
        sample,
        mapping: mappings.messages(&mut strings),
        location,
        function,
        time_nanos: signed(profile.window.start_unix_ns)?,
        duration_nanos: signed(profile.window.duration_ns)?,
        period_type: Some(value_type(&mut strings, "space", "bytes")),
        period: signed(profile.accounting.sample_bytes)?,
        comment: comments(profile)
            .into_iter()
            .map(|text| strings.index(text) as i64)
            .collect(),
        default_sample_type,
        string_table: strings.into_values(),
    })
}

fn sample_types(strings: &mut Table<String>) -> Vec<proto::ValueType> {
    [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ]
    .map(|(name, unit)| value_type(strings, name, unit))
    .to_vec()
}

fn value_type(strings: &mut Table<String>, name: &str, unit: &str) -> proto::ValueType {
    proto::ValueType {
        r#type: strings.index(name.to_owned()) as i64,
        unit: strings.index(unit.to_owned()) as i64,
    }
}

/// Values in the order of [`sample_types`].
fn sample(site: &Site, location_id: Vec<u64>) -> anyhow::Result<proto::Sample> {
    let values = [
        site.allocated_count,
        site.allocated_bytes,
        site.live_count,
        site.live_bytes,
    ];
    Ok(proto::Sample {
        location_id,
        value: values.into_iter().map(signed).collect::<Result<_, _>>()?,
        label: Vec::new(),
    })
}

/// How a stack that is not whole ended, as in a saved profile.
fn ending(site: &Site, strings: &mut Table<String>) -> Option<proto::Label> {
    (!site.stack.whole).then(|| proto::Label {
        key: strings.index("stack_end".to_owned()) as i64,
        str: strings.index(site.stack.ending().word().to_owned()) as i64,
    })
}

fn signed(value: u64) -> anyhow::Result<i64> {
    i64::try_from(value).context("a number is too large for pprof; the profile cannot be true")
}

/// What pprof has no field for.
fn comments(profile: &Profile) -> Vec<String> {
    let target = &profile.target;
    let mut comments = vec![
        format!("{} {}", profile.tool.name, profile.tool.version),
        format!("{} on {}, {}", target.command, target.host, target.kernel),
    ];
    comments.extend(
        profile
            .accounting
            .lost
            .iter()
            .map(|(reason, count)| format!("lost: {reason} {count}")),
    );
    comments
        .iter()
        .map(|comment| label::one_line(comment).into_owned())
        .collect()
}

#[cfg(test)]
mod tests;
