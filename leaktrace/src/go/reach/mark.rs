//! Marking: what can be reached. Pure.

use std::collections::HashMap;

use super::heap::{Heap, Span};
use crate::go::bytes::u64_at;

/// What has been reached so far.
pub struct Marker<'a> {
    heap: &'a Heap,
    /// One bit for each object.
    marked: Bits,
    /// Objects that goroutines wait for.
    watched: Bits,
    watchers: HashMap<u64, Vec<usize>>,
    /// Objects that are reached, and not looked through yet.
    work: Vec<(&'a Span, u64)>,
    woken: Vec<usize>,
    awake: std::collections::HashSet<usize>,
}

impl<'a> Marker<'a> {
    /// Nothing is reached yet.
    pub fn new(heap: &'a Heap) -> Self {
        Self {
            heap,
            marked: Bits::new(heap.objects),
            watched: Bits::new(heap.objects),
            watchers: HashMap::new(),
            work: Vec::new(),
            woken: Vec::new(),
            awake: std::collections::HashSet::new(),
        }
    }

    /// Never goes through the object at `address`.
    pub fn forbid(&mut self, address: u64) {
        if let Some((span, number)) = self.heap.find(address) {
            self.marked.set(span.first + number);
        }
    }

    /// Wakes `watcher` when the object at `address` is reached. Says whether there is such an object.
    pub fn watch(&mut self, address: u64, watcher: usize) -> bool {
        let Some((span, number)) = self.heap.find(address) else {
            return false;
        };
        let object = span.first + number;
        if self.marked.get(object) {
            self.wake(watcher);
        }
        self.watched.set(object);
        self.watchers.entry(object).or_default().push(watcher);
        true
    }

    /// Wakes a watcher, if that was not done before.
    pub fn wake(&mut self, watcher: usize) {
        if self.awake.insert(watcher) {
            self.woken.push(watcher);
        }
    }

    /// Whether a watcher was woken.
    pub fn is_awake(&self, watcher: usize) -> bool {
        self.awake.contains(&watcher)
    }

    /// Those woken since the last time.
    pub fn take_woken(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.woken)
    }

    /// Reaches what every word of `bytes` points to.
    pub fn reach_all(&mut self, bytes: &[u8]) {
        bytes
            .chunks_exact(8)
            .filter_map(|chunk| u64_at(chunk, 0))
            .for_each(|word| self.reach(word));
    }

    /// Reaches what `word` points to, if it is a pointer.
    pub fn reach(&mut self, word: u64) {
        let heap = self.heap;
        let Some((span, number)) = heap.find(word) else {
            return;
        };
        let object = span.first + number;
        if !self.marked.set(object) {
            return;
        }
        if self.watched.get(object) {
            for watcher in self.watchers.remove(&object).unwrap_or_default() {
                self.wake(watcher);
            }
        }
        if span.piece.is_some() {
            self.work.push((span, number));
        }
    }

    /// Follows all that is reached.
    pub fn run(&mut self) {
        let heap = self.heap;
        while let Some((span, number)) = self.work.pop() {
            self.reach_all(heap.contents(span, number));
        }
    }
}

/// A set of numbers below a limit.
pub struct Bits(Vec<u64>);

impl Bits {
    /// None yet.
    pub fn new(limit: u64) -> Self {
        Self(vec![0; limit.div_ceil(64) as usize])
    }

    /// Whether a number is in it.
    pub fn get(&self, number: u64) -> bool {
        self.0
            .get((number / 64) as usize)
            .is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Adds a number; false if it was in the set before.
    pub fn set(&mut self, number: u64) -> bool {
        let Some(word) = self.0.get_mut((number / 64) as usize) else {
            return false;
        };
        let before = *word;
        *word |= 1 << (number % 64);
        before != *word
    }
}
