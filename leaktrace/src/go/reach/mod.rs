//! Goroutines that wait for ever, proven by what can be reached.
//!
//! The heap, the variables and the stacks are copied while the process runs, and marked from the roots as its garbage
//! collector would: every word that could be a pointer is taken for one. A goroutine that is blocked on channels or
//! semaphores is no root; it becomes one when any of what it waits for is reached. One that never does can be woken by
//! nobody. The copy may be torn, but to wait for ever is for ever: who is asked twice and is lost twice, is lost.
//!
//! Not told: goroutines that wait on a `sync.Cond`, and those that wait for what a variable or a stack still names
//! although nobody will use it. So this proves leaks and never their absence.

mod blocked;
mod heap;
mod holders;
mod mark;
mod paths;
mod roots;
mod variables;

use std::collections::HashMap;

use super::goroutines::{Goroutine, Snapshot};
use super::runtime::{GoError, Runtime};
use blocked::Waits;
use heap::Heap;
use mark::Marker;

pub use blocked::Object;
pub use holders::{Found, find as holders};

/// What one look at the heap has found.
#[derive(Debug, Default)]
pub struct Unreachable {
    /// What each lost goroutine waits for, by the address of its structure and its number.
    pub lost: HashMap<(u64, u64), Vec<Object>>,
    /// How many goroutines are blocked on something that can be looked for.
    pub examined: u64,
    /// Bytes of the heap that were copied: those that can hold pointers.
    pub heap_bytes: u64,
    /// Bytes that could not be read, of the heap, the variables and the stacks.
    pub unreadable: u64,
}

/// Which goroutines of `snapshot` nobody can wake, as far as one look can tell.
pub fn unreachable(runtime: &Runtime, snapshot: &Snapshot) -> Result<Unreachable, GoError> {
    if runtime.has_others {
        return Err(runtime.no_proof("it has plugins or other libraries in Go, whose variables are not looked through"));
    }
    let heap = Heap::copy(runtime)?;
    let waits = Waits::read(runtime, snapshot)?;
    let mut result = Unreachable {
        heap_bytes: heap.copied,
        unreadable: heap.unreadable,
        ..Unreachable::default()
    };
    let mut marker = Marker::new(&heap);
    // All goroutines name each other in the runtime's own lists: they are no way to reach anything.
    for &address in &snapshot.structures {
        marker.forbid(address);
    }
    let live: Vec<&Goroutine> = snapshot
        .goroutines
        .iter()
        .filter(|one| !waits.is_examined(one))
        .collect();
    result.unreadable += roots::push_variables(runtime, &mut marker)?;
    for special in &heap.specials {
        marker.reach(special.object);
        special.words.iter().for_each(|&word| marker.reach(word));
    }
    result.unreadable += roots::push_goroutines(runtime, &mut marker, &live)?;
    result.examined = waits.examined.len() as u64;
    for (index, (_, objects)) in waits.examined.iter().enumerate() {
        // What is no object of the heap is a variable, or on a stack: it is there for whoever knows it.
        if objects.iter().any(|object| !marker.watch(object.address(), index)) {
            marker.wake(index);
        }
    }
    loop {
        marker.run();
        let woken = marker.take_woken();
        if woken.is_empty() {
            break;
        }
        let woken: Vec<&Goroutine> = woken
            .iter()
            .filter_map(|&index| Some(waits.examined.get(index)?.0))
            .collect();
        result.unreadable += roots::push_goroutines(runtime, &mut marker, &woken)?;
    }
    for (index, (goroutine, objects)) in waits.examined.iter().enumerate() {
        if !marker.is_awake(index) {
            result.lost.insert((goroutine.address, goroutine.id), objects.clone());
        }
    }
    Ok(result)
}
