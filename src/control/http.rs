//! One bounded HTTP conversation a connection, over whatever stream: 16 connections at once, one request each, 5 s from
//! the first to the last byte and what the answer takes, 8 KiB of header, 1 KiB of body.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tracing::debug;

pub(super) const CONNECTIONS: usize = 16;
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
pub(super) const HEADER_BYTES: usize = 8 << 10;
const HEADERS: usize = 32;
pub(super) const BODY_BYTES: usize = 1 << 10;

pub(super) type Reply = Response<Full<Bytes>>;

/// Answers whoever `accept` lets in, for ever. `answer` is asked once for each request, with the whole of its body.
pub(super) async fn serve<S>(accept: impl AsyncFn() -> S, answer: impl AsyncFn(&Parts, &[u8]) -> Reply)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = &answer;
    let mut open = FuturesUnordered::new();
    loop {
        let idle = open.is_empty();
        tokio::select! {
            stream = accept(), if open.len() < CONNECTIONS => open.push(converse(stream, answer)),
            _ = async { if idle { pending().await } else { open.next().await } } => {}
        }
    }
}

async fn converse<S>(stream: S, answer: &impl AsyncFn(&Parts, &[u8]) -> Reply)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let waits = &Cell::new(false);
    let service = service_fn(|request| async move { Ok::<_, Infallible>(reply(request, answer, waits).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(DEADLINE)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = pin!(connection) => match ended {
            Ok(()) => {}
            Err(error) => debug!("a request for the status: {error}"),
        },
        () = too_long(waits) => debug!("a request for the status took too long"),
    }
}

/// Returns when a client has had its time. What it waits for does not count.
async fn too_long(waits: &Cell<bool>) {
    sleep(DEADLINE).await;
    while waits.get() {
        sleep(DEADLINE).await;
    }
}

async fn reply(request: Request<Incoming>, answer: &impl AsyncFn(&Parts, &[u8]) -> Reply, waits: &Cell<bool>) -> Reply {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "too much, or cut off");
    };
    waits.set(true);
    let reply = answer(&head, &body.to_bytes()).await;
    waits.set(false);
    reply
}

/// A page of this kind.
pub(super) fn page(kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// One line.
pub(super) fn text(code: StatusCode, line: &str) -> Reply {
    let mut reply = page("text/plain; charset=utf-8", format!("{line}\n"));
    *reply.status_mut() = code;
    reply
}

/// The path is known, the method is not: these are.
pub(super) fn not_allowed(methods: &'static str) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, &format!("only {methods}"));
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    reply
}
