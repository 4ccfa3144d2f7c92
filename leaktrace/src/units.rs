//! Numbers as people read them: sizes, counts, rates, durations, shares. Pure.

const SIZES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number with thousands separators: `48,210`.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its word: `1 block`, `48,210 blocks`.
pub fn count(value: u64, one: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {one}{plural}", number(value))
}

/// A size: exact below 10 KiB (`4,096 B`), then `12.4 MiB`, `412 KiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 10 << 10 {
        format!("{} B", number(bytes))
    } else {
        scaled(bytes as f64)
    }
}

/// A size that may be negative, with its sign always shown: `+1.2 MiB`, `-20 KiB`.
pub fn size_change(old: u64, new: u64) -> String {
    let sign = if new < old { '-' } else { '+' };
    format!("{sign}{}", size(new.abs_diff(old)))
}

/// A number that may be negative, with its sign always shown: `+4,000`.
pub fn number_change(old: u64, new: u64) -> String {
    let sign = if new < old { '-' } else { '+' };
    format!("{sign}{}", number(new.abs_diff(old)))
}

/// A speed without its sign, in bytes per second, or per minute or hour where that is more than nothing:
/// `412 KiB/s`, `18 B/min`.
pub fn rate(bytes_per_s: f64) -> String {
    let speed = bytes_per_s.abs();
    let (speed, unit) = match speed {
        _ if speed >= 1.0 => (speed, "s"),
        _ if speed * 60.0 >= 1.0 => (speed * 60.0, "min"),
        _ => (speed * 3600.0, "h"),
    };
    format!("{}/{unit}", scaled(speed))
}

/// Whether a speed is so small that it is less than one byte an hour.
pub fn is_still(bytes_per_s: f64) -> bool {
    bytes_per_s.abs() * 3600.0 < 1.0
}

/// A duration, short: `250 ms`, `30.0 s`, `5 min 20 s`, `3 h 12 min`, `2 d 4 h`.
pub fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let two = |large: u64, one: &str, small: u64, other: &str| match small {
        0 => format!("{large} {one}"),
        _ => format!("{large} {one} {small} {other}"),
    };
    match seconds {
        0 if ns == 0 => "0 s".to_owned(),
        0 if ns < 1_000_000 => format!("{} µs", ns.div_ceil(1000)),
        0 => format!("{} ms", ns / 1_000_000),
        1..100 => format!("{seconds}.{} s", ns / 100_000_000 % 10),
        100..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// A share of a whole: `97 %`, `0.4 %`. Never rounded to all or to nothing: `over 99 %`, `under 0.1 %`.
pub fn percent(part: f64, whole: f64) -> String {
    let share = if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
    match share {
        _ if share >= 99.5 && part < whole => "over 99 %".to_owned(),
        _ if share >= 9.95 => format!("{share:.0} %"),
        _ if share >= 0.1 => format!("{share:.1} %"),
        _ if share > 0.0 => "under 0.1 %".to_owned(),
        _ => "0 %".to_owned(),
    }
}

/// In the largest unit that keeps the number at one or more, with a decimal below 100 (bytes: below 10).
fn scaled(bytes: f64) -> String {
    let mut value = bytes;
    let mut unit = 0;
    // 1023.5 would be printed as 1,024 of the smaller unit.
    while value >= 1023.5 && unit + 1 < SIZES.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimal = if unit == 0 {
        value < 9.95 && value.fract() != 0.0
    } else {
        value < 99.95
    };
    let text = if decimal {
        format!("{value:.1}")
    } else {
        number(value.round() as u64)
    };
    format!("{text} {}", SIZES.get(unit).copied().unwrap_or("EiB"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::size::parse_size;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 7, 999, 1000, 48_210, 1_234_567].map(number),
            ["0", "7", "999", "1,000", "48,210", "1,234,567"]
        );
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(count(1, "block"), "1 block");
        assert_eq!(count(0, "block"), "0 blocks");
    }

    #[test]
    fn sizes_are_exact_while_small() {
        let sizes = [0, 76, 4096, 10_239, 10_240, 421_888, 1_048_575, 13_002_342, u64::MAX].map(size);
        let expected = [
            "0 B", "76 B", "4,096 B", "10,239 B", "10.0 KiB", "412 KiB", "1.0 MiB", "12.4 MiB", "16.0 EiB",
        ];
        assert_eq!(sizes, expected);
        assert_eq!(size_change(20_480, 0), "-20.0 KiB");
        assert_eq!(number_change(5, 4005), "+4,000");
    }

    #[test]
    fn rates_choose_their_time() {
        let rates = [421_888.0, 64.0, 1.5, -0.3, 0.001].map(rate);
        assert_eq!(rates, ["412 KiB/s", "64 B/s", "1.5 B/s", "18 B/min", "3.6 B/h"]);
        assert!(is_still(0.0) && is_still(-0.0001) && !is_still(0.001));
    }

    #[test]
    fn durations_are_short() {
        let second = 1_000_000_000;
        let durations = [
            0,
            1_500,
            250_000_000,
            30 * second,
            320 * second,
            11_520 * second,
            187_200 * second,
        ];
        let expected = ["0 s", "2 µs", "250 ms", "30.0 s", "5 min 20 s", "3 h 12 min", "2 d 4 h"];
        assert_eq!(durations.map(duration), expected);
    }

    #[test]
    fn shares_are_never_rounded_to_all_or_nothing() {
        let shares = [
            (97.0, 100.0),
            (100.0, 100.0),
            (99.9, 100.0),
            (0.4, 100.0),
            (0.01, 100.0),
            (0.0, 100.0),
            (1.0, 0.0),
        ];
        let expected = ["97 %", "100 %", "over 99 %", "0.4 %", "under 0.1 %", "0 %", "0 %"];
        assert_eq!(shares.map(|(part, whole)| percent(part, whole)), expected);
    }

    #[test]
    fn a_size_that_rounds_up_to_the_next_unit_reads_back() {
        let bytes = 1_125_350_151_028_736;
        let read = parse_size(&size(bytes).replace(',', "")).expect("a printed size");
        assert!(read.abs_diff(bytes) <= bytes / 18, "{} {read}", size(bytes));
    }

    proptest! {
        #[test]
        fn a_printed_size_reads_back_within_its_rounding(bytes in 0_u64..1 << 50) {
            let read = parse_size(&size(bytes).replace(',', "")).expect("a printed size");
            let slack = if bytes < 10 << 10 { 0 } else { bytes / 18 };
            prop_assert!(read.abs_diff(bytes) <= slack, "{} {}", size(bytes), read);
        }

        #[test]
        fn any_number_prints(value: f64, ns: u64) {
            prop_assert!(!rate(value).is_empty() && !duration(ns).is_empty());
        }
    }
}
