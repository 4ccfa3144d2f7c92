//! How many goroutines there are, as `runtime.NumGoroutine` counts them: without those that the runtime has for itself.
//! Read from the runtime's list in one pass, and without their stacks.

use std::collections::HashMap;

use super::goroutines::List;
use super::runtime::{GoError, Runtime};
use super::shown;

/// Functions of the runtime whose goroutines count as the program's (`runtime.isSystemGoroutine`).
const OF_PROGRAM: [&str; 3] = ["runtime.main", "runtime.handleAsyncEvent", "runtime.corostart"];

/// Counts the goroutines of one process, and remembers whose functions are whose.
#[derive(Debug, Default)]
pub struct Counter {
    of_program: HashMap<u64, bool>,
}

impl Counter {
    /// How many there are now. Those that begin or end meanwhile are counted or not.
    ///
    /// # Errors
    /// The process has ended, or may not be read.
    pub fn count(&mut self, runtime: &Runtime) -> Result<u64, GoError> {
        let mut count = 0;
        List::read(runtime)?.each_start(runtime, |start| {
            let known = self
                .of_program
                .entry(start)
                .or_insert_with(|| is_of_program(runtime, start));
            count += u64::from(*known);
        })?;
        Ok(count)
    }
}

fn is_of_program(runtime: &Runtime, start: u64) -> bool {
    let function = runtime.table.find(start.wrapping_sub(runtime.bias));
    let name = function.and_then(|function| runtime.table.name(&function)).map(shown);
    name.is_none_or(|name| OF_PROGRAM.contains(&name.as_str()) || !name.starts_with("runtime."))
}
