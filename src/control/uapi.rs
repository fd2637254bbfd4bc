//! The socket that `wg` speaks to: /var/run/wireguard/INTERFACE.sock, for root only. Ours, or the service manager's.
//!
//! Bounded: 16 connections at once, 16 MiB a request, 30 s for each request and each answer.

mod answer;
mod read_only;
mod removal;
mod requests;

use std::fs::{DirBuilder, symlink_metadata};
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nix::net::if_::if_nametoindex;
use nix::unistd::geteuid;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::debug;
use zeroize::Zeroizing;

use super::unix_socket::UnixSocket;
use crate::config::uapi::{self, Change, DeviceAnswer, Refusal, Request};

pub(super) use answer::{Handshakes, peer_answer};
pub(super) use read_only::ReadOnly;
pub(super) use removal::Removal;

use requests::Requests;

/// Where `wg` looks for userspace implementations.
const FOLDER: &str = "/var/run/wireguard";
const CONNECTIONS: usize = 16;
const DEADLINE: Duration = Duration::from_secs(30);

/// What is asked and changed over the socket.
pub(super) trait Device {
    /// Its state, keys included.
    fn answer(&self) -> DeviceAnswer;

    /// Changes it, whole or not at all.
    fn change(&self, change: Change) -> Result<(), Refusal>;
}

/// The listening socket of one interface. Leaves nothing: the file goes first, then the folder.
pub(super) struct UapiServer {
    socket: UnixSocket,
    _folder: Folder,
}

impl UapiServer {
    /// Listens for the interface `name`. Inside a tokio runtime.
    pub(super) fn bind(name: &str) -> anyhow::Result<Self> {
        let folder = Path::new(FOLDER);
        // A daemon that ends may take the folder away just then.
        Self::bind_in(folder, name).or_else(|e| if folder.exists() { Err(e) } else { Self::bind_in(folder, name) })
    }

    fn bind_in(folder: &'static Path, name: &str) -> anyhow::Result<Self> {
        let made = Folder::make(folder)?;
        Ok(Self { socket: UnixSocket::bind(&folder.join(format!("{name}.sock")), None)?, _folder: made })
    }

    /// Goes on with the socket that the service manager made. Inside a tokio runtime.
    pub(super) fn adopt(socket: OwnedFd) -> anyhow::Result<Self> {
        Ok(Self { socket: UnixSocket::adopt(socket)?, _folder: Folder(None) })
    }

    /// Tells when somebody takes the socket's file away.
    pub(super) fn removal(&self) -> io::Result<Removal<'_>> {
        Removal::of(&self.socket)
    }

    /// Answers until dropped.
    pub(super) async fn serve(&self, device: &impl Device) {
        let mut open = FuturesUnordered::new();
        loop {
            let idle = open.is_empty();
            tokio::select! {
                stream = self.socket.accept(), if open.len() < CONNECTIONS => open.push(converse(stream, device)),
                _ = async { if idle { pending().await } else { open.next().await } } => {}
            }
        }
    }
}

/// Where the sockets are. Who made it takes it away again, unless it is in use.
struct Folder(Option<&'static Path>);

impl Folder {
    /// The folder is there, and only root could have put something into it.
    fn make(path: &'static Path) -> anyhow::Result<Self> {
        const MODE: u32 = 0o755;
        let made = match DirBuilder::new().mode(MODE).create(path) {
            Ok(()) => Self(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self(None),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot make the folder {} (only root can)", path.display()));
            }
        };
        if made.0.is_some() {
            // Whatever the umask.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
        }
        let found = symlink_metadata(path)?;
        let owner = [0, geteuid().as_raw()].contains(&found.uid());
        if !found.is_dir() || !owner || found.mode() & 0o022 != 0 {
            bail!("{} must be a folder that only root can write: chown root it, chmod 755 it", path.display());
        }
        Ok(made)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = std::fs::remove_dir(path);
        }
    }
}

async fn converse(mut stream: UnixStream, device: &impl Device) {
    let trusted = stream.peer_cred().is_ok_and(|asker| [0, geteuid().as_raw()].contains(&asker.uid()));
    let mut requests = Requests::new();
    loop {
        let answer = match timeout(DEADLINE, requests.next(&mut stream)).await {
            Ok(Ok(Some(text))) => answer(text, device, trusted),
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => return debug!("uapi socket: {error}"),
        };
        match timeout(DEADLINE, stream.write_all(answer.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn answer(request: &[u8], device: &impl Device, trusted: bool) -> Zeroizing<String> {
    let zone = |name: &str| if_nametoindex(name).ok();
    let request = std::str::from_utf8(request).map_err(|_| Refusal::Protocol);
    match request.and_then(|text| uapi::parse(text, zone)) {
        Ok(Request::Get) => {
            let mut text = device.answer().text(trusted);
            text.push_str(&uapi::outcome(Ok(())));
            text
        }
        Ok(Request::Set(_)) if !trusted => uapi::outcome(Err(Refusal::NotPermitted)).into(),
        Ok(Request::Set(change)) => uapi::outcome(device.change(change)).into(),
        Err(refusal) => uapi::outcome(Err(refusal)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_who_made_it_unless_it_is_in_use() {
        let parent = tempfile::tempdir().unwrap();
        let path: &'static Path = Box::leak(parent.path().join("wireguard").into_boxed_path());
        let made = Folder::make(path).unwrap();
        drop(Folder::make(path).unwrap());
        assert!(path.exists(), "it was there before the second");
        drop(made);
        assert!(!path.exists());
        let made = Folder::make(path).unwrap();
        std::fs::write(path.join("wg0.sock"), "").unwrap();
        drop(made);
        assert!(path.exists(), "another's socket is in it");
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused_with_the_remedy() {
        let parent = tempfile::tempdir().unwrap();
        let path: &'static Path = Box::leak(parent.path().to_owned().into_boxed_path());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let Err(error) = Folder::make(path) else { panic!("taken") };
        assert!(error.to_string().contains("chmod 755"), "{error:#}");
    }
}
