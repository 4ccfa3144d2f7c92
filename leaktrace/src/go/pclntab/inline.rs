//! Which calls the compiler has inlined at an instruction: the tree of them that each function has.

use super::super::bytes::{i32_at, u32_at};
use super::{Call, Function, INLINE_INDEX, INLINE_TREE, Table};

/// Most calls inlined into each other at one instruction; the compiler's own limits keep it far below.
const MAX_DEPTH: usize = 256;
/// How many functions with inlined calls must make sense before the trees are trusted.
const SAMPLE: usize = 64;
/// How many functions are looked at for that.
const LOOKED_AT: usize = 1 << 16;
/// Stands for no data.
const NONE: u32 = u32::MAX;

/// The calls `distance` bytes into a function, innermost first. The last is the function itself.
pub fn calls<'a>(table: &'a Table, function: &Function, distance: u64) -> Vec<Call<'a>> {
    let mut calls = Vec::new();
    let mut distance = distance;
    if let Some(tree) = tree(table, function) {
        while calls.len() < MAX_DEPTH
            && let Some(inlined) = inlined(table, function, tree, distance)
        {
            let (file, line) = table.place(function, distance);
            calls.push(Call {
                function: inlined.name,
                file,
                line,
            });
            distance = inlined.parent;
        }
    }
    let (file, line) = table.place(function, distance);
    let own = table.name(function).map(|function| Call { function, file, line });
    calls.extend(own);
    calls
}

/// Whether the table's data is that of its functions: it is found by an address that depends on the version.
pub fn fits(table: &Table) -> bool {
    let trees = table
        .functions()
        .take(LOOKED_AT)
        .filter_map(|function| Some((function, tree(table, &function)?)));
    let mut seen = 0;
    for (function, tree) in trees.take(SAMPLE) {
        let first = entry(table, tree, 0);
        if first.is_none_or(|first| first.parent >= function.end.saturating_sub(function.start)) {
            return false;
        }
        seen += 1;
    }
    seen > 0
}

struct Inlined<'a> {
    name: &'a [u8],
    /// The instruction that has the file and line of the call, in bytes from the function's first.
    parent: u64,
}

/// The innermost call inlined at an instruction.
fn inlined<'a>(table: &'a Table, function: &Function, tree: usize, distance: u64) -> Option<Inlined<'a>> {
    let lists = u32_at(&table.bytes, function.at + 28)? as usize;
    if lists <= INLINE_INDEX {
        return None;
    }
    let list = u32_at(&table.bytes, lists_of(table, function) + 4 * INLINE_INDEX)?;
    let index = usize::try_from(table.value(list, distance)?).ok()?;
    entry(table, tree, index)
}

/// Where a function's inline tree is in the table's data.
fn tree(table: &Table, function: &Function) -> Option<usize> {
    let fixed = table.header.layout.function;
    let count = *table.bytes.get((function.at + fixed).checked_sub(1)?)?;
    if usize::from(count) <= INLINE_TREE {
        return None;
    }
    let lists = u32_at(&table.bytes, function.at + 28)? as usize;
    let data = lists_of(table, function).checked_add(lists.checked_mul(4)?)?;
    let offset = u32_at(&table.bytes, data.checked_add(4 * INLINE_TREE)?)?;
    (offset != NONE).then_some(offset as usize)
}

fn entry(table: &Table, tree: usize, index: usize) -> Option<Inlined<'_>> {
    let layout = table.header.layout;
    let at = tree.checked_add(index.checked_mul(layout.inlined)?)?;
    let number = |field: usize| i32_at(&table.data, at.checked_add(field)?);
    Some(Inlined {
        name: table.name_at(number(layout.inlined_name)?)?,
        parent: u64::try_from(number(layout.inlined_parent)?).ok()?,
    })
}

/// Where the lists of values of a function are named, one number each, and behind them its data.
fn lists_of(table: &Table, function: &Function) -> usize {
    function.at + table.header.layout.function
}
