//! A saved profile read back. What comes in is anybody's: nothing in it is trusted to be small, sane or complete.

use std::io::Read;

use serde::Deserialize;

use super::{Profile, SCHEMA, Site};

/// Why a profile could not be read. Each reads as the second half of a sentence: "cannot read FILE: …".
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes did not come.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// There were none.
    #[error("it is empty; save a profile with `--output FILE.json`")]
    Empty,
    /// It ends in the middle.
    #[error("it ends in the middle (line {line}); it was cut short: save or copy it again")]
    Truncated {
        /// Where.
        line: usize,
    },
    /// It is not JSON, or JSON of another kind.
    #[error("not a leaktrace profile: {0}; save one with `--output FILE.json`")]
    Malformed(String),
    /// Another schema.
    #[error("its schema is `{0}`, and this leaktrace reads `{SCHEMA}`; use the leaktrace that wrote it")]
    Schema(String),
    /// Numbers that no process can reach.
    #[error("its numbers cannot be true: {0}; save or copy it again")]
    Implausible(String),
}

/// Reads a profile from JSON. Unknown fields are passed over: newer versions add some.
pub fn read(reader: impl Read) -> Result<Profile, ReadError> {
    let mut text = Vec::new();
    let mut reader = reader.take(MOST_BYTES);
    // A first look, so that what is no JSON at all is not read to its end, if it has one.
    reader.by_ref().take(FIRST_LOOK).read_to_end(&mut text)?;
    if text
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .is_none_or(|byte| *byte == b'{')
    {
        reader.read_to_end(&mut text)?;
    }
    if text.trim_ascii().is_empty() {
        return Err(ReadError::Empty);
    }
    check_schema(&text)?;
    let profile: Profile = serde_json::from_slice(&text).map_err(|error| refused(&error))?;
    check_numbers(&profile)?;
    Ok(profile)
}

/// Most bytes of a saved profile.
const MOST_BYTES: u64 = 1 << 30;
/// Bytes of the first look at one.
const FIRST_LOOK: u64 = 4096;

#[derive(Deserialize)]
struct Head {
    schema: Option<String>,
}

/// First, so that another version's profile is called that, and not malformed.
fn check_schema(text: &[u8]) -> Result<(), ReadError> {
    let head: Head = serde_json::from_slice(text).map_err(|error| refused(&error))?;
    match head.schema {
        Some(schema) if schema == SCHEMA => Ok(()),
        Some(schema) => Err(ReadError::Schema(
            schema.chars().filter(|c| !c.is_control()).take(60).collect(),
        )),
        None => Err(ReadError::Malformed("it has no `schema`".to_owned())),
    }
}

fn refused(error: &serde_json::Error) -> ReadError {
    if error.is_eof() {
        return ReadError::Truncated { line: error.line() };
    }
    // What it quotes from the file may hold anything.
    ReadError::Malformed(
        error
            .to_string()
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect(),
    )
}

/// Every reader of a profile may add up its sites, and hold each number in a signed 64-bit one.
fn check_numbers(profile: &Profile) -> Result<(), ReadError> {
    let total = |name: &str, of: fn(&Site) -> u64| {
        let sum: u128 = profile.sites.iter().map(|site| u128::from(of(site))).sum();
        within(&format!("the {name} of all sites are"), sum)
    };
    total("live_bytes", |site| site.live_bytes)?;
    total("live_count", |site| site.live_count)?;
    total("allocated_bytes", |site| site.allocated_bytes)?;
    total("allocated_count", |site| site.allocated_count)?;
    let window = profile.window;
    for ns in [window.start_unix_ns, window.end_unix_ns, window.duration_ns] {
        within("a time of the window is", ns.into())?;
    }
    let accounting = &profile.accounting;
    for value in [
        accounting.live_bytes,
        accounting.allocated_bytes,
        accounting.freed_bytes,
        accounting.sample_bytes,
    ] {
        within("a total of the accounting is", value.into())?;
    }
    Ok(())
}

fn within(what: &str, value: u128) -> Result<(), ReadError> {
    if value > i64::MAX as u128 {
        return Err(ReadError::Implausible(format!("{what} {value}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::{Ending, Reach, Verdict, fixture};

    fn saved() -> serde_json::Value {
        serde_json::to_value(fixture::profile()).expect("a profile is JSON")
    }

    fn error_of(text: &str) -> String {
        let error = read(text.as_bytes()).expect_err(text).to_string();
        assert!(!error.contains('\n') && error.len() < 400, "{error:?}");
        error
    }

    #[test]
    fn what_was_saved_reads_back() {
        let profile = fixture::profile();
        let text = serde_json::to_vec_pretty(&profile).expect("a profile is JSON");
        assert_eq!(read(text.as_slice()).expect("reads"), profile);
    }

    #[test]
    fn a_profile_cut_anywhere_is_refused() {
        let text = saved().to_string();
        for end in 1..text.len() {
            let error = read(&text.as_bytes()[..end]).expect_err("cut");
            assert!(
                matches!(error, ReadError::Truncated { .. } | ReadError::Malformed(_)),
                "{end}: {error}"
            );
        }
    }

    #[test]
    fn what_is_no_profile_is_refused_in_one_line() {
        assert!(error_of("").contains("empty"));
        assert!(error_of("hello\nworld").contains("not a leaktrace profile"));
        assert!(error_of("{}").contains("no `schema`"));
        assert!(error_of(r#"{"schema": "leaktrace.profile/2"}"#).contains("`leaktrace.profile/2`"));
        assert!(error_of(r#"{"schema": "\u001b[31m\n"}"#).contains("schema is `[31m`"));
        assert!(error_of(r#"{"schema": "leaktrace.profile/1"}"#).contains("missing field"));
        assert!(error_of(&"[".repeat(100_000)).contains("not a leaktrace profile"));
    }

    #[test]
    fn hostile_numbers_are_refused() {
        for (pointer, number) in [
            ("/sites/0/live_bytes", "18446744073709551615"),
            ("/sites/0/live_bytes", "-1"),
            ("/sites/0/live_count", "1.5"),
            ("/sites/0/allocated_bytes", "1e300"),
            ("/sites/0/growth_bytes_per_s", "null"),
            ("/window/duration_ns", "9223372036854775808"),
            ("/accounting/live_bytes", "18446744073709551616"),
        ] {
            let mut profile = saved();
            *profile.pointer_mut(pointer).expect(pointer) = serde_json::from_str(number).expect(number);
            error_of(&profile.to_string());
        }
        error_of(
            &saved()
                .to_string()
                .replacen("\"growth_bytes_per_s\":", "\"growth_bytes_per_s\":1e999,\"x\":", 1),
        );
    }

    #[test]
    fn fields_are_only_ever_added() {
        let mut profile = saved();
        profile["goroutines"] = serde_json::json!({"count": 3});
        profile["sites"][0]["new"] = serde_json::json!([1, 2]);
        profile["sites"][0]["verdict"] = "suspect".into();
        profile["sites"][0]["reach"] = "weak".into();
        let read = read(profile.to_string().as_bytes()).expect("reads");
        assert_eq!(
            (read.sites[0].verdict, read.sites[0].reach),
            (Verdict::Unknown, Reach::Unknown)
        );
    }

    #[test]
    fn profiles_from_before_endings_still_read() {
        let mut profile = saved();
        let accounting = profile["accounting"].as_object_mut().expect("an object");
        accounting.retain(|field, _| {
            !["whole_allocations", "cut_stacks", "stacks", "whole_stacks"].contains(&field.as_str())
        });
        for site in profile["sites"].as_array_mut().expect("an array") {
            site["stack"].as_object_mut().expect("an object").remove("end");
        }
        let read = read(profile.to_string().as_bytes()).expect("reads");
        let endings: Vec<Ending> = read.sites.iter().map(|site| site.stack.ending()).collect();
        assert_eq!(endings, [Ending::Whole, Ending::Whole, Ending::Unknown, Ending::Whole]);
        assert_eq!(read.accounting.whole_allocations, None);
        assert!(read.accounting.cut_stacks.is_empty());
    }

    #[test]
    fn optional_fields_may_be_missing() {
        let mut profile = saved();
        let object = profile.as_object_mut().expect("an object");
        object.remove("timeline");
        object["accounting"].as_object_mut().expect("an object").remove("notes");
        for site in object["sites"].as_array_mut().expect("an array") {
            let site = site.as_object_mut().expect("an object");
            site.retain(|field, _| !["why", "verdict", "reach", "held_by"].contains(&field.as_str()));
            for frame in site["stack"]["frames"].as_array_mut().expect("an array") {
                let frame = frame.as_object_mut().expect("an object");
                frame.retain(|field, _| ["address", "module", "offset"].contains(&field.as_str()));
            }
        }
        let read = read(profile.to_string().as_bytes()).expect("reads");
        assert!(read.timeline.is_empty());
    }

    #[test]
    fn numbers_that_json_lacks_are_never_written() {
        let mut profile = fixture::profile();
        profile.sites[0].growth_bytes_per_s = f64::NAN;
        profile.sites[0].estimate_error = Some(f64::INFINITY);
        let text = serde_json::to_vec(&profile).expect("a profile is JSON");
        let site = &read(text.as_slice()).expect("reads").sites[0];
        assert_eq!((site.growth_bytes_per_s.to_bits(), site.estimate_error), (0, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(bytes.as_slice()).is_err());
        }
    }
}
