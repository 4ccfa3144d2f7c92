//! Text from the target made safe to show: a name in someone else's file must not drive the terminal.

use std::fmt::Write as _;

/// `bytes` as text: what is not UTF-8 is replaced; control characters and those that reorder text are escaped.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.chars().any(drives_terminal) {
        return text.into_owned();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if drives_terminal(character) {
            // Writing to a string cannot fail.
            let _ = write!(safe, "{}", character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

fn drives_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn plain_text_stays() {
        assert_eq!(printable("naïve <T> 世界".as_bytes()), "naïve <T> 世界");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable(b"a\x1b[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(printable("x\u{202e}y\u{9b}".as_bytes()), "x\\u{202e}y\\u{9b}");
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        assert_eq!(printable(b"\xffok"), "\u{fffd}ok");
    }
}
