//! The part of a trace that is about Go's heap.

use anyhow::Result;

use super::Trace;
use crate::{
    session::{arm, go::GoTrace},
    target::AddressSpace,
};

impl Trace {
    /// Adds the probes of Go's heap, the first time.
    pub(super) fn plan_go(&mut self, planned: &mut arm::Planned) -> Result<()> {
        let Some(go) = self.go.as_ref().filter(|_| !self.go_armed) else {
            return Ok(());
        };
        let (pid, layout) = (self.process.pid, go.layout());
        self.recorder.tracer().set_go_layout(pid, &layout)?;
        planned.points.extend(go.points());
        planned.own_code.extend(go.own_code());
        planned
            .allocators
            .push(format!("Go's heap ({}, sampled)", go.runtime().info.version));
        self.go_armed = true;
        Ok(())
    }

    /// Finds out what holds the live objects, if that was asked for; once, at the end, while the process is there.
    pub fn look_for_holders(&mut self) {
        if !std::mem::take(&mut self.remarks.lacks_holders) {
            return;
        }
        let Some(go) = &mut self.go else {
            self.notes
                .push("--reach has nothing to look at: so far it works on the heap of Go programs".to_owned());
            return;
        };
        if !self.process.is_alive() || self.recorder.is_replaced() {
            let why = "what held the objects of Go's heap is not told: the program has ended";
            self.notes.push(why.to_owned());
            return;
        }
        match go.look_for_holders(&mut self.recorder) {
            Ok(line) => self.timings.push(line),
            Err(why) => self
                .notes
                .push(format!("what holds the objects of Go's heap is not told: {why}")),
        }
    }

    /// Whether the program is still the one that is traced, and what was read of its memory is its.
    pub(super) fn is_still_the_same(&mut self) -> bool {
        self.recorder.drain();
        !self.recorder.is_replaced()
    }

    /// Asks which objects of Go's heap are live, if it is time for that or `now` is said.
    pub(super) fn judge(&mut self, now: bool) {
        if let Some(go) = self.go.as_mut().filter(|go| !self.settled && (now || go.is_due())) {
            // A process that has ended stays as it was when it was last asked.
            let _ = go.judge(&mut self.recorder);
            let objection = go.take_objection().into_iter();
            self.notes
                .extend(objection.map(|why| format!("which objects of Go's heap are live cannot be told: {why}")));
        }
    }
}

/// The Go runtime of a process that has one; what is to be said if it cannot be traced.
pub(super) fn open_go(space: &AddressSpace, has_go: bool) -> (Option<GoTrace>, Vec<String>) {
    if !has_go {
        return (None, Vec::new());
    }
    match GoTrace::open(space) {
        Ok(go) => {
            let cautions = go.cautions();
            (Some(go), cautions)
        }
        Err(error) => (None, vec![format!("Go's heap is not traced: {error}")]),
    }
}

/// Sets the rate of Go's own profile, and says what came of it.
pub(super) fn set_rate(go: Option<&mut GoTrace>, rate: u64) -> String {
    let Some(go) = go else {
        return "--go-mem-profile-rate has no effect: there is no Go heap to be traced".to_owned();
    };
    match go.set_rate(rate) {
        Ok(before) => format!(
            "the program's own heap profile samples once for {rate} bytes now, and not for {before}: this was written \
             into it, slows it down, is put back at the end, and stays if leaktrace is killed with SIGKILL"
        ),
        Err(error) => format!("the rate of the program's own heap profile is not set: {error}"),
    }
}
