//! Real programs under load: nearly every allocation has a whole stack, or where it cannot be whole, says so.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, PATIENCE, run};
use leaktrace_tests::needs::Need;
use leaktrace_tests::profile::Profile;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::{TRACES, trial};
use libtest_mimic::Trial;

use super::{mostly_whole, sound};

/// Everything is loaded before the trace: what loads code while it is traced is tested for itself.
const PYTHON: &str = "import json, re, hashlib, sys
def work():
    rows = [{'n': i, 's': str(i) * 50, 'l': list(range(i % 9))} for i in range(4000)]
    text = json.dumps(rows)
    return len(json.loads(text)), len(re.findall('7+', text)), hashlib.sha256(text.encode()).hexdigest()[:8]
print('up', *work(), flush=True)
for line in sys.stdin: print('did', *work(), flush=True)";

const PERL: &str = "my %h; for my $i (1 .. 20000) { push @{$h{$i % 97}}, { n => $i, s => 'x' x ($i % 50) } }
my $n = 0; for (sort keys %h) { $n += scalar map { $_->{s} =~ /^(x+)$/ ? length $1 : () } @{$h{$_}} }
print \"$n\\n\";";

const SQL: &str = "create table t(a integer primary key, b text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
insert into t select i, hex(i * 7919) from n;
create index tb on t(b);
select count(*), sum(length(b)), max(b) from t where b like '3%' order by b;";

/// Programs that compile on their own. Each allocates in a loop, and prints what it has come to.
const JAVA: &str = "import java.util.*; class Load { public static void main(String[] a) {
    long n = 0; for (int i = 0; i < 300; i++) { List<String> l = new ArrayList<>();
    for (int j = 0; j < 500; j++) l.add(\"s\" + (i * j)); Collections.sort(l);
    n += l.get(250).length() + java.nio.ByteBuffer.allocateDirect(4096 + i).capacity(); } System.out.println(n); } }";

const NODE: &str =
    "let n = 0; for (let i = 0; i < 60; i++) { const l = []; for (let j = 0; j < 500; j++) l.push('s' + i * j);
l.sort(); n += l[250].length + Buffer.alloc(9000 + i).length + JSON.parse(JSON.stringify(l)).length; } console.log(n);";

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        whole("perl", || Ok(vec!["perl".into(), "-e".into(), PERL.into()])),
        whole("sqlite3", || Ok(vec!["sqlite3".into(), ":memory:".into(), SQL.into()])),
        with_needs("python3", python),
        with_needs("git", git),
        with_needs("clang", clang),
    ];
    trials.push(with_needs("java", java));
    trials.push(with_needs("node", || runs_on(&["node", "-e", NODE])));
    trials
}

fn with_needs(program: &'static str, test: fn() -> Result<()>) -> Trial {
    let needs = [TRACES, &[Need::Program(program)]].concat();
    trial(format!("programs::whole_stacks::{program}"), &needs, test)
}

fn whole(program: &'static str, words: fn() -> Result<Vec<String>>) -> Trial {
    let needs = [TRACES, &[Need::Program(program)]].concat();
    trial(format!("programs::whole_stacks::{program}"), &needs, move || {
        check(&words()?, 1000).map(drop)
    })
}

/// Runs a program untraced and traced: the same answer, and whole stacks of at least so many allocations.
fn check(words: &[String], least: u64) -> Result<Profile> {
    let profile = same_answer(words)?;
    sound(&profile)?;
    mostly_whole(&profile, least)?;
    Ok(profile)
}

fn same_answer<T: AsRef<std::ffi::OsStr>>(words: &[T]) -> Result<Profile> {
    let (program, arguments) = words.split_first().context("no program")?;
    let untraced = run(Command::new(program).args(arguments))?;
    ensure!(untraced.status.success(), "{untraced:?}");
    let report = tracer::launch(&[], words)?.finish()?;
    let out: Vec<&String> = report.ended.out.iter().take(untraced.out.len()).collect();
    ensure!(
        out == untraced.out.iter().collect::<Vec<_>>(),
        "traced {out:?}, untraced {:?}",
        untraced.out
    );
    Ok(report.profile)
}

fn text(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn python() -> Result<()> {
    let mut python = Child::spawn(Command::new("python3").args(["-c", PYTHON]))?;
    let before = python.out.expect("up")?;
    let tracer = tracer::attach(python.pid(), &[])?;
    for _ in 0..3 {
        python.write("\n")?;
        ensure!(
            python.out.expect("did")?.strip_prefix("did") == before.strip_prefix("up"),
            "{}",
            python.tell()
        );
    }
    let profile = tracer.stop()?.profile;
    sound(&profile)?;
    mostly_whole(&profile, 1000)?;
    python.close_stdin();
    ensure!(python.wait(PATIENCE)?.success(), "{}", python.tell());
    Ok(())
}

/// A repository of its own, with something to say about each commit: enough that the start, where its files are mapped
/// and unmapped, is little of it.
fn git() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let at = dir.path().to_str().context("not UTF-8")?;
    let who = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"];
    let git = |words: &[&str]| run(Command::new("git").args(["-C", at]).args(who).args(words));
    ensure!(git(&["init", "-q"])?.status.success(), "git does not work here");
    for round in 0..15 {
        for file in 0..60 {
            let lines: String = (0..60).map(|line| line_of(line * round, file)).collect();
            fs::write(dir.path().join(format!("file{file}")), lines)?;
        }
        let commit = ["commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", "another"];
        ensure!(
            git(&["add", "."])?.status.success() && git(&commit)?.status.success(),
            "no commit"
        );
    }
    check(
        &text(&["git", "--no-pager", "-C", at, "log", "-p", "--stat", "-M"]),
        1000,
    )
    .map(drop)
}

fn line_of(number: u32, file: u32) -> String {
    format!("{number} {file}\n")
}

/// The compiler proper: the driver would start it as a process of its own.
fn clang() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("much.c");
    let functions = (0..120).map(|n| {
        format!("#include <stdio.h>\nint f{n}(int *p, int n) {{ int s = {n}; for (int i = 0; i < n; i++) s += p[i] * s; printf(\"%d\", s); return s; }}\n")
    });
    fs::write(&source, functions.collect::<String>())?;
    let source = source.to_str().context("not UTF-8")?;
    let words = ["clang", "-fintegrated-cc1", "-O2", "-c", "-o", "/dev/null", source];
    check(&text(&words), 10_000).map(drop)
}

fn java() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("Load.java");
    fs::write(&source, JAVA)?;
    runs_on(&[
        "java",
        "-Xmx64m",
        "-XX:+UseSerialGC",
        source.to_str().context("not UTF-8")?,
    ])
}

/// Code that is compiled as it runs has no tables: the program gives its answer, and stacks through such code say that
/// they are not whole.
fn runs_on(words: &[&str]) -> Result<()> {
    let profile = same_answer(words)?;
    ensure!(profile.accounting.allocations > 1000, "{:?}", profile.accounting);
    let jitted = profile.sites.iter().filter(|site| {
        let frames = &site.stack.frames;
        frames
            .iter()
            .any(|frame| !frame.module.starts_with('/') && frame.module != "[vdso]")
    });
    let (marked, unmarked): (Vec<_>, Vec<_>) = jitted.partition(|site| !site.stack.whole);
    ensure!(
        unmarked.is_empty(),
        "{} stacks through code without tables are called whole: {:?}",
        unmarked.len(),
        unmarked.first()
    );
    ensure!(
        !marked.is_empty() && profile.whole_share() < 1.0,
        "of {} sites, none goes through compiled code",
        profile.sites.len()
    );
    Ok(())
}
