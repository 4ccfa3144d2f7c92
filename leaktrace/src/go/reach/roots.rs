//! What a program starts from: its variables, and the stacks of goroutines that can go on.

use super::mark::Marker;
use crate::go::goroutines::{Goroutine, State};
use crate::go::runtime::{GoError, Runtime};

/// Most bytes read at once.
const PART: u64 = 4 << 20;
/// Most bytes of stacks that are held at once.
const BATCH: u64 = 64 << 20;
/// Most bytes of variables that are read: programs have some megabytes.
const MAX_VARIABLES: u64 = 4 << 30;
/// Most bytes of all stacks of one call: half a million goroutines with large stacks.
const MAX_STACKS: u64 = 32 << 30;
/// Bytes of the table in which goroutines wait for semaphores: it names them all, and is no way to reach anything.
pub const SEMAPHORES: u64 = 251 * 64;

/// Reaches what the program's variables point to. Gives how many bytes could not be read.
pub fn push_variables(runtime: &Runtime, marker: &mut Marker<'_>) -> Result<u64, GoError> {
    each_variable(runtime, |_, bytes| marker.reach_all(bytes))
}

/// Hands over the program's variables, part by part with its address. Gives how many bytes could not be read.
pub fn each_variable(runtime: &Runtime, mut take: impl FnMut(u64, &[u8])) -> Result<u64, GoError> {
    let mut unreadable = 0;
    for (start, end) in [runtime.module.data, runtime.module.bss] {
        let (mut at, end) = (start.wrapping_add(runtime.bias) & !7, end.wrapping_add(runtime.bias));
        let end = end.min(at.saturating_add(MAX_VARIABLES));
        while at < end {
            let size = PART.min(end - at);
            match runtime.memory.bytes(at, size as usize) {
                Ok(mut bytes) => {
                    blank(runtime, at, &mut bytes);
                    take(at, &bytes);
                }
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => unreadable += size,
                Err(error) => return Err(runtime.unreadable(error)),
            }
            at += size;
        }
    }
    Ok(unreadable)
}

/// Takes the table of semaphores out of a part of the variables.
fn blank(runtime: &Runtime, start: u64, bytes: &mut [u8]) {
    let Some(table) = runtime.globals.semaphores else {
        return;
    };
    let end = start + bytes.len() as u64;
    let (from, to) = (
        table.clamp(start, end),
        table.saturating_add(SEMAPHORES).clamp(start, end),
    );
    if let Some(part) = bytes.get_mut((from - start) as usize..(to - start) as usize) {
        part.fill(0);
    }
}

/// Reaches what these goroutines know: what is on their stacks, and in their structures.
pub fn push_goroutines(runtime: &Runtime, marker: &mut Marker<'_>, goroutines: &[&Goroutine]) -> Result<u64, GoError> {
    each_goroutine(runtime, goroutines, |_, _, bytes| marker.reach_all(bytes))
}

/// Hands over the structures and the stacks of these goroutines: whose it is, its address, and what stands there. Gives
/// how many bytes could not be read.
pub fn each_goroutine(
    runtime: &Runtime,
    goroutines: &[&Goroutine],
    mut take: impl FnMut(usize, u64, &[u8]),
) -> Result<u64, GoError> {
    let mut unreadable = 0;
    let (mut ranges, mut owners) = (Vec::new(), Vec::new());
    let (mut held, mut all) = (0, 0);
    for (number, goroutine) in goroutines.iter().enumerate() {
        ranges.push((goroutine.address, runtime.layout.g.size));
        if let Some((start, size)) = used_stack(goroutine) {
            all += size as u64;
            if all > MAX_STACKS {
                unreadable += size as u64;
            } else {
                ranges.push((start, size));
            }
        }
        owners.resize(ranges.len(), number);
        held += ranges.last().map_or(0, |&(_, size)| size as u64);
        if held < BATCH && number + 1 < goroutines.len() {
            continue;
        }
        let read = runtime
            .memory
            .pieces(&ranges)
            .map_err(|error| runtime.unreadable(error))?;
        for (index, ((start, size), owner)) in ranges.iter().zip(&owners).enumerate() {
            match read.get(index) {
                Some(bytes) => take(*owner, *start, bytes),
                None => unreadable += *size as u64,
            }
        }
        (held, ranges, owners) = (0, Vec::new(), Vec::new());
    }
    Ok(unreadable)
}

/// The part of its stack that a goroutine uses: all of it, while it runs.
fn used_stack(goroutine: &Goroutine) -> Option<(u64, usize)> {
    let (low, high) = goroutine.stack;
    let is_known = !matches!(goroutine.state, State::Running | State::Copying) && (low..high).contains(&goroutine.sp);
    let start = if is_known { goroutine.sp } else { low } & !7;
    let size = high.checked_sub(start)?;
    // The runtime allows a gigabyte.
    (size > 0 && size <= 2 << 30).then_some((start, size as usize))
}
