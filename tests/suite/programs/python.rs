//! python3: an interpreter, its own allocator over libc's, and a leak made through its foreign functions.

use std::process::Command;

use anyhow::{Result, ensure};
use leaktrace_tests::child::{Child, PATIENCE, run};
use leaktrace_tests::needs::Need;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::{TRACES, trial};
use libtest_mimic::Trial;

use super::sound;

const PYTHON: &str = "/usr/bin/python3";

const WORK: &str = "import json, hashlib, re
rows = [{'n': i, 's': str(i) * 5, 'l': list(range(i % 9))} for i in range(4000)]
text = json.dumps(rows)
print(len(text), hashlib.sha256(text.encode()).hexdigest(), json.loads(text) == rows)
print(len(re.findall('7+', text)))";

const SERVER: &str = "import ctypes, sys
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
print('up', flush=True)
for line in sys.stdin:
    n = int(line)
    for _ in range(n): libc.malloc(1000)
    print('did', n, sum(x * x for x in range(n)), flush=True)";

pub fn trials() -> Vec<Trial> {
    let needs = [TRACES, &[Need::File(PYTHON)]].concat();
    vec![
        trial("programs::python3::right_answers", &needs, right_answers),
        trial("programs::python3::a_leak_through_ctypes", &needs, leak_through_ctypes),
    ]
}

fn right_answers() -> Result<()> {
    let untraced = run(Command::new(PYTHON).args(["-c", WORK]))?;
    ensure!(untraced.status.success() && untraced.out.len() == 2, "{untraced:?}");
    let report = tracer::launch(&[], &[PYTHON, "-c", WORK])?.finish()?;
    ensure!(
        report.ended.out.starts_with(&untraced.out),
        "traced {:?}, untraced {:?}",
        report.ended.out,
        untraced.out
    );
    sound(&report.profile)
}

/// 100 blocks of 1,000 bytes: among all that an interpreter does, exactly those are called through libffi.
fn leak_through_ctypes() -> Result<()> {
    let mut python = Child::spawn(Command::new(PYTHON).args(["-c", SERVER]))?;
    python.out.expect("up")?;
    python.write("7\n")?;
    python.out.expect("did 7 91")?;
    let tracer = tracer::attach(python.pid(), &[])?;
    python.write("100\n")?;
    python.out.expect("did 100 328350")?;
    let profile = tracer.stop()?.profile;
    sound(&profile)?;
    let leaks = profile
        .sites
        .iter()
        .filter(|site| site.module().starts_with("libffi.so"));
    let (bytes, count) = leaks.fold((0, 0), |(bytes, count), site| {
        (bytes + site.amounts.live_bytes, count + site.amounts.live_count)
    });
    ensure!(
        (bytes, count) == (100_000, 100),
        "{bytes} bytes in {count} blocks called through libffi"
    );
    python.close_stdin();
    ensure!(
        python.wait(PATIENCE)?.success(),
        "python did not end well: {}",
        python.tell()
    );
    Ok(())
}
