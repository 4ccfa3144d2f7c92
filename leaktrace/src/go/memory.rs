//! Many reads of a process's memory in few system calls, without stopping it.

use std::io::{self, IoSliceMut};
use std::ops::Range;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::bytes::u64_at;
use crate::target::memory::read_memory;

/// Most ranges of one system call (`IOV_MAX`).
const MAX_RANGES: usize = 1024;
/// Most bytes of one system call.
const MAX_BYTES: usize = 32 << 20;
/// Most bytes held by one that is looked at piece by piece: they stay in the processor's caches.
const MAX_HELD: usize = 1 << 20;
/// Ranges that lie closer to each other than this are read in one piece.
const GAP: u64 = 4096;
/// Most bytes of one piece that is put together.
const MAX_RUN: u64 = 256 << 10;

/// The memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Its id.
    pub pid: u32,
}

/// What was read of many ranges, in their order.
#[derive(Debug, Default)]
pub struct Pieces {
    bytes: Vec<u8>,
    /// Where each begins and ends; empty if it could not be read.
    ranges: Vec<(usize, usize)>,
}

impl Pieces {
    /// The bytes of the range at `index`; none if they could not be read.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let &(start, end) = self.ranges.get(index)?;
        self.bytes.get(start..end).filter(|bytes| !bytes.is_empty())
    }
}

impl Memory {
    /// `size` bytes at `address`: all of them, or an error.
    pub fn bytes(self, address: u64, size: usize) -> io::Result<Vec<u8>> {
        read_memory(self.pid, address, size)
    }

    /// The word at `address`.
    pub fn word(self, address: u64) -> io::Result<u64> {
        u64_at(&self.bytes(address, 8)?, 0).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Reads each range (address and size): whole or not at all.
    ///
    /// # Errors
    /// The process has ended, or may not be read.
    pub fn pieces(self, ranges: &[(u64, usize)]) -> io::Result<Pieces> {
        let total: usize = ranges.iter().map(|(_, size)| size).sum();
        let mut pieces = Pieces {
            bytes: vec![0; total],
            ranges: Vec::with_capacity(ranges.len()),
        };
        let mut done = 0;
        while done < ranges.len() {
            let batch = batch(ranges.get(done..).unwrap_or_default(), MAX_BYTES);
            let start = pieces.ranges.last().map_or(0, |&(_, end)| end);
            let read = self.read_batch(batch, pieces.bytes.get_mut(start..).unwrap_or_default())?;
            let mut at = start;
            for (_, size) in batch.iter().take(read) {
                pieces.ranges.push((at, at + size));
                at += size;
            }
            done += read;
            if read < batch.len() {
                // The next one cannot be read.
                pieces.ranges.push((at, at));
                done += 1;
            }
        }
        Ok(pieces)
    }

    /// Reads each range (address and size), whole or not at all, and hands it to `take` with its index; in no order.
    /// Ranges near each other are read in one piece, which is far cheaper than a piece for each.
    ///
    /// # Errors
    /// The process has ended, or may not be read.
    pub fn each(self, ranges: &[(u64, usize)], mut take: impl FnMut(usize, Option<&[u8]>)) -> io::Result<()> {
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        order.sort_unstable_by_key(|&index| ranges.get(index));
        let sorted: Vec<(u64, usize)> = order.iter().filter_map(|&index| ranges.get(index).copied()).collect();
        let runs = runs(&sorted);
        let mut buffer = Vec::new();
        let mut rest = runs.as_slice();
        while !rest.is_empty() {
            let wanted: Vec<(u64, usize)> = rest.iter().take(MAX_RANGES).map(|run| (run.start, run.size)).collect();
            let wanted = batch(&wanted, MAX_HELD);
            let total = wanted.iter().map(|(_, size)| size).sum();
            if buffer.len() < total {
                buffer.resize(total, 0);
            }
            let read = self.read_batch(wanted, &mut buffer)?;
            let mut at = 0;
            for (number, run) in rest.iter().take(wanted.len().min(read + 1)).enumerate() {
                let bytes = buffer.get(at..at + run.size).filter(|_| number < read);
                at += run.size;
                for member in run.members.clone() {
                    let (Some(&index), Some(&(address, size))) = (order.get(member), sorted.get(member)) else {
                        continue;
                    };
                    let inside = (address - run.start) as usize;
                    match bytes {
                        Some(bytes) => take(index, bytes.get(inside..inside + size)),
                        // What lies between may not be there: each for itself.
                        None => take(index, read_memory(self.pid, address, size).ok().as_deref()),
                    }
                }
            }
            rest = rest.get(wanted.len().min(read + 1)..).unwrap_or_default();
        }
        Ok(())
    }

    /// How many of these ranges could be read, up to the first that could not.
    fn read_batch(self, batch: &[(u64, usize)], into: &mut [u8]) -> io::Result<usize> {
        let wanted: usize = batch.iter().map(|(_, size)| size).sum();
        let remote: Vec<RemoteIoVec> = batch
            .iter()
            .map(|&(address, size)| RemoteIoVec {
                base: address as usize,
                len: size,
            })
            .collect();
        let into = into.get_mut(..wanted).unwrap_or_default();
        let read = match process_vm_readv(Pid::from_raw(self.pid as i32), &mut [IoSliceMut::new(into)], &remote) {
            Ok(read) => read,
            // Nothing of the first could be read.
            Err(Errno::EFAULT) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut left = read;
        let whole = batch.iter().take_while(|(_, size)| {
            let fits = *size <= left;
            left = left.saturating_sub(*size);
            fits
        });
        Ok(whole.count())
    }
}

/// Ranges that are read in one piece.
struct Run {
    start: u64,
    size: usize,
    members: Range<usize>,
}

/// Puts ranges together, which are sorted by address.
fn runs(sorted: &[(u64, usize)]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, &(address, size)) in sorted.iter().enumerate() {
        let end = address.saturating_add(size as u64);
        if let Some(run) = runs.last_mut() {
            let gap = address.saturating_sub(run.start.saturating_add(run.size as u64));
            let together = (end - run.start).max(run.size as u64);
            if gap < GAP && together <= MAX_RUN {
                run.size = together as usize;
                run.members.end = index + 1;
                continue;
            }
        }
        runs.push(Run {
            start: address,
            size,
            members: index..index + 1,
        });
    }
    runs
}

/// The first ranges, as many as one system call may read, of `most` bytes together.
fn batch(ranges: &[(u64, usize)], most: usize) -> &[(u64, usize)] {
    let mut bytes = 0_usize;
    let count = ranges.iter().take(MAX_RANGES).take_while(|(_, size)| {
        bytes = bytes.saturating_add(*size);
        bytes <= most
    });
    // One that is larger than that is read alone.
    let count = count.count().max(1);
    ranges.get(..count).unwrap_or(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_left_out_and_the_rest_is_read() {
        let words: Vec<u64> = (0..5000).collect();
        let memory = Memory {
            pid: std::process::id(),
        };
        let mut ranges: Vec<(u64, usize)> = words.iter().map(|word| (std::ptr::from_ref(word) as u64, 8)).collect();
        for at in [0, 1, 1500, 4999] {
            ranges[at].0 = 8;
        }
        let pieces = memory.pieces(&ranges).unwrap();
        for (at, word) in words.iter().enumerate() {
            let expected = (ranges[at].0 != 8).then_some(*word);
            assert_eq!(pieces.get(at).and_then(|bytes| u64_at(bytes, 0)), expected, "{at}");
        }
        assert_eq!(pieces.get(5000), None);
        assert_eq!(memory.word(ranges[7].0).unwrap(), 7);
    }

    #[test]
    fn near_ranges_are_read_together_and_unreadable_ones_left_out() {
        let words: Vec<u64> = (0..100_000).collect();
        let memory = Memory {
            pid: std::process::id(),
        };
        // Backwards, far and near, one twice, and one that is not there.
        let mut ranges: Vec<(u64, usize)> = words
            .iter()
            .rev()
            .step_by(7)
            .map(|word| (std::ptr::from_ref(word) as u64, 8))
            .collect();
        ranges.extend([(8, 8), ranges[5], (words.as_ptr() as u64, 80_000)]);
        let mut seen = vec![0; ranges.len()];
        memory
            .each(&ranges, |index, bytes| {
                seen[index] += 1;
                let expected = ranges[index].0.saturating_sub(words.as_ptr() as u64) / 8;
                match bytes {
                    Some(bytes) => assert_eq!((u64_at(bytes, 0), bytes.len()), (Some(expected), ranges[index].1)),
                    None => assert_eq!(ranges[index].0, 8),
                }
            })
            .unwrap();
        assert!(seen.iter().all(|&times| times == 1));
        let gone = Memory { pid: i32::MAX as u32 };
        assert!(gone.each(&ranges, |_, _| ()).is_err());
    }

    #[test]
    fn ranges_far_apart_stay_apart() {
        let runs = runs(&[(0x1000, 0x1c0), (0x1200, 0x1c0), (0x9000, 8), (u64::MAX - 8, 4096)]);
        let shown: Vec<_> = runs
            .iter()
            .map(|run| (run.start, run.size, run.members.clone()))
            .collect();
        assert_eq!(
            shown,
            [(0x1000, 0x3c0, 0..2), (0x9000, 8, 2..3), (u64::MAX - 8, 4096, 3..4)]
        );
    }

    #[test]
    fn large_ranges_are_read_alone() {
        let large = vec![7_u8; MAX_BYTES + 1];
        let memory = Memory {
            pid: std::process::id(),
        };
        let pieces = memory.pieces(&[(large.as_ptr() as u64, large.len()); 2]).unwrap();
        assert!([0, 1].iter().all(|&at| pieces.get(at) == Some(&large[..])));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let memory = Memory { pid: i32::MAX as u32 };
        assert!(memory.pieces(&[(4096, 8)]).is_err());
    }
}
