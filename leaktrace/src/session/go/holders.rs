//! What holds the live objects of each site, found out at the end of a trace.

use std::time::Instant;

use crate::{
    go::{GoError, reach, shown},
    profile::{Holder, Reach, Site},
    session::recorder::Recorder,
    units,
};

use super::GoTrace;

/// Most objects that are looked for of one site.
const MAX_OBJECTS: usize = 256;

impl GoTrace {
    /// Finds out what holds the live objects of each site. Gives a line on how that went, for those who want to know
    /// more.
    ///
    /// # Errors
    /// Why it cannot be told, in words.
    pub fn look_for_holders(&mut self, recorder: &mut Recorder) -> Result<String, String> {
        if !self.is_trusted() {
            return Err("its runtime could not be read".to_owned());
        }
        let started = Instant::now();
        let objects = recorder.samples().map(|samples| samples.live_objects(MAX_OBJECTS));
        let (sites, groups): (Vec<u32>, Vec<Vec<u64>>) = objects.unwrap_or_default().into_iter().unzip();
        if groups.is_empty() {
            return Err("no object is known to be live yet; trace for longer".to_owned());
        }
        let recorder = &*recorder;
        let names = |address| self.allocated_by(recorder, recorder.site_of(address)?);
        let found = reach::holders(&self.runtime, &groups, &names).map_err(|error| why(&error))?;
        let line = format!(
            "looked {} through {} of heap for {} in {:.1?}; {} could not be read",
            if found.looks == 1 {
                "once".to_owned()
            } else {
                format!("{} times", found.looks)
            },
            units::size(found.heap_bytes),
            units::count(groups.iter().map(Vec::len).sum::<usize>() as u64, "object"),
            started.elapsed(),
            units::size(found.unreadable),
        );
        self.holders = sites.into_iter().zip(found.holders).collect();
        Ok(line)
    }

    /// The function of the program that allocates at a site.
    fn allocated_by(&self, recorder: &Recorder, site: u32) -> Option<String> {
        let frames = &recorder.site(site)?.frames;
        let mut calls = frames.iter().flat_map(|&address| self.runtime.calls(address));
        calls.find_map(|call| Some(shown(call.function)).filter(|name| !name.starts_with("runtime.")))
    }

    /// Says of each site what holds its objects.
    pub fn describe_holders(&self, sites: &mut [(u32, Site)]) {
        for (index, site) in sites {
            if let Some(holders) = self.holders.get(index).filter(|holders| !holders.is_empty()) {
                site.reach = Reach::Reachable;
                site.held_by = holders.first().map(said);
                site.holders.clone_from(holders);
            }
        }
    }
}

/// `main.known (188 of 192 objects looked for)`.
fn said(holder: &Holder) -> String {
    format!(
        "{} ({} of {} looked for)",
        holder.root,
        units::number(holder.held),
        units::count(holder.of, "object")
    )
}

/// Why it cannot be told.
fn why(error: &GoError) -> String {
    match error {
        GoError::NoProof { what, .. } => (*what).to_owned(),
        other => other.to_string(),
    }
}
