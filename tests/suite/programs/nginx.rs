//! nginx, answering while it is traced.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leaktrace_tests::child::{Child, PATIENCE};
use leaktrace_tests::host;
use leaktrace_tests::tracer;
use leaktrace_tests::trial::traced_program;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use super::sound;

pub fn trials() -> Vec<Trial> {
    vec![traced_program("programs::nginx", "nginx", answers)]
}

fn answers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("nginx.sock");
    let mut server = start(dir.path(), &socket)?;
    request(&socket).context("before the trace")?;
    let tracer = tracer::attach(server.pid(), &[])?;
    for number in 0..500 {
        request(&socket).with_context(|| format!("request {number}, traced"))?;
    }
    let profile = tracer.stop()?.profile;
    sound(&profile)?;
    ensure!(
        profile.accounting.allocations >= 500,
        "{} allocations for 500 requests",
        profile.accounting.allocations
    );
    let live = profile.accounting.live_bytes;
    ensure!(
        live < 65536,
        "{live} bytes are outstanding, and each request gave back its own"
    );
    request(&socket).context("after the trace")?;
    server.signal(Signal::SIGQUIT)?;
    ensure!(
        server.wait(PATIENCE)?.success(),
        "nginx did not end well: {}",
        server.tell()
    );
    Ok(())
}

fn start(dir: &Path, socket: &Path) -> Result<Child> {
    let place = dir.display();
    let config = dir.join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {place}/pid; error_log {place}/log;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {place}/a; proxy_temp_path {place}/b;\n\
           fastcgi_temp_path {place}/c; uwsgi_temp_path {place}/d; scgi_temp_path {place}/e;\n\
           server {{ listen unix:{}; location / {{ return 200 'right answer'; }} }} }}\n",
        socket.display()
    );
    fs::write(&config, text)?;
    let nginx = host::find_program("nginx").context("no nginx")?;
    let mut server = Child::spawn(Command::new(nginx).arg("-c").arg(&config).arg("-p").arg(dir))?;
    while !socket.exists() {
        ensure!(server.running()?, "nginx does not start: {}", server.tell());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(server)
}

fn request(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: here\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("right answer"),
        "answer {answer:?}"
    );
    Ok(())
}
