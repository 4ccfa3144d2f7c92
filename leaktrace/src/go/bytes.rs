//! Little-endian numbers and text out of bytes that may end anywhere. Pure.

/// The two bytes at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

/// The four bytes at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

/// The four bytes at `at`, signed.
pub fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_le_bytes)
}

/// The eight bytes at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

/// What stands at `at` up to a zero byte; none if that is not within `limit` bytes.
pub fn text_at(bytes: &[u8], at: usize, limit: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    let rest = rest.get(..limit).unwrap_or(rest);
    rest.get(..memchr::memchr(0, rest)?)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_nothing_beyond() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 0x88, 0];
        assert_eq!(u16_at(&bytes, 1), Some(0x0302));
        assert_eq!(u32_at(&bytes, 4), Some(0x8807_0605));
        assert_eq!(i32_at(&bytes, 4), Some(-0x77f8_f9fb));
        assert_eq!(u64_at(&bytes, 1), Some(0x0088_0706_0504_0302));
        assert_eq!((u64_at(&bytes, 2), u32_at(&bytes, usize::MAX)), (None, None));
        assert_eq!(text_at(&bytes, 6, 9), Some(&[7, 0x88][..]));
        assert_eq!((text_at(&bytes, 6, 2), text_at(&bytes, 10, 9)), (None, None));
    }
}
