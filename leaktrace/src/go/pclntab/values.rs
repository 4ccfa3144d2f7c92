//! A value for each instruction of a function, kept as differences: lines, files, places in the inline tree.

/// Most differences that one look-up follows. The longest functions that are compiled have some ten thousand.
const MAX_STEPS: u32 = 1 << 18;

/// The value that holds `distance` bytes behind the beginning of a function, whose differences begin with `table`. None
/// where the table ends before that. `fuel` is how many steps may still be made, and is lowered by those made.
pub fn value_at(table: &[u8], distance: u64, fuel: &mut u64) -> Option<i32> {
    let mut rest = table;
    let (mut value, mut covered) = (-1_i32, 0_u64);
    for step in 0..MAX_STEPS {
        *fuel = fuel.checked_sub(1)?;
        let difference = varint(&mut rest)?;
        if difference == 0 && step > 0 {
            return None;
        }
        value = value.wrapping_add(zigzag(difference));
        covered += u64::from(varint(&mut rest)?);
        if distance < covered {
            return Some(value);
        }
    }
    None
}

/// Seven bits a byte, lowest first; the top bit says that more follow.
fn varint(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..32).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(table: &[u8], distance: u64) -> Option<i32> {
        value_at(table, distance, &mut 100)
    }

    #[test]
    fn values_hold_up_to_the_next_difference() {
        // From -1: +1 for 3 bytes, +200 for 300 bytes, -201 for 1 byte, the end.
        let table = [2, 3, 0x90, 3, 0xac, 2, 0x91, 3, 1, 0, 9, 9];
        for (distance, value) in [
            (0, Some(0)),
            (2, Some(0)),
            (3, Some(200)),
            (302, Some(200)),
            (303, Some(-1)),
            (304, None),
        ] {
            assert_eq!(at(&table, distance), value, "{distance}");
        }
    }

    #[test]
    fn the_first_difference_may_be_zero() {
        assert_eq!(at(&[0, 4, 0], 1), Some(-1));
        assert_eq!(at(&[0, 4, 0], 4), None);
    }

    #[test]
    fn what_ends_early_or_never_is_given_up() {
        for table in [&[][..], &[2], &[0x80, 0x80], &[0xff; 16]] {
            assert_eq!(at(table, 0), None, "{table:?}");
        }
        let endless = [2, 0].repeat(1 << 20);
        let mut fuel = u64::MAX;
        assert_eq!(value_at(&endless, 1, &mut fuel), None);
        assert_eq!(u64::MAX - fuel, u64::from(MAX_STEPS));
        let mut fuel = 5;
        assert_eq!(value_at(&endless, 1, &mut fuel), None);
        assert_eq!(fuel, 0);
    }
}
