//! Stacks as Go's profiles print them for people: a line for each call, in columns. Pure.

use std::io::{self, Write};

use super::label::one_line;
use crate::profile::Frame;

/// Columns of a tab.
const TAB: usize = 8;

/// A call: its address, and if it has a name, that and where it is.
struct Line {
    address: u64,
    named: Option<(String, String)>,
}

/// Writes the return addresses of a stack: ` 0x401234 0x401300`, each once.
///
/// # Errors
/// What `out` refused.
pub(super) fn write_addresses(frames: &[Frame], out: &mut dyn Write) -> io::Result<()> {
    let called = frames.iter().filter(|frame| !frame.inlined);
    called
        .into_iter()
        .try_for_each(|frame| write!(out, " {:#x}", frame.address))
}

/// Writes a line for each call, and an empty one. Functions of Go's runtime are left out where the stack begins, unless
/// there is nothing else. `offset` says how far a return address is from the beginning of its function, where that is
/// known.
///
/// # Errors
/// What `out` refused.
pub(super) fn write_record(
    frames: &[Frame],
    offset: impl Fn(u64) -> Option<u64>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let is_runtime = |frame: &Frame| frame.name().is_some_and(|name| name.starts_with("runtime."));
    let shown = frames.iter().position(|frame| !is_runtime(frame)).unwrap_or(0);
    let shown = frames.get(shown..).unwrap_or_default();
    let shown = shown.iter().filter(|frame| frame.name() != Some("runtime.goexit"));
    let lines: Vec<Line> = shown.map(|frame| line(frame, &offset)).collect();
    for run in lines.chunk_by(|a, b| a.named.is_some() == b.named.is_some()) {
        write_run(run, out)?;
    }
    writeln!(out)
}

fn line(frame: &Frame, offset: &impl Fn(u64) -> Option<u64>) -> Line {
    // The call itself: a return address points behind it.
    let named = frame.name().map(|name| {
        let offset =
            offset(frame.address).map_or_else(String::new, |offset| format!("+{:#x}", offset.saturating_sub(1)));
        let place = match (&frame.file, frame.line) {
            (Some(file), Some(line)) => format!("{}:{line}", one_line(file)),
            _ => one_line(frame.module_name()).into_owned(),
        };
        (format!("{}{offset}", one_line(name)), place)
    });
    Line {
        address: frame.address.saturating_sub(1),
        named,
    }
}

/// Lines with the same number of columns, which are aligned.
fn write_run(run: &[Line], out: &mut dyn Write) -> io::Result<()> {
    let address = |line: &Line| format!("{:#x}", line.address);
    let widest = run.iter().map(|line| address(line).len()).max().unwrap_or(0);
    let names = run.iter().filter_map(|line| Some(width(&line.named.as_ref()?.0)));
    let widest_name = names.max().unwrap_or(0);
    for line in run {
        let address = address(line);
        match &line.named {
            None => writeln!(out, "#\t{address}")?,
            Some((name, place)) => {
                let (tabs, more) = (tabs(widest, address.len()), tabs(widest_name, width(name)));
                writeln!(out, "#\t{address}{tabs}{name}{more}{place}")?;
            }
        }
    }
    Ok(())
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// What fills a column that has room for `widest`, one apart from the next.
fn tabs(widest: usize, width: usize) -> String {
    let column = (widest + 1).next_multiple_of(TAB);
    "\t".repeat((column - width).div_ceil(TAB))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(address: u64, function: &str, file: Option<&str>) -> Frame {
        Frame {
            address,
            module: "/usr/lib/libz.so".to_owned(),
            function: (!function.is_empty()).then(|| function.to_owned()),
            file: file.map(str::to_owned),
            line: file.map(|_| 7),
            ..Frame::default()
        }
    }

    fn written(frames: &[Frame]) -> String {
        let mut out = Vec::new();
        write_record(
            frames,
            |address| (address > 0x40_0000).then_some(address & 0xff),
            &mut out,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_as_by_gos_own_writer() {
        let frames = [
            frame(0x47_b6d5, "runtime.gopark", Some("/go/proc.go")),
            frame(0x47_b6e5, "main.wait", Some("/src/main.go")),
            frame(0x47_b6f5, "runtime.deferreturn", Some("/go/panic.go")),
            frame(0x47_b605, "main.(*server).serve.func1.2", Some("/src/main.go")),
            frame(0x47_b601, "runtime.goexit", Some("/go/asm.s")),
        ];
        assert_eq!(
            written(&frames),
            "#\t0x47b6e4\tmain.wait+0xe4\t\t\t\t/src/main.go:7\n\
             #\t0x47b6f4\truntime.deferreturn+0xf4\t\t/go/panic.go:7\n\
             #\t0x47b604\tmain.(*server).serve.func1.2+0x4\t/src/main.go:7\n\n"
        );
        assert_eq!(
            written(&frames[..1]),
            "#\t0x47b6d4\truntime.gopark+0xd4\t/go/proc.go:7\n\n"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let frames = [frame(0x1001, "", None), frame(0x1101, "inflate\n", None)];
        assert_eq!(written(&frames), "#\t0x1000\n#\t0x1100\tinflate\tlibz.so\n\n");
        assert_eq!(written(&[]), "\n");
        let mut out = Vec::new();
        write_addresses(&frames, &mut out).unwrap();
        assert_eq!(out, b" 0x1001 0x1101");
    }
}
