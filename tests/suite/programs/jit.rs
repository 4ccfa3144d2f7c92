//! Programs with a JIT compiler: their functions have names where they write a perf map.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::Child;
use leaktrace_tests::host;
use leaktrace_tests::needs::Need;
use leaktrace_tests::profile::{Profile, Site};
use leaktrace_tests::tracer;
use leaktrace_tests::trial::{traced_program, trial};
use libtest_mimic::Trial;

/// Keeps buffers, whose memory the C library gives, until it is told to end; one gate, so that functions are warm.
const SCRIPT: &str = "
const kept = [];
function leakyBuffer(size) { return Buffer.allocUnsafeSlow(size); }
function leakyWork() { for (let i = 0; i < 40; i++) kept.push(leakyBuffer(5000)); if (kept.length > 4000) kept.length = 0; }
let turns = 0;
function turn() { leakyWork(); if (++turns === 150) console.log('READY'); }
setInterval(turn, 5);
process.stdin.once('data', () => process.exit(0));
";

const CLASS: &str = "
import java.nio.ByteBuffer;
import java.util.ArrayList;
public class Leaky {
    static ArrayList<ByteBuffer> kept = new ArrayList<>();
    static ByteBuffer leakyBuffer(int size) { return ByteBuffer.allocateDirect(size); }
    static void leakyWork() { kept.add(leakyBuffer(3000)); if (kept.size() > 4000) kept.clear(); }
    public static void main(String[] words) throws Exception {
        for (int turn = 0; System.in.available() == 0; turn++) {
            for (int i = 0; i < 200; i++) leakyWork();
            if (turn == 150) System.out.println(\"READY\");
            Thread.sleep(5);
        }
    }
}
";

pub fn trials() -> Vec<Trial> {
    let java = [
        Need::Binary,
        Need::Tracing,
        Need::Program("jcmd"),
        Need::Program("javac"),
    ];
    let contained = [
        Need::Binary,
        Need::Tracing,
        Need::Program("node"),
        Need::Program("unshare"),
    ];
    vec![
        traced_program("programs::node_functions_have_names", "node", node),
        traced_program("programs::node_that_has_ended_has_names", "node", ended),
        traced_program("programs::a_perf_map_of_another_user", "node", of_another_user),
        traced_program("programs::launched_node_has_names", "node", launched),
        trial("programs::node_in_namespaces_has_names", &contained, contained_node),
        trial("programs::java_methods_have_names", &java, java_methods),
    ]
}

/// A directory with the script; not under `/tmp`, which one test hides.
fn script() -> Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir_in(host::target_dir())?;
    let path = dir.path().join("leaky.js");
    fs::write(&path, SCRIPT)?;
    Ok((dir, path))
}

fn node_command(script: &Path) -> Command {
    let mut command = Command::new("node");
    command
        .args(["--perf-basic-prof", "--interpreted-frames-native-stack"])
        // Else it leaves a log of its own where it is started.
        .args(["--no-logfile-per-isolate", "--logfile=/dev/null"])
        .arg(script);
    command
}

/// A node that runs; its perf map goes with it.
struct Node {
    child: Child,
    _dir: tempfile::TempDir,
    map: PathBuf,
}

impl Node {
    fn start() -> Result<Self> {
        let (dir, script) = script()?;
        let mut child = Child::spawn(&mut node_command(&script))?;
        child.out.expect("READY")?;
        let map = map_of(child.pid());
        Ok(Self { child, _dir: dir, map })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.map);
    }
}

fn map_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/perf-{pid}.map"))
}

/// A site below which a frame has `name`, from the perf map.
fn site_below<'a>(profile: &'a Profile, name: &str) -> Result<&'a Site> {
    let has_name = |site: &&Site| {
        let frames = site.stack.frames.iter();
        frames.filter(|frame| frame.module == "[perf map]").any(|frame| {
            frame
                .function
                .as_deref()
                .is_some_and(|function| function.contains(name))
        })
    };
    let found = profile
        .sites
        .iter()
        .filter(has_name)
        .max_by_key(|site| site.amounts.live_bytes);
    found.with_context(|| format!("{name} is nowhere: {:?}", profile.sites.first()))
}

fn node() -> Result<()> {
    let mut node = Node::start()?;
    let report = tracer::attach(node.child.pid(), &["--duration", "2s", "--output", "-"])?.finish()?;
    super::sound(&report.profile)?;
    let site = site_below(&report.profile, "leakyWork")?;
    ensure!(site.amounts.live_bytes >= 5000, "{site:?}");
    ensure!(!site.stack.whole, "a stack through guessed frames is not called whole");
    let shown = report
        .ended
        .out
        .iter()
        .any(|line| line.contains("leakyWork") && line.ends_with(" [perf map]"));
    ensure!(shown, "{:?}", report.ended.out);
    node.child.write("end\n")?;
    ensure!(
        node.child.wait(leaktrace_tests::child::PATIENCE)?.success(),
        "node did not end well"
    );
    Ok(())
}

/// The map is held open: neither the process nor the file need be there when the report is made.
fn ended() -> Result<()> {
    let mut node = Node::start()?;
    let tracer = tracer::attach(node.child.pid(), &[])?;
    std::thread::sleep(std::time::Duration::from_millis(2500));
    fs::remove_file(&node.map)?;
    node.child.write("end\n")?;
    site_below(&tracer.finish()?.profile, "leakyWork").map(drop)
}

/// From the first instruction to the last: the map comes into being during the trace.
fn launched() -> Result<()> {
    let (_dir, script) = script()?;
    let command = node_command(&script);
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let mut tracer = tracer::launch(&[], &words)?;
    tracer.child.out.expect("READY")?;
    tracer.child.write("end\n")?;
    let profile = tracer.finish()?.profile;
    super::sound(&profile)?;
    for pid in &profile.target.pids {
        fs::remove_file(map_of(*pid))?;
    }
    let site = site_below(&profile, "leakyWork")?;
    ensure!(site.amounts.live_bytes >= 5000, "{site:?}");
    Ok(())
}

/// Anybody can write to `/tmp`: who is neither the process's user nor root is not believed.
fn of_another_user() -> Result<()> {
    let node = Node::start()?;
    chown(&node.map, Some(65534), None)?;
    let report = tracer::attach(node.child.pid(), &["--duration", "1s", "--output", "-"])?.finish()?;
    ensure!(site_below(&report.profile, "").is_err(), "it was believed");
    let notes = &report.profile.accounting.notes;
    ensure!(notes.get("refused_perf_maps") == Some(&1), "{notes:?}");
    ensure!(report.words().contains("1 perf map not used"), "{:?}", report.ended.out);
    Ok(())
}

/// As in a container: process id 1, and a `/tmp` of its own.
fn contained_node() -> Result<()> {
    let (_dir, script) = script()?;
    let node = node_command(&script);
    let steps = r#"mount -t tmpfs none /tmp && exec "$@""#;
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
            "sh",
            "-c",
            steps,
            "sh",
        ])
        .arg(node.get_program())
        .args(node.get_args());
    let mut child = Child::spawn(&mut command)?;
    child.out.expect("READY")?;
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.pid()))?;
    let pid = children
        .trim()
        .parse()
        .with_context(|| format!("children: {children:?}"))?;
    ensure!(!map_of(1).exists() && !map_of(pid).exists(), "its /tmp is not its own");
    let report = tracer::attach(pid, &["--duration", "2s"])?.finish()?;
    site_below(&report.profile, "leakyWork").map(drop)
}

/// Java writes its map when it is asked to, and from its beginning each time.
fn java_methods() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("Leaky.java"), CLASS)?;
    let compiled = Command::new("javac")
        .arg("Leaky.java")
        .current_dir(dir.path())
        .status()?;
    ensure!(compiled.success(), "javac: {compiled}");
    let mut java = Command::new("java");
    java.args(["-XX:+PreserveFramePointer", "-Xmx256m", "Leaky"])
        .current_dir(dir.path());
    let mut child = Child::spawn(&mut java)?;
    child.out.expect("READY")?;
    let map = || -> Result<()> {
        let asked = Command::new("jcmd")
            .arg(child.pid().to_string())
            .arg("Compiler.perfmap")
            .output()?;
        ensure!(asked.status.success(), "{asked:?}");
        Ok(())
    };
    map()?;
    let tracer = tracer::attach(child.pid(), &[])?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    // What was compiled meanwhile.
    map()?;
    let profile = tracer.stop()?.profile;
    fs::remove_file(map_of(child.pid()))?;
    super::sound(&profile)?;
    site_below(&profile, "Leaky.").map(drop)?;
    site_below(&profile, "allocateMemory").map(drop)?;
    child.write("end\n")?;
    ensure!(
        child.wait(leaktrace_tests::child::PATIENCE)?.success(),
        "java did not end well"
    );
    Ok(())
}
