//! A heap profile in the text that Go's `?debug=1` gives, which older readers of pprof take too. Pure.

use std::io::{self, Write};

use crate::profile::{Profile, Site};
use crate::report::label::one_line;
use crate::report::records::{write_addresses, write_record};

/// Writes a profile in this form: sites by live bytes, the most first.
///
/// # Errors
/// What `out` refused.
pub fn write_text(profile: &Profile, note: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    let sum = |value: fn(&Site) -> u64| profile.sites.iter().map(value).fold(0, u64::saturating_add);
    let live = (sum(|site| site.live_count), sum(|site| site.live_bytes));
    let allocated = (sum(|site| site.allocated_count), sum(|site| site.allocated_bytes));
    // A reader takes half of the last number for the mean distance of samples: here every block is counted, or scaled up
    // already.
    let ((count, bytes), (all, all_bytes)) = (live, allocated);
    writeln!(out, "heap profile: {count}: {bytes} [{all}: {all_bytes}] @ heap/2")?;
    for site in &profile.sites {
        if site.stack.frames.is_empty() {
            continue;
        }
        write!(
            out,
            "{}: {} [{}: {}] @",
            site.live_count, site.live_bytes, site.allocated_count, site.allocated_bytes
        )?;
        write_addresses(&site.stack.frames, out)?;
        writeln!(out)?;
        write_record(&site.stack.frames, |_| None, out)?;
    }
    write_remarks(profile, note, out)
}

/// What there is to say besides, as comments.
fn write_remarks(profile: &Profile, note: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    let (tool, target) = (&profile.tool, &profile.target);
    writeln!(out, "\n# {} {}, {}", tool.name, tool.version, one_line(&target.command))?;
    let stackless = profile.sites.iter().filter(|site| site.stack.frames.is_empty());
    for site in stackless {
        writeln!(
            out,
            "# without a stack: {}: {} [{}: {}]",
            site.live_count, site.live_bytes, site.allocated_count, site.allocated_bytes
        )?;
    }
    for (reason, count) in &profile.accounting.lost {
        writeln!(out, "# lost: {} {count}", one_line(reason))?;
    }
    if let Some(go) = &profile.go {
        writeln!(out, "# {}", super::estimate(go))?;
    }
    note.map_or(Ok(()), |note| writeln!(out, "# {}", one_line(note)))
}
