//! The stack of a goroutine that does not run: from where it stopped to where it began, as the runtime itself does it,
//! by the size that each function's frame has at each instruction.

use std::collections::HashMap;

use super::bytes::u64_at;
use super::goroutines::Goroutine;
use super::runtime::{GoError, Runtime};

/// Most frames of a stack.
const MAX_FRAMES: usize = 512;
/// How much of a stack is read, innermost first: most end within the first, and what is longer is read again.
const WINDOWS: [u64; 4] = [512, 8 << 10, 128 << 10, 2 << 20];
/// Most frames of all stacks of one look.
const MAX_ALL_FRAMES: usize = 1 << 26;
/// Most addresses remembered.
const MAX_KNOWN: usize = 1 << 20;

/// Different stacks: return addresses, innermost first. The first of them is empty.
#[derive(Debug)]
pub struct Stacks {
    different: Vec<Vec<u64>>,
    index: HashMap<Vec<u64>, usize>,
    frames_left: usize,
}

impl Default for Stacks {
    fn default() -> Self {
        Self {
            different: vec![Vec::new()],
            index: HashMap::from([(Vec::new(), 0)]),
            frames_left: MAX_ALL_FRAMES,
        }
    }
}

impl Stacks {
    /// The frames of a stack.
    pub fn get(&self, number: usize) -> &[u64] {
        self.different.get(number).map(Vec::as_slice).unwrap_or_default()
    }

    /// The number of the stack with these frames; the empty one's, if there is no room for another.
    fn number(&mut self, frames: &[u64]) -> usize {
        if let Some(&known) = self.index.get(frames) {
            return known;
        }
        if frames.len() > self.frames_left {
            return 0;
        }
        self.frames_left -= frames.len();
        let number = self.different.len();
        self.different.push(frames.to_vec());
        self.index.insert(frames.to_vec(), number);
        number
    }
}

/// Walks stacks, and remembers what it has learnt of each address.
#[derive(Debug, Default)]
pub struct Chains {
    known: HashMap<u64, Step>,
    frequent: Vec<(u64, Step)>,
}

/// What is to be done at an instruction.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The return address is so many bytes above the stack pointer.
    Up(u64),
    /// Nobody has called this.
    Top,
    /// It cannot be told who has.
    Lost,
}

/// A walk under way.
#[derive(Clone, Debug)]
struct Walk {
    /// Which goroutine's.
    index: usize,
    pc: u64,
    sp: u64,
    high: u64,
    /// The frame it begins with.
    first: u64,
    /// The frames so far, once a window was too small for all.
    frames: Vec<u64>,
}

impl Chains {
    /// For each goroutine, which of `stacks` it has, with those added that are new; the empty one, if it runs. A stack
    /// that could not be followed to its end is one whose last frame [`Chains::is_whole`] denies.
    pub fn walk(
        &mut self,
        runtime: &Runtime,
        goroutines: &[Goroutine],
        stacks: &mut Stacks,
    ) -> Result<Vec<usize>, GoError> {
        if self.known.len() > MAX_KNOWN {
            self.known.clear();
        }
        let mut walks: Vec<Walk> = goroutines
            .iter()
            .enumerate()
            .filter_map(|(index, one)| begin(index, one))
            .collect();
        let mut stack_of = vec![0; goroutines.len()];
        for window in WINDOWS {
            walks = self.walk_window(runtime, &walks, window, |walk, frames| {
                if let Some(slot) = stack_of.get_mut(walk.index) {
                    *slot = stacks.number(frames);
                }
            })?;
        }
        for walk in walks {
            if let Some(slot) = stack_of.get_mut(walk.index) {
                *slot = stacks.number(&walk.frames);
            }
        }
        Ok(stack_of)
    }

    /// Whether a stack that ends with this return address is whole.
    pub fn is_whole(&mut self, runtime: &Runtime, last: Option<&u64>) -> bool {
        last.is_some_and(|&last| matches!(self.step(runtime, last), Step::Top))
    }

    /// Reads a window of each stack and walks through it; hands over the frames of those that are at their end. Gives
    /// those that want to see more.
    fn walk_window(
        &mut self,
        runtime: &Runtime,
        walks: &[Walk],
        window: u64,
        mut ended: impl FnMut(&Walk, &[u64]),
    ) -> Result<Vec<Walk>, GoError> {
        let size = |walk: &Walk| window.min(walk.high - walk.sp) as usize;
        let ranges: Vec<(u64, usize)> = walks.iter().map(|walk| (walk.sp, size(walk))).collect();
        let (mut unfinished, mut frames) = (Vec::new(), Vec::new());
        let take = |number: usize, bytes: Option<&[u8]>| {
            let Some(walk) = walks.get(number) else { return };
            frames.clear();
            frames.extend(&walk.frames);
            if frames.is_empty() {
                frames.push(walk.first);
            }
            match bytes.and_then(|bytes| self.walk_one(runtime, walk, bytes, &mut frames)) {
                Some((pc, sp)) => unfinished.push(Walk {
                    pc,
                    sp,
                    frames: frames.clone(),
                    ..*walk
                }),
                None => ended(walk, &frames),
            }
        };
        runtime
            .memory
            .each(&ranges, take)
            .map_err(|error| runtime.unreadable(error))?;
        Ok(unfinished)
    }

    /// Walks through the part of a stack that was read. Gives where it is, if it leads out of it.
    fn walk_one(&mut self, runtime: &Runtime, walk: &Walk, bytes: &[u8], frames: &mut Vec<u64>) -> Option<(u64, u64)> {
        let (mut pc, mut sp) = (walk.pc, walk.sp);
        let mut step = self.step(runtime, pc);
        while frames.len() < MAX_FRAMES {
            let Step::Up(distance) = step else {
                return None;
            };
            let place = sp.checked_add(distance)?;
            if place.checked_add(8)? > walk.high {
                return None;
            }
            let Some(caller) = u64_at(bytes, (place - walk.sp) as usize) else {
                return Some((pc, sp));
            };
            step = self.step(runtime, caller);
            if matches!(step, Step::Lost) {
                return None;
            }
            frames.push(caller);
            (pc, sp) = (caller, place + 8);
        }
        None
    }

    fn step(&mut self, runtime: &Runtime, pc: u64) -> Step {
        // Before the table that any addresses may be in, one without a search, for those that are frequent.
        let slot = (pc.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize;
        match self.frequent.get(slot) {
            Some(&(known, step)) if known == pc => return step,
            _ => {}
        }
        let step = *self.known.entry(pc).or_insert_with(|| step(runtime, pc));
        if self.frequent.is_empty() {
            self.frequent = vec![(0, Step::Lost); 1 << 12];
        }
        if let Some(place) = self.frequent.get_mut(slot) {
            *place = (pc, step);
        }
        step
    }
}

fn begin(index: usize, goroutine: &Goroutine) -> Option<Walk> {
    let (low, high) = goroutine.stack;
    let on_stack = goroutine.sp.is_multiple_of(8) && (low..high).contains(&goroutine.sp);
    (goroutine.pc != 0 && goroutine.pc != u64::MAX && on_stack).then(|| Walk {
        index,
        pc: goroutine.pc,
        sp: goroutine.sp,
        high,
        // One that has not begun goes on at its first instruction: no call is before that.
        first: goroutine.pc + u64::from(goroutine.pc == goroutine.start),
        frames: Vec::new(),
    })
}

fn step(runtime: &Runtime, pc: u64) -> Step {
    let address = pc.wrapping_sub(runtime.bias);
    let Some(function) = runtime.table.find(address) else {
        return Step::Lost;
    };
    if runtime.table.is_outermost(&function) {
        return Step::Top;
    }
    match runtime.table.frame_size(&function, address) {
        Some(size) => Step::Up(size),
        None => Step::Lost,
    }
}
