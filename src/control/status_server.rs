//! `GET /status` over a Unix socket, for root and the group `linkspan`.
//!
//! Bounded: 16 connections at once, one request each, 5 s from first to last byte, 8 KiB of header.

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
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::debug;

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

    /// Answers until dropped. `status` is asked once for each request.
    pub async fn serve(&self, status: impl Fn() -> Status) {
        let status = &status;
        let mut open = FuturesUnordered::new();
        loop {
            let idle = open.is_empty();
            tokio::select! {
                stream = self.0.accept(), if open.len() < CONNECTIONS => open.push(converse(stream, status)),
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

async fn converse(stream: UnixStream, status: &impl Fn() -> Status) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, status)) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(DEADLINE)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(DEADLINE, pin!(connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("status socket: {error}"),
        Err(_) => debug!("status socket: a client took too long"),
    }
}

fn answer(request: &Request<Incoming>, status: &impl Fn() -> Status) -> Response<Full<Bytes>> {
    match (request.uri().path(), request.method()) {
        ("/status", &Method::GET) => match serde_json::to_vec(&status()) {
            Ok(json) => reply(StatusCode::OK, "application/json", json),
            Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into_bytes()),
        },
        ("/status", _) => reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", b"only GET\n".to_vec()),
        _ => reply(StatusCode::NOT_FOUND, "text/plain", b"there is only /status\n".to_vec()),
    }
}

fn reply(code: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    if code == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, header::HeaderValue::from_static("GET"));
    }
    response
}

#[cfg(test)]
mod tests;
