//! The window of time that a profile covers: from the moment recording begins until it ends.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::profile::Window;

/// A window, open or closed.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    unix_ns: u64,
    begun: bool,
    length: Option<Duration>,
}

impl Clock {
    /// A window that opens now, for the time being.
    pub fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: Instant::now(),
            unix_ns: nanoseconds(unix),
            begun: false,
            length: None,
        }
    }

    /// Recording has begun: the window opens now, if it has not been begun before.
    pub fn begin(&mut self) {
        if !self.begun {
            *self = Self {
                begun: true,
                ..Self::new()
            };
        }
    }

    /// Recording has ended: the window closes now, if it has not been closed before.
    pub fn end(&mut self) {
        self.length.get_or_insert(self.started.elapsed());
    }

    /// Length of the window so far.
    pub fn elapsed(&self) -> Duration {
        self.length.unwrap_or_else(|| self.started.elapsed())
    }

    /// The window so far.
    pub fn window(&self) -> Window {
        let duration_ns = nanoseconds(self.elapsed());
        Window {
            start_unix_ns: self.unix_ns,
            end_unix_ns: self.unix_ns.saturating_add(duration_ns),
            duration_ns,
        }
    }
}

/// A duration in whole nanoseconds; the longest that fits, if it does not.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_and_ends_once() {
        let mut clock = Clock::new();
        clock.begin();
        let window = clock.window();
        clock.begin();
        assert_eq!(clock.window().start_unix_ns, window.start_unix_ns);
        clock.end();
        let length = clock.elapsed();
        std::thread::sleep(Duration::from_millis(2));
        clock.end();
        assert_eq!(clock.elapsed(), length);
        assert_eq!(clock.window().duration_ns, nanoseconds(length));
    }
}
