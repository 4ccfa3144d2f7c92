//! The saved profile: the contract `leaktrace.profile/1`, one field a line so that two can be compared by eye.
//! [`crate::profile::read`] reads it back.

use std::io::{self, Write};

use super::{Report, View};
use crate::profile::Profile;

pub(super) struct JsonReport;

impl Report for JsonReport {
    fn write(&self, profile: &Profile, _view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
        serde_json::to_writer_pretty(&mut *out, profile).map_err(io::Error::from)?;
        writeln!(out)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{self, fixture};

    fn written(profile: &Profile) -> String {
        let mut out = Vec::new();
        JsonReport.write(profile, &View::default(), &mut out).expect("writes");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn is_the_contract() {
        insta::assert_snapshot!(written(&fixture::profile()));
    }

    #[test]
    fn reads_back() {
        for profile in [fixture::profile(), fixture::empty()] {
            assert_eq!(profile::read(written(&profile).as_bytes()).expect("reads"), profile);
        }
    }

    #[test]
    fn a_full_disk_is_said() {
        let error = JsonReport.write(&fixture::profile(), &View::default(), &mut [0_u8; 10].as_mut_slice());
        assert!(error.expect_err("no room").downcast_ref::<io::Error>().is_some());
    }
}
