//! Marking that remembers the way: from which root, and over which objects, an object was first reached. Breadth-first,
//! so that the way is a shortest one. Pure.

use std::collections::{HashMap, VecDeque};

use super::heap::{Heap, Span};
use super::mark::Bits;
use crate::go::bytes::u64_at;

/// Stands for an object that is no way to anything.
const FORBIDDEN: u32 = u32::MAX;
/// Most words at which ways begin.
const MAX_ROOTS: usize = 1 << 26;
/// Most objects that may hold pointers, for each of which four bytes are kept.
pub const MAX_HOLDING: u64 = FORBIDDEN as u64 - MAX_ROOTS as u64 - 2;

/// A word at which a way begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start<K> {
    /// What it belongs to.
    pub kind: K,
    /// Where it stands.
    pub place: u64,
}

/// By what an object was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before<K> {
    /// A root.
    Root(Start<K>),
    /// The object with this number.
    Object(u64),
}

/// What has been reached so far, and how.
pub struct Paths<'a, K> {
    heap: &'a Heap,
    /// For each object that may hold pointers: 0 while it is not reached, then one more than the number of the object
    /// or, behind all objects, of the root by which it was.
    before: Vec<u32>,
    /// The same for objects that hold none, those that are looked for.
    leaves: HashMap<u64, u32>,
    wanted: Bits,
    roots: Vec<Start<K>>,
    /// Addresses of objects that are reached, and not looked through yet.
    work: VecDeque<u64>,
    /// Spans whose objects may hold pointers, by the numbers of those.
    spans: Vec<&'a Span>,
    /// Words at which no way could begin, for want of room.
    pub left_out: u64,
}

impl<'a, K: Copy> Paths<'a, K> {
    /// Nothing is reached yet. The heap must have no more than [`MAX_HOLDING`] objects that may hold pointers.
    pub fn new(heap: &'a Heap) -> Self {
        Self {
            heap,
            before: vec![0; heap.holding.min(MAX_HOLDING) as usize],
            leaves: HashMap::new(),
            wanted: Bits::new(heap.objects),
            roots: Vec::new(),
            work: VecDeque::new(),
            spans: heap.spans.iter().filter(|span| span.piece.is_some()).collect(),
            left_out: 0,
        }
    }

    /// Looks for the object at `address`; gives its number, if there is one.
    pub fn want(&mut self, address: u64) -> Option<u64> {
        let object = self.number(address)?;
        self.wanted.set(object);
        Some(object)
    }

    /// The number of the object that `address` points into.
    pub fn number(&self, address: u64) -> Option<u64> {
        let (span, number) = self.heap.find(address)?;
        Some(span.first + number)
    }

    /// Never goes through the object at `address`, unless that was done already.
    pub fn forbid(&mut self, address: u64) {
        self.replace(address, 0, FORBIDDEN);
    }

    /// Takes that back.
    pub fn allow(&mut self, address: u64) {
        self.replace(address, FORBIDDEN, 0);
    }

    fn replace(&mut self, address: u64, old: u32, new: u32) {
        let number = self.number(address);
        let before = number.and_then(|number| self.before.get_mut(number as usize));
        before
            .into_iter()
            .filter(|before| **before == old)
            .for_each(|before| *before = new);
    }

    /// Begins at the word `value`, which stands at `place`.
    pub fn begin(&mut self, kind: K, place: u64, value: u64) {
        if !self.is_new(value) {
            return;
        }
        if self.roots.len() >= MAX_ROOTS {
            self.left_out += 1;
            return;
        }
        let code = self.heap.holding + self.roots.len() as u64 + 1;
        self.roots.push(Start { kind, place });
        self.reach(value, code as u32);
    }

    /// Begins at every word of what stands at `place`.
    pub fn begin_all(&mut self, kind: K, place: u64, bytes: &[u8]) {
        for (word, at) in words(bytes) {
            self.begin(kind, place.wrapping_add(at), word);
        }
    }

    fn is_new(&self, word: u64) -> bool {
        let Some((span, number)) = self.heap.find(word) else {
            return false;
        };
        let object = span.first + number;
        match span.piece {
            Some(_) => self.before.get(object as usize) == Some(&0),
            None => self.wanted.get(object) && !self.leaves.contains_key(&object),
        }
    }

    fn reach(&mut self, word: u64, code: u32) {
        let Some((span, number)) = self.heap.find(word) else {
            return;
        };
        let object = span.first + number;
        if span.piece.is_none() {
            if self.wanted.get(object) {
                self.leaves.entry(object).or_insert(code);
            }
            return;
        }
        if let Some(before) = self.before.get_mut(object as usize).filter(|before| **before == 0) {
            *before = code;
            self.work.push_back(span.base + number * span.object_size);
        }
    }

    /// Follows all that is reached.
    pub fn run(&mut self) {
        let heap = self.heap;
        while let Some(address) = self.work.pop_front() {
            if let Some((span, number)) = heap.find(address) {
                let code = (span.first + number + 1) as u32;
                for (word, _) in words(heap.contents(span, number)) {
                    self.reach(word, code);
                }
            }
        }
    }

    /// By what an object was reached; nothing if it was not.
    pub fn before(&self, object: u64) -> Option<Before<K>> {
        let code = match usize::try_from(object).ok().and_then(|index| self.before.get(index)) {
            Some(&code) => code,
            None => *self.leaves.get(&object)?,
        };
        if code == FORBIDDEN {
            return None;
        }
        let code = u64::from(code).checked_sub(1)?;
        match code.checked_sub(self.heap.holding) {
            None => Some(Before::Object(code)),
            Some(root) => self.roots.get(root as usize).copied().map(Before::Root),
        }
    }

    /// Address and bytes of an object that may hold pointers, by its number.
    pub fn object(&self, number: u64) -> Option<(u64, u64)> {
        let after = self.spans.partition_point(|span| span.first <= number);
        let span = self.spans.get(after.checked_sub(1)?)?;
        let index = number - span.first;
        (index < span.objects).then(|| (span.base + index * span.object_size, span.object_size))
    }

    /// The words of an object, each with where it stands.
    pub fn words_of(&self, address: u64) -> impl Iterator<Item = (u64, u64)> + 'a {
        let found = self.heap.find(address);
        let contents = found.map(|(span, number)| self.heap.contents(span, number));
        words(contents.unwrap_or_default()).map(move |(word, at)| (word, address.wrapping_add(at)))
    }
}

/// Words, and how far from the start they stand.
fn words(bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let words = bytes.chunks_exact(8).filter_map(|chunk| u64_at(chunk, 0));
    words.zip((0..).step_by(8))
}
