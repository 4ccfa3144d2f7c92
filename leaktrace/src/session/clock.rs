//! The times at which a session does something by itself.

use std::{future, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::settings::TraceSettings;

/// Least and most time between two cohorts.
const SHORTEST_TURN: Duration = Duration::from_millis(100);
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// Timers of one session.
pub struct Timers {
    turn: Interval,
    report: Interval,
    end: Option<Instant>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A cohort ends.
    Turn,
    /// A short report.
    Report,
    /// The end.
    End,
}

impl Timers {
    /// Starts all timers.
    pub fn start(settings: &TraceSettings) -> Self {
        let now = Instant::now();
        let every = |period: Duration| {
            let mut timer = interval_at(now + period, period);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        };
        Self {
            turn: every(turn(settings)),
            report: every(settings.interval),
            end: settings.duration.map(|duration| now + duration),
        }
    }

    /// Waits for what is due next.
    pub async fn due(&mut self) -> Due {
        let end = self.end;
        let ended = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = ended => Due::End,
            _ = self.turn.tick() => Due::Turn,
            _ = self.report.tick() => Due::Report,
        }
    }
}

/// Cohorts must tell apart what the age filter tells apart.
fn turn(settings: &TraceSettings) -> Duration {
    let wanted = if settings.min_age.is_zero() {
        LONGEST_TURN
    } else {
        settings.min_age / 4
    };
    wanted.min(settings.interval).clamp(SHORTEST_TURN, LONGEST_TURN)
}
