//! What a daemon tells over its Unix socket, for root and the group `linkspan`: `GET /status` (JSON), `GET /metrics`
//! (Prometheus), and the level of its log, which `POST /log-level` changes.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::http::{self, Reply};
use super::metrics;
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
        http::serve(|| self.0.accept(), async |head: &Parts, body: &[u8]| answer(head, body, daemon)).await;
    }
}

/// Who may connect is a matter of the socket alone; the umask would keep its group out of the folder.
fn make_folder(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

fn answer(head: &Parts, body: &[u8], daemon: &impl Answers) -> Reply {
    match (head.uri.path(), &head.method) {
        ("/status", &Method::GET) => match serde_json::to_vec(&daemon.status()) {
            Ok(json) => http::page("application/json", json),
            Err(error) => http::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        ("/metrics", &Method::GET) => metrics::reply(&daemon.status()),
        ("/log-level", &Method::GET) => http::text(StatusCode::OK, &daemon.log_level()),
        ("/log-level", &Method::POST) => match daemon.set_log_level(&String::from_utf8_lossy(body)) {
            Ok(()) => http::text(StatusCode::OK, &daemon.log_level()),
            Err(error) => http::text(StatusCode::BAD_REQUEST, &format!("{error:#}")),
        },
        ("/status" | "/metrics", _) => http::not_allowed("GET"),
        ("/log-level", _) => http::not_allowed("GET, POST"),
        _ => http::text(StatusCode::NOT_FOUND, "there are only /status, /metrics and /log-level"),
    }
}

#[cfg(test)]
mod tests;
