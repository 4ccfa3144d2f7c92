//! The truth that a fixture tells: what each of its functions allocated, and still holds.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// How a fixture's line of truth starts.
pub const START: &str = "{\"sites\":{";

/// Bytes and blocks of one function. Read from the four fields by name, or from a list of them in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Amounts {
    /// Bytes outstanding.
    pub live_bytes: u64,
    /// Blocks outstanding.
    pub live_count: u64,
    /// Bytes allocated, freed or not.
    pub allocated_bytes: u64,
    /// Blocks allocated, freed or not.
    pub allocated_count: u64,
}

/// What a fixture says of its own functions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Truth {
    /// By function name.
    pub sites: BTreeMap<String, Amounts>,
}

impl std::ops::AddAssign for Amounts {
    fn add_assign(&mut self, other: Self) {
        self.live_bytes += other.live_bytes;
        self.live_count += other.live_count;
        self.allocated_bytes += other.allocated_bytes;
        self.allocated_count += other.allocated_count;
    }
}

impl Truth {
    /// Reads the line that a fixture prints.
    pub fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line).with_context(|| format!("this is no truth: {line}"))
    }

    /// The sum over all functions.
    pub fn total(&self) -> Amounts {
        let mut total = Amounts::default();
        self.sites.values().for_each(|amounts| total += *amounts);
        total
    }
}
