//! Unwinding tables: `.eh_frame` and `.debug_frame` made compact enough for the kernel side to walk stacks with.
//!
//! Pure: works on bytes that it is given, does no I/O, and takes nothing in them on trust. Time and memory grow with
//! the size of the sections, whatever is in them.
//!
//! From a module's bytes, [`sections()`] finds what is needed, [`build`] makes a [`Table`], and [`RuleInterner::pack`]
//! puts it into the form of [`leaktrace_common::unwind`]. Tables are independent of each other, so [`build_all`] makes
//! them on all processors; packing shares the session's rules and goes one by one, at a cost that is only a copy.
//!
//! # Memory
//!
//! | | bytes |
//! | --- | --- |
//! | a [`Table`], while it is built | 8 for each row, and as much again until its functions are in order |
//! | a [`PackedModule`] | 4 for each row, 8 for each 64 KiB of code (a row and an entry of the page directory) |
//! | a rule, once per session | 16 |
//!
//! A row covers about 20 bytes of code: libc's 23,000 take 100 KB, and the largest libraries (1.1 million rows,
//! 100 MB of file) 4.5 MB. All binaries of a Debian system together have fewer than 5,000 distinct rules, of the
//! 65,536 that a row can name.

mod collect;
mod expression;
mod frames;
mod pack;
mod rows;
mod sections;
mod state;
#[cfg(test)]
mod tests;

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use object::ReadRef;

pub use pack::{PackedModule, RuleInterner};
pub use rows::{Row, Table, build};
pub use sections::{CodeSegment, FrameSection, GO_SECTION, UnwindSections, sections};

/// Why a module has no table. Stacks through it are walked by frame pointers, as a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwindError {
    /// Neither an executable nor a library.
    #[error("not an ELF file: stacks through it are guessed from frame pointers")]
    NotElf,
    /// Made for another machine.
    #[error("not a file for x86-64: trace it on a machine of its own kind")]
    OtherMachine,
    /// No executable segment, or segments that contradict each other.
    #[error("no executable code found in the file: check that it is not damaged")]
    NoCode,
    /// Neither `.eh_frame` nor `.debug_frame`.
    #[error("no .eh_frame or .debug_frame: stacks through it are guessed from frame pointers; do not strip them")]
    NoTables,
    /// More than 4 GiB of code, or a section of more than 256 MiB.
    #[error("too large to unwind (over 4 GiB of code or 256 MiB of tables): stacks through it are guessed")]
    TooLarge,
}

/// Makes the table of one module from the bytes of its file, or of its image in memory (the vDSO).
pub fn table<'data, R: ReadRef<'data>>(data: R) -> Result<Table, UnwindError> {
    build(&sections(data)?)
}

/// Makes the tables of many modules on all processors; in the order of `modules`. `build` makes one.
pub fn build_all<M: Sync>(
    modules: &[M],
    build: impl Fn(&M) -> Result<Table, UnwindError> + Sync,
) -> Vec<Result<Table, UnwindError>> {
    let threads = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(modules.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, module)) = take(modules, &next) {
            done.push((index, build(module)));
        }
        done
    };
    let mut all = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        // A thread could only fail by a panic, which is passed on.
        all.extend(others.into_iter().flat_map(|other| match other.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        all
    });
    all.sort_unstable_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, table)| table).collect()
}

fn take<'a, M>(modules: &'a [M], next: &AtomicUsize) -> Option<(usize, &'a M)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, modules.get(index)?))
}
