//! Connections: so many at once and no more, each with its deadlines, so that slow or silent clients stall nobody else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use super::answer::{self, Answered};
use super::pages::Pages;
use super::{Listener, Sources, ended, gate, route};

/// Most connections at once; others wait to be accepted.
const CONNECTIONS: u32 = 64;
/// Time for the headers of a request, and between two requests of a connection.
const HEADERS: Duration = Duration::from_secs(10);
/// Time in which a client must take some part of an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time at the end for what is under way.
const LAST: Duration = Duration::from_secs(5);
/// Before connections are accepted again when the system has no room for them.
const AGAIN: Duration = Duration::from_millis(100);
/// Most bytes of the headers of a request.
const HEADER_BYTES: usize = 16 << 10;

/// Answers until the session ends, then finishes what is under way.
pub async fn run(listener: Listener, sources: Sources) {
    let mut ending = sources.ending.clone();
    let is_local = listener.is_local();
    let pages = Arc::new(Pages::new(sources, listener.address));
    let places = Arc::new(Semaphore::new(CONNECTIONS as usize));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.socket.accept().await, place))
        };
        tokio::select! {
            biased;
            () = ended(&mut ending) => break,
            accepted = accepted => match accepted {
                Some((Ok((stream, _)), place)) => {
                    tokio::spawn(connection(stream, Arc::clone(&pages), is_local, place));
                }
                Some((Err(_), _)) => sleep(AGAIN).await,
                None => break,
            },
        }
    }
    drop(listener);
    // All places are free when all connections have ended.
    let _late = timeout(LAST, places.acquire_many(CONNECTIONS)).await;
}

/// One connection, to its end.
async fn connection(stream: TcpStream, pages: Arc<Pages>, is_local: bool, place: OwnedSemaphorePermit) {
    let mut ending = pages.ending();
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(PATIENCE));
    let service = service_fn(move |request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(answer(&request, &pages, is_local).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is its client's affair.
    tokio::select! {
        _ended = connection.as_mut() => {}
        () = ended(&mut ending) => {
            connection.as_mut().graceful_shutdown();
            let _ended = connection.await;
        }
    }
    drop(place);
}

async fn answer<B>(request: &Request<B>, pages: &Pages, is_local: bool) -> Answered {
    let headers = request.headers();
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    if is_local && !host.is_none_or(gate::is_own_name) {
        return answer::refused(
            403,
            "asked for under a name that is not this machine's own: ask for 127.0.0.1 or localhost",
        );
    }
    if headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        return answer::no_body_wanted();
    }
    let is_head = request.method() == Method::HEAD;
    if !is_head && request.method() != Method::GET {
        return answer::wrong_method();
    }
    match route::page(request.uri().path(), request.uri().query().unwrap_or_default()) {
        Ok((page, _)) if is_head => Pages::head(page),
        Ok((page, extra)) => pages.get(page, extra, host).await,
        Err(no) => answer::no_page(&no),
    }
}
