//! Answers: status, headers and body. What a body was made in is given back when the last byte of it has been sent.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::desk::Refusal;
use super::route::{INDEX, NoPage};

/// An answer.
pub(super) type Answered = Response<Full<Bytes>>;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const SVG: &str = "image/svg+xml";
pub(super) const BINARY: &str = "application/octet-stream";

/// By this, Go's pprof knows that the line of an error is for people, and shows it.
const FOR_PPROF: HeaderName = HeaderName::from_static("x-go-pprof");
/// What was asked for and not done.
const NOTE: HeaderName = HeaderName::from_static("x-leaktrace-note");
/// The flame graph has a script of its own; nothing is fetched from anywhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a body takes up while it is being sent.
struct Held {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer in the making.
pub(super) struct Made {
    /// What the body is.
    pub kind: &'static str,
    /// The name of the file that a browser saves it in.
    pub file: Option<String>,
    /// What was asked for and not done.
    pub note: Option<&'static str>,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Made {
    /// A body of a kind, nothing else.
    pub(super) fn plain(kind: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            kind,
            file: None,
            note: None,
            bytes,
        }
    }

    /// The answer; `room` is free again when all of it is sent.
    pub(super) fn answer(self, room: Option<OwnedSemaphorePermit>) -> Answered {
        let body = Bytes::from_owner(Held {
            bytes: self.bytes,
            _room: room,
        });
        let mut answer = answer(StatusCode::OK, self.kind, body);
        let disposition = self.file.map(|name| format!("attachment; filename=\"{name}\""));
        if let Some(value) = disposition.and_then(|text| HeaderValue::try_from(text).ok()) {
            answer.headers_mut().insert(CONTENT_DISPOSITION, value);
        }
        if let Some(note) = self.note {
            answer.headers_mut().insert(NOTE, HeaderValue::from_static(note));
        }
        answer
    }
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answered {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Each look is another one.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer
}

/// A line that says why not.
pub(super) fn refused(status: u16, line: &str) -> Answered {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = answer(status, TEXT, Bytes::from(format!("{line}\n")));
    answer.headers_mut().insert(FOR_PPROF, HeaderValue::from_static("1"));
    answer
}

impl From<Refusal> for NoPage {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Absent(line) => Self(404, line),
            Refusal::Unavailable(line) => Self(503, line),
            Refusal::Failed(line) => Self(500, line),
        }
    }
}

/// Why there is no such page.
pub(super) fn no_page(NoPage(status, line): &NoPage) -> Answered {
    refused(*status, line)
}

/// Sends on to the index page.
pub(super) fn elsewhere() -> Answered {
    let mut answer = answer(StatusCode::FOUND, TEXT, Bytes::from_static(INDEX.as_bytes()));
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static(INDEX));
    answer
}

/// To another method than those there are.
pub(super) fn wrong_method() -> Answered {
    let mut answer = refused(405, "only GET and HEAD: nothing can be changed here");
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

/// To a request with a body, which is not read.
pub(super) fn no_body_wanted() -> Answered {
    let mut answer = refused(413, "requests have no body here: leave it out");
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// What GET would be answered with, without looking: no body, and no length.
pub(super) fn head(kind: &'static str) -> Answered {
    answer(StatusCode::OK, kind, Bytes::new())
}
