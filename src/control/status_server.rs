//! `GET /status`, `GET /reload` (what it would do) and `POST /reload` over a Unix socket, for root and the group
//! `linkspan`.
//!
//! Bounded: 16 connections at once, one request each, 5 s from first to last byte and what a reload takes, 8 KiB of header.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::debug;

use super::reload::{self, Wish};
use super::status::Status;
use super::unix_socket::UnixSocket;

const GROUP: &str = "linkspan";
const CONNECTIONS: usize = 16;
const DEADLINE: Duration = Duration::from_secs(5);
const HEADER_BYTES: usize = 8 << 10;
const HEADERS: usize = 32;

/// The listening socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct StatusServer(UnixSocket);

impl StatusServer {
    /// Listens at `path`: mode 0660, owned by the group `linkspan` if there is one. The file of a daemon that died is
    /// replaced; its folder is made if need be. Inside a tokio runtime.
    ///
    /// # Errors
    /// When another daemon listens there, or the file cannot be made.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
            make_folder(folder).with_context(|| {
                format!("cannot make the folder {}; make it for this user, or name another --socket", folder.display())
            })?;
        }
        UnixSocket::bind(path, Some(GROUP)).map(Self)
    }

    /// Answers until dropped. `status` is asked once for each request; what concerns reloads goes to `reloads`.
    pub async fn serve(&self, status: impl Fn() -> Status, reloads: &mpsc::Sender<reload::Request>) {
        let status = &status;
        let mut open = FuturesUnordered::new();
        loop {
            let idle = open.is_empty();
            tokio::select! {
                stream = self.0.accept(), if open.len() < CONNECTIONS => open.push(converse(stream, status, reloads)),
                _ = async { if idle { pending().await } else { open.next().await } } => {}
            }
        }
    }
}

/// Who may connect is a matter of the socket alone; the umask would keep its group out of the folder.
fn make_folder(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

async fn converse(stream: UnixStream, status: &impl Fn() -> Status, reloads: &mpsc::Sender<reload::Request>) {
    let waits = &Cell::new(false);
    let service = service_fn(|request| async move {
        waits.set(true);
        let answer = answer(&request, status, reloads).await;
        waits.set(false);
        Ok::<_, Infallible>(answer)
    });
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
            Err(error) => debug!("status socket: {error}"),
        },
        () = too_long(waits) => debug!("status socket: a client took too long"),
    }
}

/// Returns when a client has had its time. What it waits for does not count.
async fn too_long(waits: &Cell<bool>) {
    sleep(DEADLINE).await;
    while waits.get() {
        sleep(DEADLINE).await;
    }
}

async fn answer(
    request: &Request<Incoming>,
    status: &impl Fn() -> Status,
    reloads: &mpsc::Sender<reload::Request>,
) -> Response<Full<Bytes>> {
    match (request.uri().path(), request.method()) {
        ("/status", &Method::GET) => json(StatusCode::OK, &status()),
        ("/reload", &Method::GET) => wish(Wish::Compare, reloads).await,
        ("/reload", &Method::POST) => wish(Wish::Reload, reloads).await,
        ("/status", _) => only("GET"),
        ("/reload", _) => only("GET, POST"),
        _ => reply(StatusCode::NOT_FOUND, "text/plain", b"there are only /status and /reload\n".to_vec()),
    }
}

async fn wish(wish: Wish, reloads: &mpsc::Sender<reload::Request>) -> Response<Full<Bytes>> {
    let (sender, answer) = oneshot::channel();
    let sent = reloads.send((wish, sender)).await.is_ok();
    match answer.await {
        Ok(answer) if sent => {
            json(if answer.outcome.is_fine() { StatusCode::OK } else { StatusCode::CONFLICT }, &answer)
        }
        _ => reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", b"the daemon is stopping\n".to_vec()),
    }
}

fn json(code: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(json) => reply(code, "application/json", json),
        Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into_bytes()),
    }
}

fn only(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", format!("only {methods}\n").into_bytes());
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(methods));
    response
}

fn reply(code: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
