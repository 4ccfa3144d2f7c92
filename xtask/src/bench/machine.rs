//! What a number was measured on: without it, it says little.

use std::{fs, thread};

use serde_json::{Value, json};

/// One line for people.
pub fn text() -> String {
    let (processor, kernel, processors) = facts();
    format!("on {processor}, {processors} processors, Linux {kernel}; CPU time; min, median, max over rounds")
}

/// The same for programs.
pub fn json() -> Value {
    let (processor, kernel, processors) = facts();
    json!({"processor": processor, "kernel": kernel, "processors": processors})
}

/// Memory that could be had without swapping, bytes.
pub fn available_memory() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Resident memory of a process, bytes.
pub fn resident(pid: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

fn facts() -> (String, String, usize) {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = thread::available_parallelism().map_or(1, usize::from);
    (
        name.map_or("an unnamed processor", |name| name.1).into(),
        kernel.trim().into(),
        count,
    )
}

/// The field of a `/proc` file that counts in kB, in bytes.
fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_are_read() {
        let text = "MemTotal:       100 kB\nMemAvailable:    7 kB\n";
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(7168));
        assert_eq!(kilobytes(text, "VmRSS:"), None);
    }
}
