//! Colours of the text, when it has any. Pure.

use crate::profile::Verdict;

/// Whether to colour.
#[derive(Clone, Copy)]
pub(in crate::report) struct Paint(pub(in crate::report) bool);

impl Paint {
    /// What matters most.
    pub(in crate::report) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What matters least.
    pub(in crate::report) fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    /// What limits the rest.
    pub(in crate::report) fn warn(self, text: &str) -> String {
        self.with("33", text)
    }

    /// Something in the colour of a verdict.
    pub(in crate::report) fn verdict(self, verdict: Verdict, text: &str) -> String {
        match verdict {
            Verdict::Leak => self.with("1;31", text),
            Verdict::Growing => self.with("33", text),
            Verdict::Stable | Verdict::Churn => self.with("32", text),
            Verdict::Unknown => self.with("36", text),
        }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
