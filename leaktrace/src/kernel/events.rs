//! Records of the ring buffer, read into owned data.

use std::mem::offset_of;

use leaktrace_common::events::{
    MappingRecord, ProcessRecord, StackEnd, StackRecord, TAG_MAPPING, TAG_PROCESS, TAG_STACK,
};
use leaktrace_common::go::{SpanRecord, TAG_LARGE, TAG_REFILLED, TAG_UNCACHED, UncachedRecord};

/// A record of Go's heap.
#[derive(Clone, Debug)]
pub enum SpanEvent {
    /// A span was handed out.
    HandedOut(Box<SpanRecord>),
    /// A span was given back.
    Uncached(UncachedRecord),
}

impl SpanEvent {
    /// Reads a record; nothing for one that is not whole or has an unknown tag.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match u32::from_ne_bytes(*bytes.first_chunk()?) {
            TAG_REFILLED | TAG_LARGE => Some(Self::HandedOut(Box::new(read(bytes)?))),
            TAG_UNCACHED => Some(Self::Uncached(read(bytes)?)),
            _ => None,
        }
    }
}

/// A record.
#[derive(Clone, Debug)]
pub enum Event {
    /// A stack seen for the first time.
    Stack {
        /// Index into the site table.
        site: u32,
        /// Index of the probe.
        probe: u32,
        /// Hash of process and frames.
        hash: u64,
        /// Return addresses, innermost first.
        frames: Vec<u64>,
        /// How the walk ended.
        end: StackEnd,
        /// How often the process's loader had unmapped code before.
        code_removed: u64,
    },
    /// A change to the process's mappings.
    Mapping(MappingRecord),
    /// Something happened to a process.
    Process(ProcessRecord),
}

impl Event {
    /// Reads a record, a stack's being cut behind its last frame; nothing for one that is not whole or has an unknown tag.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match u32::from_ne_bytes(*bytes.first_chunk()?) {
            TAG_STACK => stack(bytes),
            TAG_MAPPING => Some(Self::Mapping(read(bytes)?)),
            TAG_PROCESS => Some(Self::Process(read(bytes)?)),
            _ => None,
        }
    }
}

fn stack(bytes: &[u8]) -> Option<Event> {
    let length = bytes.len().min(size_of::<StackRecord>());
    if length < offset_of!(StackRecord, frames) {
        return None;
    }
    let mut whole = [0; size_of::<StackRecord>()];
    whole[..length].copy_from_slice(&bytes[..length]);
    let record: StackRecord = read(&whole)?;
    Some(Event::Stack {
        site: record.site,
        probe: record.probe,
        hash: record.hash,
        frames: record
            .frames
            .iter()
            .take(record.frame_count as usize)
            .copied()
            .collect(),
        end: StackEnd::from_raw(record.end),
        code_removed: record.code_removed,
    })
}

fn read<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: long enough, and any bytes make a valid value of plain data.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
