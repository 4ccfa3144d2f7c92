//! How a stack ended, and how many did so: what tells a whole stack from one that was cut.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Site, Stack};

/// How the walk of a stack ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// At the outermost frame.
    Whole,
    /// In code without unwinding information.
    NoUnwindInfo,
    /// At unwinding information of a kind that the walk does not know.
    UnsupportedRule,
    /// At memory of the stack that could not be read.
    Unreadable,
    /// At the most frames that are kept.
    TooDeep,
    /// At the outermost frame, found by frame pointers: frames of code without them may be missing.
    Guessed,
    /// In code that was mapped only just before.
    NewCode,
    /// Code was being unmapped while the stack was taken: its frames may be those of other code.
    Unsettled,
    /// The stack was not kept: the stack table or the event buffer was full.
    NotKept,
    /// Not told by the version that wrote the profile, or told in a word of a newer one.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Ending {
    /// The word that it has in a profile.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::NoUnwindInfo => "no_unwind_info",
            Self::UnsupportedRule => "unsupported_rule",
            Self::Unreadable => "unreadable",
            Self::TooDeep => "too_deep",
            Self::Guessed => "guessed",
            Self::NewCode => "new_code",
            Self::Unsettled => "unsettled",
            Self::NotKept => "not_kept",
            Self::Unknown => "unknown",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
    pub(super) fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

impl Stack {
    /// How it ended. Where a saved profile contradicts itself, only what `whole` says is believed.
    pub fn ending(&self) -> Ending {
        match (self.whole, self.end) {
            (true, _) => Ending::Whole,
            (false, Ending::Whole) => Ending::Unknown,
            (false, end) => end,
        }
    }
}

/// Stacks that are not whole and ended alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutStacks {
    /// How many.
    pub stacks: u64,
    /// Blocks allocated on them.
    pub allocations: u64,
}

/// The stacks of `sites` that are not whole, by the word for how they ended.
pub fn cut_stacks(sites: &[Site]) -> BTreeMap<String, CutStacks> {
    let mut cut: BTreeMap<String, CutStacks> = BTreeMap::new();
    for site in sites.iter().filter(|site| !site.stack.whole) {
        let entry = cut.entry(site.stack.ending().word().to_owned()).or_default();
        entry.stacks += 1;
        entry.allocations = entry.allocations.saturating_add(site.allocated_count);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::fixture;

    const ALL: [Ending; 10] = [
        Ending::Whole,
        Ending::NoUnwindInfo,
        Ending::UnsupportedRule,
        Ending::Unreadable,
        Ending::TooDeep,
        Ending::Guessed,
        Ending::NewCode,
        Ending::Unsettled,
        Ending::NotKept,
        Ending::Unknown,
    ];

    #[test]
    fn every_ending_is_saved_by_its_word() {
        for ending in ALL {
            let saved = serde_json::to_value(ending).expect("JSON");
            assert_eq!(saved, ending.word());
            assert_eq!(serde_json::from_value::<Ending>(saved).expect("reads"), ending);
        }
        let newer: Ending = serde_json::from_str("\"by_magic\"").expect("reads");
        assert_eq!(newer, Ending::Unknown);
    }

    #[test]
    fn a_stack_that_contradicts_itself_is_believed_in_one_thing() {
        let stack = |whole, end| Stack {
            whole,
            end,
            ..Stack::default()
        };
        assert_eq!(stack(false, Ending::Whole).ending(), Ending::Unknown);
        assert_eq!(stack(true, Ending::TooDeep).ending(), Ending::Whole);
        assert_eq!(stack(false, Ending::TooDeep).ending(), Ending::TooDeep);
    }

    #[test]
    fn cut_stacks_are_counted_by_how_they_ended() {
        let mut sites = fixture::profile().sites;
        sites[0].stack.whole = false;
        sites[0].stack.end = Ending::TooDeep;
        sites[1].stack = Stack {
            end: Ending::TooDeep,
            ..Stack::default()
        };
        let cut = cut_stacks(&sites);
        assert_eq!(
            cut["too_deep"],
            CutStacks {
                stacks: 2,
                allocations: 47_001
            }
        );
        assert_eq!(
            cut["no_unwind_info"],
            CutStacks {
                stacks: 1,
                allocations: 1209
            }
        );
        assert_eq!(cut.len(), 2);
    }
}
