//! A stack as lines that a person can read: function, file and line; module and offset where there is no symbol. Pure.

use super::paint::Paint;
use crate::profile::{Ending, Frame, Stack};
use crate::report::{View, label, wrap::wrapped};

const INDENT: usize = 6;

/// Most frames shown on a terminal; the outermost one is shown beside them.
const MOST_FITTED: usize = 14;

/// Digits of a build id that tell it from others at a glance.
const SHORT_BUILD_ID: usize = 8;

/// One line per frame, innermost first, and one that says if the stack is not whole.
pub fn lines(stack: &Stack, view: &View) -> Vec<String> {
    let paint = Paint(view.colour);
    let mut lines = frame_lines(&stack.frames, view);
    if stack.frames.is_empty() {
        lines.push(indented(&paint.faint("no frame of the stack is known")));
    }
    if let Some(words) = closing(stack.ending()) {
        let room = view.width.unwrap_or(usize::MAX).saturating_sub(INDENT);
        lines.extend(
            wrapped(words, room, "  ")
                .iter()
                .map(|line| indented(&paint.warn(line))),
        );
    }
    lines
}

/// What closes a stack that is not whole.
fn closing(ending: Ending) -> Option<&'static str> {
    Some(match ending {
        Ending::Whole => return None,
        Ending::NoUnwindInfo => "… more callers: the code here has no unwinding information",
        Ending::UnsupportedRule => "… more callers: the unwinding information here is of a kind not supported",
        Ending::Unreadable => "… more callers: the stack could not be read beyond this",
        Ending::TooDeep => "… more callers: deeper than 127 frames",
        Ending::Guessed => "… guessed by frame pointers: frames of code without them may be missing",
        Ending::NewCode => "… more callers: the code here was mapped only just before",
        Ending::Unsettled => "… taken while code was being unmapped: frames may be those of other code",
        Ending::NotKept => "… the stack was not kept, for want of room (see the end of the report)",
        Ending::Unknown => "… the callers beyond this could not be found",
    })
}

fn frame_lines(frames: &[Frame], view: &View) -> Vec<String> {
    let fits = view.width.is_none() || frames.len() <= MOST_FITTED + 1;
    let (shown, outermost) = match frames.split_last() {
        Some((outermost, inner)) if !fits => (inner.get(..MOST_FITTED).unwrap_or(inner), Some(outermost)),
        _ => (frames, None),
    };
    let mut lines: Vec<String> = shown.iter().map(|frame| line(frame, view)).collect();
    if let Some(outermost) = outermost {
        let hidden = frames.len() - shown.len() - 1;
        lines.push(indented(&Paint(view.colour).faint(&format!("… {hidden} more, then"))));
        lines.push(line(outermost, view));
    }
    lines
}

fn line(frame: &Frame, view: &View) -> String {
    let (what, place) = (what(frame, view), place(frame, view));
    let room = view.width.map(|width| width.saturating_sub(INDENT));
    let place = fitted_end(&place, room.map(|room| room / 2));
    let taken = if place.is_empty() { 0 } else { place.chars().count() + 2 };
    let what = fitted_start(&what, room.map(|room| room.saturating_sub(taken)));
    if place.is_empty() {
        return indented(&what);
    }
    indented(&format!("{what}  {}", Paint(view.colour).faint(&place)))
}

fn indented(text: &str) -> String {
    format!("{:INDENT$}{text}", "")
}

/// The function; `module+0x1234` without one.
fn what(frame: &Frame, view: &View) -> String {
    let whole_path = view.width.is_none() && !frame.module.trim().is_empty();
    match frame.name() {
        None if whole_path => format!("{}+{:#x}", label::one_line(&frame.module), frame.offset),
        _ => label::frame_name(frame).into_owned(),
    }
}

/// The name of a module in brackets, which those without a file have already: `[vdso]`, `[perf map]`.
fn in_brackets(module: &str) -> String {
    if module.starts_with('[') {
        return module.to_owned();
    }
    format!("[{module}]")
}

/// Where that is: file and line; the module of a function without them; the build id of a frame without a function.
fn place(frame: &Frame, view: &View) -> String {
    let place = match (frame.name(), &frame.file) {
        (None, _) => build_id(frame, view),
        (Some(_), None) => in_brackets(frame.module_name()),
        (Some(_), Some(file)) => match frame.line {
            Some(line) => format!("{file}:{line}"),
            None => file.clone(),
        },
    };
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    format!("{}{inlined}", label::one_line(&place))
}

fn build_id(frame: &Frame, view: &View) -> String {
    match (&frame.build_id, view.width) {
        (None, _) => String::new(),
        (Some(id), None) => format!("(build id {id})"),
        (Some(id), Some(_)) => format!("(build id {}…)", id.chars().take(SHORT_BUILD_ID).collect::<String>()),
    }
}

/// At most `room` characters, the beginning kept.
pub(super) fn fitted_start(text: &str, room: Option<usize>) -> String {
    match room {
        Some(room) if text.chars().count() > room => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
        _ => text.to_owned(),
    }
}

/// At most `room` characters, the end kept: of a path, that is the file.
fn fitted_end(text: &str, room: Option<usize>) -> String {
    let length = text.chars().count();
    match room {
        Some(room) if length > room => ['…']
            .into_iter()
            .chain(text.chars().skip(length + 1 - room.max(1)))
            .collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn modules_without_a_file_have_one_pair_of_brackets() {
        let shown = ["libc.so.6", "[vdso]", "[perf map]"].map(in_brackets);
        assert_eq!(shown, ["[libc.so.6]", "[vdso]", "[perf map]"]);
    }

    #[test]
    fn fitting_keeps_the_end_that_tells_most() {
        assert_eq!(fitted_start("orders::parse(char)", Some(10)), "orders::p…");
        assert_eq!(fitted_end("/usr/src/parse.cc:212", Some(10)), "…se.cc:212");
        assert_eq!(fitted_end("short", Some(10)), "short");
        assert_eq!(fitted_start("kept whole", None), "kept whole");
    }

    #[test]
    fn deep_stacks_keep_their_outermost_frame_on_a_terminal() {
        let frame = |name: usize| Frame {
            function: Some(format!("f{name}")),
            ..Frame::default()
        };
        let stack = Stack {
            whole: true,
            end: Ending::Whole,
            frames: (0..100).map(frame).collect(),
        };
        let fitted = lines(
            &stack,
            &View {
                width: Some(80),
                ..View::default()
            },
        );
        assert_eq!(fitted.len(), MOST_FITTED + 2);
        assert!(
            fitted[MOST_FITTED].contains("85 more") && fitted[MOST_FITTED + 1].contains("f99"),
            "{fitted:#?}"
        );
        assert_eq!(lines(&stack, &View::default()).len(), 100);
    }

    #[test]
    fn every_ending_but_the_whole_is_said_and_fits() {
        for (ending, words) in [
            (Ending::NoUnwindInfo, "no unwinding information"),
            (Ending::UnsupportedRule, "not supported"),
            (Ending::Unreadable, "could not be read"),
            (Ending::TooDeep, "deeper than 127 frames"),
            (Ending::Guessed, "guessed by frame pointers"),
            (Ending::Unsettled, "being unmapped"),
            (Ending::NotKept, "was not kept"),
            (Ending::Unknown, "could not be found"),
        ] {
            let stack = Stack {
                end: ending,
                frames: vec![Frame::default()],
                ..Stack::default()
            };
            let view = |width| View {
                width,
                ..View::default()
            };
            let told = lines(&stack, &view(None));
            assert!(told.last().is_some_and(|line| line.contains(words)), "{told:#?}");
            let narrow = lines(&stack, &view(Some(50)));
            assert!(narrow.iter().all(|line| line.chars().count() <= 50), "{narrow:#?}");
        }
        let whole = Stack {
            whole: true,
            end: Ending::TooDeep,
            frames: vec![Frame::default()],
        };
        assert_eq!(lines(&whole, &View::default()).len(), 1);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(name in ".{0,200}", file in ".{0,200}", width in 40_usize..120, line: u32) {
            let frame = Frame { function: Some(name), file: Some(file), line: Some(line), inlined: true, ..Frame::default() };
            let stack = Stack { frames: vec![frame], ..Stack::default() };
            for line in lines(&stack, &View { width: Some(width), ..View::default() }).iter().take(1) {
                prop_assert!(line.chars().count() <= width, "{}", line);
            }
        }
    }
}
