//! Asks a running daemon over its socket: for its status, about its log, to reload.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::reload::{Answer, Wish};
use super::status::Status;

const DEADLINE: Duration = Duration::from_secs(2);
/// Names are looked up meanwhile.
const RELOAD_DEADLINE: Duration = Duration::from_secs(20);

/// Far beyond a daemon with 1,000 tunnels.
const BODY_BYTES: usize = 16 << 20;

/// The status of the daemon that listens at `path`, within 2 s.
///
/// # Errors
/// When none listens there, we may not ask, or the answer is no status; each with the remedy.
pub async fn fetch(path: &Path) -> anyhow::Result<Status> {
    let asked = exchange(path, Method::GET, "/status", "");
    let body = fine(path, within(DEADLINE, path, asked).await?)?;
    read(path, &body)
}

/// What the daemon that listens at `path` logs: a level, or directives.
///
/// # Errors
/// As [`fetch`].
pub async fn log_level(path: &Path) -> anyhow::Result<String> {
    let asked = exchange(path, Method::GET, "/log-level", "");
    fine(path, within(DEADLINE, path, asked).await?).map(|body| line(&body))
}

/// Makes it log this from now on; gives what it logs then.
///
/// # Errors
/// As [`fetch`], and when the level makes no sense.
pub async fn set_log_level(path: &Path, level: &str) -> anyhow::Result<String> {
    let asked = exchange(path, Method::POST, "/log-level", level);
    fine(path, within(DEADLINE, path, asked).await?).map(|body| line(&body))
}

/// Asks the daemon that listens at `path` to reload, or what that would do.
///
/// # Errors
/// As [`fetch`]. A reload that is refused is an answer.
pub async fn reload(path: &Path, wish: Wish) -> anyhow::Result<Answer> {
    let method = match wish {
        Wish::Compare => Method::GET,
        Wish::Reload => Method::POST,
    };
    let (code, body) = within(RELOAD_DEADLINE, path, exchange(path, method, "/reload", "")).await?;
    let body = if code == StatusCode::CONFLICT { body } else { fine(path, (code, body))? };
    read(path, &body)
}

async fn within<T>(time: Duration, path: &Path, asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let late = |_| anyhow!("the daemon at {} does not answer within {} s", path.display(), time.as_secs());
    timeout(time, asked).await.map_err(late)?
}

/// The body of an answer that is no refusal.
fn fine(path: &Path, (code, body): (StatusCode, Bytes)) -> anyhow::Result<Bytes> {
    match code {
        StatusCode::OK => Ok(body),
        StatusCode::NOT_FOUND => bail!(other_version(path)),
        _ => bail!(line(&body)),
    }
}

fn read<T: DeserializeOwned>(path: &Path, body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).with_context(|| other_version(path))
}

async fn exchange(path: &Path, method: Method, what: &str, body: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(path).await.map_err(|error| refused(path, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let request = Request::builder().method(method).uri(what).header(header::HOST, "localhost").body(body)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| ended(path, &error))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES).collect().await;
        Ok((code, body.map_err(|error| anyhow!("the daemon's answer: {error}"))?.to_bytes()))
    };
    // The connection makes no progress unless it is polled beside the request.
    let (_, answer) = futures_util::future::join(connection, exchange).await;
    answer
}

fn ended(path: &Path, error: &hyper::Error) -> anyhow::Error {
    anyhow!("the daemon at {} ended before it answered; its log says why ({error})", path.display())
}

fn other_version(path: &Path) -> String {
    format!("the daemon at {} speaks another version: restart it", path.display())
}

fn line(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}

fn refused(path: &Path, error: io::Error) -> anyhow::Error {
    let path = path.display();
    #[expect(clippy::wildcard_enum_match_arm, reason = "dozens of kinds, four with a remedy")]
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!("no daemon is running: there is no {path}"),
        io::ErrorKind::ConnectionRefused => anyhow!("no daemon is running: nobody listens at {path}"),
        io::ErrorKind::PermissionDenied => anyhow!("permission denied: {path} is for root and the group linkspan"),
        io::ErrorKind::WouldBlock => anyhow!("the daemon at {path} is asked by too many at once: ask again"),
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
    async fn a_daemon_that_ends_meanwhile_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (error, _) = tokio::join!(fetch(&path), async { drop(listener.accept().await.unwrap()) });
        assert!(error.unwrap_err().to_string().contains("ended before it answered; its log says why"));
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
