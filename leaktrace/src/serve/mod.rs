//! The HTTP view of a session: what Go's `net/http/pprof` answers, for a process that has no endpoint.
//!
//! Knows profiles and reports, and nothing of tracing: it asks for what it needs at a [`desk`], and the session answers.
//! With `session` the only room with tokio, and the only one with HTTP.

mod answer;
mod connection;
pub mod desk;
mod gate;
mod index;
mod listen;
mod pages;
mod route;

use std::sync::Arc;

use tokio::sync::watch;

pub use self::connection::run;
pub use self::listen::Listener;

use self::desk::Bell;
use crate::profile::{Profile, goroutines::Goroutines};
use crate::report::goroutines::Which;

/// How much of a profile is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Numbers and names.
    Brief,
    /// Growth and verdicts too.
    Full,
}

/// Where answers come from.
pub struct Sources {
    /// The process.
    pub pid: u32,
    /// Where its profile is to be had.
    pub heap: Bell<Depth, Profile>,
    /// Where its goroutines are: all of them, or with proof of those that are leaked.
    pub goroutines: Bell<Which, Goroutines>,
    /// Its command line, as the kernel has it: each argument ended by a zero byte.
    pub command_line: Arc<dyn Fn() -> Option<Vec<u8>> + Send + Sync>,
    /// Becomes true when the session ends: then nobody waits any longer.
    pub ending: watch::Receiver<bool>,
}

/// Waits until the session ends.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // Who should have said so has gone: that is an end too.
    let _gone = ending.wait_for(|ending| *ending).await;
}
