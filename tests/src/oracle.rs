//! What valgrind and `LeakSanitizer` say of a program: leaks by the function that allocated them.

use std::collections::BTreeMap;

/// Bytes and blocks by function.
pub type Leaks = BTreeMap<String, (u64, u64)>;

/// Totals of valgrind's heap summary: blocks and bytes allocated, blocks freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocations.
    pub allocations: u64,
    /// Frees.
    pub frees: u64,
    /// Bytes allocated.
    pub bytes: u64,
}

/// Reads the loss records of `valgrind --leak-check=full --show-leak-kinds=all`.
pub fn valgrind_leaks(lines: &[String]) -> Leaks {
    let records = lines.iter().map(|line| after_marker(line, "=="));
    leaks(
        records,
        |line| line.contains(" in loss record "),
        |line| line.split(" in ").nth(1),
    )
}

/// Reads valgrind's `total heap usage`.
pub fn valgrind_usage(lines: &[String]) -> Option<Usage> {
    let line = lines.iter().find_map(|line| line.split_once("total heap usage: "))?.1;
    let mut numbers = line.split(", ").filter_map(first_number);
    Some(Usage {
        allocations: numbers.next()?,
        frees: numbers.next()?,
        bytes: numbers.next()?,
    })
}

/// Reads `LeakSanitizer`'s report.
pub fn sanitizer_leaks(lines: &[String]) -> Leaks {
    let is_record = |line: &str| line.starts_with("Direct leak of ") || line.starts_with("Indirect leak of ");
    leaks(lines.iter().map(|line| line.trim()), is_record, |line| {
        line.split(" in ").nth(1)
    })
}

/// Walks over records: a head line with bytes and blocks, then a stack whose first frame is the allocator's and
/// whose next frame with a source file of ours names the function.
fn leaks<'a>(
    lines: impl Iterator<Item = &'a str>,
    is_head: impl Fn(&str) -> bool,
    blocks_of: impl Fn(&str) -> Option<&str>,
) -> Leaks {
    let mut found = Leaks::new();
    let mut open: Option<(u64, u64)> = None;
    for line in lines {
        if is_head(line) {
            open = first_number(line).zip(blocks_of(line).and_then(first_number));
        } else if let (Some((bytes, blocks)), Some(function)) = (open, own_function(line)) {
            let sum = found.entry(function.to_owned()).or_default();
            *sum = (sum.0 + bytes, sum.1 + blocks);
            open = None;
        }
    }
    found
}

/// The function of a frame in a fixture: `by 0x1: leak (malloc.c:4)` or `#1 0x1 in leak /path/malloc.c:4`.
fn own_function(line: &str) -> Option<&str> {
    let ours = |place: &str| (place.contains(".c:") || place.contains(".cc:")) && !place.contains("vg_replace_malloc");
    let (name, place) = match line.split_once(": ") {
        Some((_, frame)) if !line.starts_with('#') => frame.rsplit_once(" (")?,
        _ => line.split_once(" in ")?.1.rsplit_once(' ')?,
    };
    let fixture = ours(place) && !place.contains("sanitizer");
    fixture.then(|| name.split_once('(').map_or(name, |(before, _)| before))
}

fn after_marker<'a>(line: &'a str, marker: &str) -> &'a str {
    line.rsplit_once(marker).map_or(line, |(_, rest)| rest).trim()
}

/// The first number in a text, with its thousands separators left out; of `1,200 (1,000 direct, …)` the first.
fn first_number(text: &str) -> Option<u64> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let digits = text[start..].chars().take_while(|c| c.is_ascii_digit() || *c == ',');
    digits.filter(char::is_ascii_digit).collect::<String>().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn reads_valgrind() {
        let text = lines(
            "==7==   total heap usage: 1,010 allocs, 1,000 frees, 564,545 bytes allocated\n\
             ==7== 1,045 bytes in 10 blocks are definitely lost in loss record 1 of 2\n\
             ==7==    at 0x48407B4: malloc (vg_replace_malloc.c:381)\n\
             ==7==    by 0x1091A5: kept (malloc.c:4)\n\
             ==7==    by 0x1091FF: main (malloc.c:11)",
        );
        assert_eq!(valgrind_leaks(&text), Leaks::from([("kept".to_owned(), (1045, 10))]));
        assert_eq!(
            valgrind_usage(&text),
            Some(Usage {
                allocations: 1010,
                frees: 1000,
                bytes: 564_545
            })
        );
    }

    #[test]
    fn reads_the_sanitizer() {
        let text = lines(
            "Direct leak of 1045 byte(s) in 10 object(s) allocated from:\n\
             \x20   #0 0x7f3 in __interceptor_malloc ../../../../src/libsanitizer/lsan/lsan_interceptors.cpp:75\n\
             \x20   #1 0x55d in kept /fixtures/malloc.c:4",
        );
        assert_eq!(sanitizer_leaks(&text), Leaks::from([("kept".to_owned(), (1045, 10))]));
    }
}
