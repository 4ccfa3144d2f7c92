//! Looking up mappings, rows and rules. The bounds of each search live in scratch memory: the verifier would follow
//! every way through a search that it can see.

use core::ptr::{read_volatile, write_volatile};

use leaktrace_common::unwind::{PAGE_BITS, ROWS_PER_ELEMENT, Rule, UnwindMapping, row_low, row_rule};

use super::Walk;
use crate::maps::{STATE, UNWIND_MAPPINGS, UNWIND_PAGES, UNWIND_ROWS, UNWIND_RULES};

/// Rounds that find one of 8,192 mappings, and one of the 65,536 rows that a page can have.
const MAPPING_ROUNDS: u32 = 13;
const ROW_ROUNDS: u32 = 17;

/// Number of no mapping.
const NONE: u32 = u32::MAX;

/// Most bytes that the first code puts on the stack.
const FIRST_FRAME: u64 = 64;

/// Whether there are tables at all.
#[inline(always)]
pub fn any() -> bool {
    bounds().1 != 0
}

/// The mapping that holds `address`.
#[inline(always)]
pub fn mapping(walk: &mut Walk, address: u64) -> Option<&'static UnwindMapping> {
    if let Some(last) = UNWIND_MAPPINGS.get(walk.mapping)
        && holds(last, address)
    {
        return Some(last);
    }
    walk.mapping = find_mapping(walk, address);
    UNWIND_MAPPINGS.get(walk.mapping)
}

/// Number of the mapping that holds `address`. A function of its own, like the search for a row: however many ways lead
/// through it, the verifier goes on from one.
#[inline(always)]
fn find_mapping(walk: &mut Walk, address: u64) -> u32 {
    let (first, count) = bounds();
    set_bounds(walk, first, first.wrapping_add(count));
    for _ in 0..MAPPING_ROUNDS {
        let (low, high) = search_bounds(walk);
        if low >= high {
            break;
        }
        let middle = low.wrapping_add(high) >> 1;
        let Some(mapping) = UNWIND_MAPPINGS.get(middle) else {
            break;
        };
        if holds(mapping, address) {
            return middle;
        }
        if address < mapping.start {
            set_high(walk, middle);
        } else {
            set_low(walk, middle + 1);
        }
    }
    NONE
}

/// The rule that holds at `address`, a virtual address of the mapping's file.
#[inline(always)]
pub fn rule(walk: &mut Walk, mapping: &UnwindMapping, address: u64) -> Option<&'static Rule> {
    let page = address >> PAGE_BITS;
    if page >= u64::from(mapping.pages) {
        return None;
    }
    let page = mapping.first_page.wrapping_add(page as u32);
    set_bounds(walk, *UNWIND_PAGES.get(page)?, *UNWIND_PAGES.get(page.wrapping_add(1))?);
    UNWIND_RULES.get(find_rule(walk, address as u16))
}

/// Number of the rule of the last row at or before `low`, of those within the bounds set; every page begins with one.
#[inline(always)]
fn find_rule(walk: &mut Walk, low_address: u16) -> u32 {
    for _ in 0..ROW_ROUNDS {
        let (low, high) = search_bounds(walk);
        if low >= high {
            break;
        }
        let middle = low.wrapping_add(high) >> 1;
        if row_low(row(middle)) <= low_address {
            set_low(walk, middle + 1);
        } else {
            set_high(walk, middle);
        }
    }
    u32::from(row_rule(row(search_bounds(walk).0.wrapping_sub(1))))
}

#[inline(always)]
fn holds(mapping: &UnwindMapping, address: u64) -> bool {
    address >= mapping.start && address < mapping.end
}

#[inline(always)]
fn row(index: u32) -> u32 {
    match UNWIND_ROWS.get(index / ROWS_PER_ELEMENT as u32) {
        // SAFETY: the index is masked to the element's length.
        Some(element) => unsafe { *element.as_ptr().add(index as usize & (ROWS_PER_ELEMENT - 1)) },
        None => 0,
    }
}

/// First mapping and number of mappings of the table in force: userspace fills the other half, and then switches.
#[inline(always)]
fn bounds() -> (u32, u32) {
    match STATE.get_ptr(0) {
        // SAFETY: a valid pointer; both halves of the word change together.
        Some(state) => {
            // SAFETY: as above.
            let both = unsafe { read_volatile(&raw const (*state).unwind_mappings) };
            (both as u32, (both >> 32) as u32)
        }
        None => (0, 0),
    }
}

/// Whether a frame lies where the program's first stack began: the loader's and the program's first code have no
/// unwinding information, and no caller.
#[inline(always)]
pub fn is_stack_start(stack_pointer: u64) -> bool {
    match STATE.get_ptr(0) {
        // SAFETY: a valid pointer to shared memory.
        Some(state) => {
            // SAFETY: as above.
            let start = unsafe { read_volatile(&raw const (*state).stack_start) };
            start != 0 && stack_pointer >= start.wrapping_sub(FIRST_FRAME) && stack_pointer <= start
        }
        None => false,
    }
}

#[inline(always)]
fn search_bounds(walk: &Walk) -> (u32, u32) {
    // SAFETY: valid references.
    unsafe { (read_volatile(&raw const walk.low), read_volatile(&raw const walk.high)) }
}

#[inline(always)]
fn set_bounds(walk: &mut Walk, low: u32, high: u32) {
    set_low(walk, low);
    set_high(walk, high);
}

#[inline(always)]
fn set_low(walk: &mut Walk, low: u32) {
    // SAFETY: a valid reference.
    unsafe { write_volatile(&raw mut walk.low, low) };
}

#[inline(always)]
fn set_high(walk: &mut Walk, high: u32) {
    // SAFETY: a valid reference.
    unsafe { write_volatile(&raw mut walk.high, high) };
}
