//! Asks a running daemon over its socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::status::Status;

const DEADLINE: Duration = Duration::from_secs(2);

/// Far beyond a daemon with 1,000 tunnels.
const BODY_BYTES: usize = 16 << 20;

/// The status of the daemon that listens at `path`, within 2 s.
///
/// # Errors
/// When none listens there, we may not ask, or the answer is no status; each with the remedy.
pub async fn fetch(path: &Path) -> anyhow::Result<Status> {
    let body = ask(path, Method::GET, "/status", "").await?;
    serde_json::from_slice(&body).with_context(|| other_version(path))
}

/// What the daemon that listens at `path` logs: a level, or directives.
///
/// # Errors
/// As [`fetch`].
pub async fn log_level(path: &Path) -> anyhow::Result<String> {
    ask(path, Method::GET, "/log-level", "").await.map(|body| line(&body))
}

/// Makes it log this from now on; gives what it logs then.
///
/// # Errors
/// As [`fetch`], and when the level makes no sense.
pub async fn set_log_level(path: &Path, level: &str) -> anyhow::Result<String> {
    ask(path, Method::POST, "/log-level", level).await.map(|body| line(&body))
}

async fn ask(path: &Path, method: Method, what: &str, body: &str) -> anyhow::Result<Bytes> {
    timeout(DEADLINE, exchange(path, method, what, body))
        .await
        .map_err(|_| anyhow!("the daemon at {} does not answer within {} s", path.display(), DEADLINE.as_secs()))?
}

async fn exchange(path: &Path, method: Method, what: &str, body: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(path).await.map_err(|error| refused(path, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let request = Request::builder().method(method).uri(what).header(header::HOST, "localhost").body(body)?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let code = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES).collect().await;
        let body = body.map_err(|error| anyhow!("the daemon's answer: {error}"))?.to_bytes();
        match code {
            StatusCode::OK => Ok(body),
            StatusCode::NOT_FOUND => bail!(other_version(path)),
            _ => bail!(line(&body)),
        }
    };
    // The connection makes no progress unless it is polled beside the request.
    let (_, body) = futures_util::future::join(connection, exchange).await;
    body
}

fn other_version(path: &Path) -> String {
    format!("the daemon at {} speaks another version: restart it", path.display())
}

fn line(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}

fn refused(path: &Path, error: io::Error) -> anyhow::Error {
    let path = path.display();
    #[expect(clippy::wildcard_enum_match_arm, reason = "dozens of kinds, three with a remedy")]
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!("no daemon is running: there is no {path}"),
        io::ErrorKind::ConnectionRefused => anyhow!("no daemon is running: nobody listens at {path}"),
        io::ErrorKind::PermissionDenied => anyhow!("permission denied: {path} is for root and the group linkspan"),
        _ => anyhow!(error).context(format!("cannot connect to {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_daemon_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = fetch(&folder.path().join("s")).await.unwrap_err();
        assert!(error.to_string().starts_with("no daemon is running"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_daemon_costs_2_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let error = fetch(&path).await.unwrap_err();
        assert!(error.to_string().ends_with("does not answer within 2 s"), "{error}");
    }
}
