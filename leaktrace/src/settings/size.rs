//! Sizes as people write them: `64KiB`, `64k`, `1.5GiB`, `10MB`. Pure.

/// Bytes in a size written by a person.
///
/// A letter alone and the `iB` forms count in 1024s (`64k` = `64KiB` = 65,536), the `B` forms in 1000s (`10MB` =
/// 10,000,000); a number alone is bytes. Case does not matter, and one fraction is allowed (`1.5G`).
///
/// # Errors
/// One line saying what is wrong and what would be right.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let factor = unit_bytes(unit.trim()).ok_or_else(|| malformed(text))?;
    let bytes = scaled(number, factor).ok_or_else(|| malformed(text))?;
    u64::try_from(bytes).map_err(|_| format!("size `{text}` is too large; at most 16 EiB less one byte"))
}

fn malformed(text: &str) -> String {
    format!("`{text}` is not a size; write bytes or a unit, as in 4096, 64KiB, 10MB, 1.5G")
}

fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "e" | "eib" => 1 << 60,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        "eb" => 1_000_000_000_000_000_000,
        _ => return None,
    })
}

/// `number * factor` in whole numbers, the rest of a byte cut off. A number beyond reason reads as the largest.
fn scaled(number: &str, factor: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || (fraction.is_empty() && number.contains('.')) {
        return None;
    }
    let whole: u128 = whole.parse().unwrap_or(u128::MAX);
    // Digits after the eighteenth are worth less than a byte in every unit.
    let digits = fraction.get(..18).unwrap_or(fraction);
    let part: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let below = part * u128::from(factor) / 10_u128.pow(digits.len() as u32);
    Some(whole.saturating_mul(u128::from(factor)).saturating_add(below))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("64k", 65_536),
            ("64 K", 65_536),
            ("1GiB", 1 << 30),
            ("10MB", 10_000_000),
            ("1.5g", 3 << 29),
            ("0.5kb", 500),
            ("12b", 12),
            (" 7M ", 7 << 20),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_in_one_line() {
        for text in [
            "",
            "k",
            "-1",
            "1.2.3",
            "1.",
            ".5",
            "4 elephants",
            "0x10",
            "1e3",
            "99999999999T",
            "18446744073709551616",
        ] {
            let error = parse_size(text).expect_err(text);
            assert!(error.contains(text) && !error.contains('\n'), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = parse_size(&text);
        }

        #[test]
        fn every_number_of_bytes_reads_back(bytes: u64) {
            prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
        }

        #[test]
        fn units_multiply(number in 0_u64..1 << 20) {
            prop_assert_eq!(parse_size(&format!("{number}KiB")), Ok(number << 10));
            prop_assert_eq!(parse_size(&format!("{number}MB")), Ok(number * 1_000_000));
        }
    }
}
