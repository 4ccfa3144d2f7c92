//! Frames and names as one line of text. Pure.
//!
//! Names come out of other people's binaries: what a terminal would obey, or would break a line format, is taken out
//! here, once, for all formats.

use std::borrow::Cow;

use crate::profile::Frame;

/// `text` on one line, without anything that a terminal obeys: control characters and changes of writing direction.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe) {
        Cow::Owned(text.chars().map(made_safe).collect())
    } else {
        Cow::Borrowed(text)
    }
}

fn made_safe(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
        _ if is_unsafe(c) => char::REPLACEMENT_CHARACTER,
        _ => c,
    }
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

/// A frame's name: its function, or `libfoo.so+0x1234` where there is no symbol.
pub(super) fn frame_name(frame: &Frame) -> Cow<'_, str> {
    match frame.name() {
        Some(name) => one_line(name),
        None => Cow::Owned(format!("{}+{:#x}", one_line(frame.module_name()), frame.offset)),
    }
}

/// The word that stands for the callers of a stack that could not be unwound to its end.
pub(super) const TRUNCATED: &str = "[truncated]";

/// The word that stands for a stack without a single frame.
pub(super) const UNKNOWN: &str = "[unknown]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_reach_the_terminal() {
        assert_eq!(one_line("a\n\u{1b}[31mb\u{202e}c\td"), "a \u{fffd}[31mb\u{fffd}c d");
        assert!(matches!(one_line("plain ö"), Cow::Borrowed("plain ö")));
    }

    #[test]
    fn frames_without_symbols_show_where_they_are() {
        let frame = Frame {
            module: "/usr/lib/libz.so.1".to_owned(),
            offset: 0x1f,
            ..Frame::default()
        };
        assert_eq!(frame_name(&frame), "libz.so.1+0x1f");
        let blank = Frame {
            function: Some("  ".to_owned()),
            module: "[vdso]".to_owned(),
            ..Frame::default()
        };
        assert_eq!(frame_name(&blank), "[vdso]+0x0");
        assert_eq!(frame_name(&Frame::default()), "[unknown]+0x0");
    }
}
