//! What the flags of `goroutines` mean.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::trace::{at_least_a_tenth, duration};
use crate::cli::{GoroutinesArgs, GoroutinesFormat};

/// Time between two looks, if nothing else is asked for.
const INTERVAL: Duration = Duration::from_secs(5);

/// A look at goroutines, ready to be taken.
#[derive(Debug)]
pub struct GoroutinesSettings {
    /// The process.
    pub pid: u32,
    /// Time between two looks; none if one is enough.
    pub interval: Option<Duration>,
    /// When the last look is taken at the latest.
    pub duration: Option<Duration>,
    /// Whether the last look proves leaks.
    pub leaks: bool,
    /// What is written.
    pub format: GoroutinesFormat,
    /// How many `go` statements the text shows.
    pub top: usize,
    /// Whether to say more.
    pub verbose: bool,
}

impl GoroutinesSettings {
    /// Checks the flags and gives them meaning.
    pub fn new(args: &GoroutinesArgs) -> Result<Self> {
        ensure!(
            args.pid > 0,
            "--pid 0 is no process: give the number of a running process"
        );
        let time = |flag, text: &Option<String>| {
            let time = text
                .as_deref()
                .map(|text| at_least_a_tenth(flag, duration(flag, text)?));
            time.transpose()
        };
        let (interval, duration) = (time("--interval", &args.interval)?, time("--duration", &args.duration)?);
        let watches = args.watch || interval.is_some() || duration.is_some();
        Ok(Self {
            pid: args.pid,
            interval: watches.then(|| interval.unwrap_or(INTERVAL)),
            duration,
            leaks: args.leaks,
            format: args.format,
            top: args.top,
            verbose: args.verbose,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> GoroutinesArgs {
        GoroutinesArgs {
            pid: 7,
            watch: false,
            interval: None,
            duration: None,
            leaks: false,
            format: GoroutinesFormat::Text,
            top: 10,
            verbose: false,
        }
    }

    #[test]
    fn one_look_is_enough_unless_more_are_asked_for() {
        assert_eq!(GoroutinesSettings::new(&args()).unwrap().interval, None);
        let watch = GoroutinesArgs { watch: true, ..args() };
        assert_eq!(GoroutinesSettings::new(&watch).unwrap().interval, Some(INTERVAL));
        let lasting = GoroutinesArgs {
            duration: Some("1m".to_owned()),
            interval: Some("2s".to_owned()),
            ..args()
        };
        let lasting = GoroutinesSettings::new(&lasting).unwrap();
        assert_eq!(
            (lasting.interval, lasting.duration),
            (Some(Duration::from_secs(2)), Some(Duration::from_mins(1)))
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            GoroutinesArgs { pid: 0, ..args() },
            GoroutinesArgs {
                interval: Some("1".to_owned()),
                ..args()
            },
            GoroutinesArgs {
                duration: Some("1ms".to_owned()),
                ..args()
            },
        ] {
            assert!(GoroutinesSettings::new(&wrong).is_err());
        }
    }
}
