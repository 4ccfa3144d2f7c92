//! Runs `leaktrace serve` as a user would.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::child::{Child, Ended, PATIENCE};
use crate::http::{self, Answer};
use crate::tracer::command;

/// A leaktrace that serves.
pub struct Served {
    /// The process.
    pub child: Child,
    /// The address of its index page, with a slash at the end.
    pub url: String,
}

/// Serves process `pid` on a port of its own, and waits until that is ready.
pub fn serve(pid: u32, options: &[&str]) -> Result<Served> {
    let pid = pid.to_string();
    let mut command = command();
    command
        .args(["serve", "--pid", &pid, "--listen", "127.0.0.1:0"])
        .args(options);
    let mut child = Child::spawn(&mut command)?;
    let url = child.out.expect("http://").with_context(|| child.tell())?;
    Ok(Served { child, url })
}

impl Served {
    /// The address of a profile.
    pub fn at(&self, name: &str) -> String {
        format!("{}{name}", self.url)
    }

    /// Gets a profile, which must be there.
    pub fn get(&self, name: &str) -> Result<Answer> {
        let answer = http::get(&self.at(name))?;
        ensure!(answer.status == 200, "{name}: {} {}", answer.status, answer.text());
        Ok(answer)
    }

    /// Asks it to end, and sees it end well and soon.
    pub fn stop(self) -> Result<Ended> {
        self.child.signal(Signal::SIGTERM)?;
        self.finish(Duration::from_secs(10))
    }

    /// Waits until it ends by itself, and sees it end well.
    pub fn finish(self, patience: Duration) -> Result<Ended> {
        let ended = self.child.finish(patience.min(PATIENCE))?;
        ensure!(ended.status.code() == Some(0), "{ended:?}");
        Ok(ended)
    }
}
