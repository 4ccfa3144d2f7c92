//! Lines broken between words to fit a width. Pure.

/// `text` in lines of at most `width` characters, those after the first beginning with `indent`. A word longer than
/// that stands on a line of its own, and is not broken: it may be a path that somebody copies.
pub fn wrapped(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let (mut line, mut length) = (String::new(), 0);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let size = word.chars().count();
        if length > 0 && length + 1 + size > width && !line.trim().is_empty() {
            lines.push(std::mem::take(&mut line));
            line.push_str(indent);
            length = indent.chars().count();
        } else if !line.is_empty() {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += size;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("one two three", 8, "  "), ["one two", "  three"]);
        assert_eq!(wrapped("fits", 80, "  "), ["fits"]);
        assert_eq!(
            wrapped("a /path/that/is/long b", 6, "  "),
            ["a", "  /path/that/is/long", "  b"]
        );
        assert_eq!(wrapped("", 10, "  "), [""]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_lines_fit(words in prop::collection::vec("[a-zß]{1,12}", 1..40), width in 20_usize..100) {
            let text = words.join(" ");
            let lines = wrapped(&text, width, "  ");
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width));
            let joined = lines.join(" ");
            prop_assert_eq!(joined.split_whitespace().collect::<Vec<_>>(), words);
        }
    }
}
