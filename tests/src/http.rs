//! Asks a server for pages, as simply as it can be done: one request for each connection.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result};

use crate::child::PATIENCE;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Host and port in the address of a page.
pub fn host(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    rest.split('/').next().unwrap_or(rest)
}

/// A connection to where this page is.
pub fn connect(url: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(host(url)).with_context(|| format!("nobody listens at {url}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Gets a page.
pub fn get(url: &str) -> Result<Answer> {
    request(url, "GET", "")
}

/// Sends a request with more header lines, each ended by a line break, and reads all that is answered.
pub fn request(url: &str, method: &str, headers: &str) -> Result<Answer> {
    let host = host(url);
    let path = url.split_once(host).map_or("/", |(_, path)| path);
    let named = if headers.to_ascii_lowercase().contains("host:") {
        String::new()
    } else {
        format!("Host: {host}\r\n")
    };
    let mut stream = connect(url)?;
    let head = format!("{method} {path} HTTP/1.1\r\n{named}{headers}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut all = Vec::new();
    stream
        .read_to_end(&mut all)
        .with_context(|| format!("{method} {url}"))?;
    parse(&all).with_context(|| format!("{method} {url} was answered with {:?}", String::from_utf8_lossy(&all)))
}

fn parse(all: &[u8]) -> Option<Answer> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(all.get(..end)?).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    };
    Some(Answer {
        status,
        headers: lines.filter_map(header).collect(),
        body: all.get(end + 4..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n\r\nno\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (404, "text/plain"));
        assert_eq!(answer.text(), "no\r\n\r\n");
        assert!(parse(b"").is_none() && parse(b"HTTP/1.1 x\r\n\r\n").is_none());
        assert_eq!(host("http://127.0.0.1:80/a/b"), "127.0.0.1:80");
    }
}
