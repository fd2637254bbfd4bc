//! What a daemon tells over its Unix socket, for root and the group `linkspan`: `GET /status` (JSON), `GET /metrics`
//! (Prometheus), the level of its log, which `POST /log-level` changes, and `GET /reload` (what it would do), which
//! `POST /reload` does.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Serialize;

use super::http::{self, Reply};
use super::metrics;
use super::reload::{Answer, Wish};
use super::status::Status;
use super::unix_socket::UnixSocket;

const GROUP: &str = "linkspan";

/// What is asked of a daemon. Each is asked once for each request.
pub trait Answers {
    /// The status of this moment.
    fn status(&self) -> Status;

    /// What is logged: a level, or directives.
    fn log_level(&self) -> String;

    /// Logs this from now on.
    ///
    /// # Errors
    /// When that makes no sense.
    fn set_log_level(&self, level: &str) -> anyhow::Result<()>;

    /// Reloads, or compares; none when it is about to end.
    fn reload(&self, wish: Wish) -> impl Future<Output = Option<Answer>>;
}

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

    /// Answers until dropped.
    pub async fn serve(&self, daemon: &impl Answers) {
        http::serve(|| self.0.accept(), async |head: &Parts, body: &[u8]| answer(head, body, daemon).await).await;
    }
}

/// Who may connect is a matter of the socket alone; the umask would keep its group out of the folder.
fn make_folder(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

async fn answer(head: &Parts, body: &[u8], daemon: &impl Answers) -> Reply {
    match (head.uri.path(), &head.method) {
        ("/status", &Method::GET) => json(StatusCode::OK, &daemon.status()),
        ("/metrics", &Method::GET) => metrics::reply(&daemon.status()),
        ("/log-level", &Method::GET) => http::text(StatusCode::OK, &daemon.log_level()),
        ("/log-level", &Method::POST) => match daemon.set_log_level(&String::from_utf8_lossy(body)) {
            Ok(()) => http::text(StatusCode::OK, &daemon.log_level()),
            Err(error) => http::text(StatusCode::BAD_REQUEST, &format!("{error:#}")),
        },
        ("/reload", &Method::GET) => reload(Wish::Compare, daemon).await,
        ("/reload", &Method::POST) => reload(Wish::Reload, daemon).await,
        ("/status" | "/metrics", _) => http::not_allowed("GET"),
        ("/log-level" | "/reload", _) => http::not_allowed("GET, POST"),
        _ => http::text(StatusCode::NOT_FOUND, "there are only /status, /metrics, /log-level and /reload"),
    }
}

async fn reload(wish: Wish, daemon: &impl Answers) -> Reply {
    match daemon.reload(wish).await {
        Some(answer) if answer.outcome.is_fine() => json(StatusCode::OK, &answer),
        Some(answer) => json(StatusCode::CONFLICT, &answer),
        None => http::text(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping"),
    }
}

fn json(code: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(json) => {
            let mut reply = http::page("application/json", json);
            *reply.status_mut() = code;
            reply
        }
        Err(error) => http::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[cfg(test)]
mod tests;
