//! Folded stacks: `outermost;…;innermost VALUE`, one line per stack, sites with the same names added up.

use std::collections::BTreeMap;
use std::io::Write;

use super::{Metric, Report, View, label};
use crate::profile::{Frame, Profile, Stack};

pub(super) struct FoldedReport;

impl Report for FoldedReport {
    fn write(&self, profile: &Profile, view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
        for (stack, value) in fold(profile, view.metric, frame_label) {
            writeln!(out, "{stack} {value}")?;
        }
        Ok(())
    }
}

/// Every stack with a value above zero, in the order of their names. `name` gives what [`frame_label`] would.
pub(super) fn fold(profile: &Profile, metric: Metric, name: impl Fn(&Frame) -> String) -> BTreeMap<String, u128> {
    let mut stacks = BTreeMap::new();
    for site in &profile.sites {
        let value = metric.of(site);
        if value > 0 {
            *stacks.entry(fold_stack(&site.stack, &name)).or_default() += u128::from(value);
        }
    }
    stacks
}

/// One stack on one line.
pub(super) fn fold_stack(stack: &Stack, name: impl Fn(&Frame) -> String) -> String {
    let cut = (!stack.whole).then(|| label::TRUNCATED.to_owned());
    let empty = (stack.whole && stack.frames.is_empty()).then(|| label::UNKNOWN.to_owned());
    cut.into_iter()
        .chain(empty)
        .chain(stack.frames.iter().rev().map(name))
        .collect::<Vec<_>>()
        .join(";")
}

/// A frame's name, without what the format has a use for.
pub(super) fn frame_label(frame: &Frame) -> String {
    escaped(&label::frame_name(frame))
}

/// `;` separates frames, a number after the last space is the value, and readers take a line that starts with `# ` for
/// a comment: names in these forms lose the character that makes them so.
pub(super) fn escaped(name: &str) -> String {
    let name = name.replace(';', ":");
    let ambiguous = |word: &str| word.chars().all(|c| c.is_ascii_digit() || c == '.');
    match name.rsplit_once(char::is_whitespace) {
        Some((head, word)) if ambiguous(word) => format!("{head}_{word}"),
        _ if name.starts_with("# ") => name.replacen(' ', "_", 1),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::{Site, fixture};

    fn written(profile: &Profile, metric: Metric) -> String {
        let mut out = Vec::new();
        FoldedReport
            .write(
                profile,
                &View {
                    metric,
                    ..View::default()
                },
                &mut out,
            )
            .expect("writes");
        String::from_utf8(out).expect("text")
    }

    fn with_functions(names: &[String]) -> Profile {
        let frames = names
            .iter()
            .map(|name| Frame {
                function: Some(name.clone()),
                ..Frame::default()
            })
            .collect();
        let mut profile = fixture::profile();
        profile.sites.truncate(1);
        profile.sites[0] = Site {
            stack: Stack {
                whole: true,
                frames,
                ..Stack::default()
            },
            live_bytes: 7,
            ..profile.sites[0].clone()
        };
        profile
    }

    #[test]
    fn stacks_are_folded() {
        insta::assert_snapshot!(written(&fixture::profile(), Metric::LiveBytes));
    }

    #[test]
    fn metrics_choose_the_value_and_zero_is_left_out() {
        assert_eq!(written(&fixture::profile(), Metric::LiveCount).lines().count(), 3);
        assert_eq!(written(&fixture::profile(), Metric::AllocCount).lines().count(), 4);
        assert!(written(&fixture::profile(), Metric::AllocCount).contains("orders::reply(int) 1214000\n"));
        assert_eq!(written(&fixture::empty(), Metric::LiveBytes), "");
    }

    #[test]
    fn same_names_are_added_up() {
        let mut profile = fixture::profile();
        let twin = Site {
            live_bytes: 5,
            ..profile.sites[1].clone()
        };
        profile.sites.push(twin);
        assert!(written(&profile, Metric::LiveBytes).contains("main;orders::Cache::fill() 262149\n"));
    }

    #[test]
    fn stacks_without_frames_are_shown() {
        let mut profile = with_functions(&[]);
        assert_eq!(written(&profile, Metric::LiveBytes), "[unknown] 7\n");
        profile.sites[0].stack.whole = false;
        assert_eq!(written(&profile, Metric::LiveBytes), "[truncated] 7\n");
    }

    #[test]
    fn a_name_cannot_pass_for_a_value() {
        assert_eq!(escaped("operator new 12"), "operator new_12");
        assert_eq!(escaped("f(int) 1.5"), "f(int)_1.5");
        assert_eq!(escaped("[u8; 8]"), "[u8: 8]");
        assert_eq!(escaped("f(int, long)"), "f(int, long)");
        assert_eq!(escaped("# comment"), "#_comment");
    }

    proptest! {
        #[test]
        fn any_names_give_one_line_with_all_frames(names in prop::collection::vec(".*", 1..6)) {
            let text = written(&with_functions(&names), Metric::LiveBytes);
            let (line, rest) = text.split_once('\n').expect("a line");
            prop_assert_eq!(rest, "");
            let (stack, value) = line.rsplit_once(' ').expect("a value");
            prop_assert_eq!(value, "7");
            prop_assert_eq!(stack.split(';').count(), names.len());
            prop_assert!(!stack.chars().any(char::is_control));
            let last = stack.rsplit(char::is_whitespace).next().expect("a word");
            prop_assert!(stack == last || !last.chars().all(|c| c.is_ascii_digit()), "{}", stack);
        }
    }
}
