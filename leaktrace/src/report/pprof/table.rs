//! Values kept once, each found by its index. Pure.

use std::collections::HashMap;
use std::hash::Hash;

/// Different values, in the order in which they were first seen.
pub(super) struct Table<T> {
    indices: HashMap<T, usize>,
    values: Vec<T>,
}

impl<T: Clone + Eq + Hash> Table<T> {
    /// A table with one value, at 0.
    pub(super) fn new(first: T) -> Self {
        Self {
            indices: HashMap::from([(first.clone(), 0)]),
            values: vec![first],
        }
    }

    /// A table without values.
    pub(super) fn empty() -> Self {
        Self {
            indices: HashMap::new(),
            values: Vec::new(),
        }
    }

    /// The index of `value`, which is added if it is new.
    pub(super) fn index(&mut self, value: T) -> usize {
        let next = self.values.len();
        *self.indices.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            next
        })
    }

    /// The values by index.
    pub(super) fn into_values(self) -> Vec<T> {
        self.values
    }
}
