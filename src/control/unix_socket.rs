//! A listening Unix socket with a file: nobody can connect before its owner and mode are right, the file of a daemon
//! that died is replaced, and our own goes when we do. The file of a socket that was handed over is not ours.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, lchown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{Gid, Group};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;
use tracing::debug;

const BACKLOG: i32 = 16;

/// The socket. Its file, if it is ours, goes when this is dropped.
#[derive(Debug)]
pub(super) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Of the file that is ours.
    inode: Option<u64>,
}

impl UnixSocket {
    /// Listens at `path`, whose folder is there: mode 0660, of this group if there is one. Inside a tokio runtime.
    pub(super) fn bind(path: &Path, group: Option<&str>) -> anyhow::Result<Self> {
        make_way(path)?;
        let listener = listen(path, group).map_err(|error| no_listener(path, error))?;
        let inode = Some(std::fs::symlink_metadata(path)?.ino());
        Ok(Self { listener: UnixListener::from_std(listener)?, path: path.to_owned(), inode })
    }

    /// Goes on with a socket that another process listens with already. Inside a tokio runtime.
    pub(super) fn adopt(socket: OwnedFd) -> anyhow::Result<Self> {
        let socket = Socket::from(socket);
        let fits = socket.domain()? == Domain::UNIX && socket.r#type()? == Type::STREAM && socket.is_listener()?;
        let address = socket.local_addr()?;
        let Some(path) = address.as_pathname().filter(|_| fits) else {
            bail!("the service manager's socket is no listening Unix socket: give it ListenStream=PATH");
        };
        socket.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(socket.into())?, path: path.to_owned(), inode: None })
    }

    pub(super) async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    // Out of descriptors, most likely: that passes.
                    debug!("{}: {error}", self.path.display());
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file at the path is ours, still.
    pub(super) fn is_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|file| Some(file.ino()) == self.inode)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Never another daemon's: it may have taken the place of a file that somebody deleted.
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Takes away the socket of a dead daemon.
fn make_way(path: &Path) -> anyhow::Result<()> {
    let Ok(file) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !file.file_type().is_socket() {
        bail!("{} is there and is no socket: move it away", path.display());
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("cannot replace the stale socket {}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot tell whether {} is in use", path.display())),
        Ok(_) => bail!("another daemon answers at {}: stop it first", path.display()),
    }
}

fn listen(path: &Path, group: Option<&str>) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file is born with the socket's mode: nobody else can connect before owner and mode are right.
    fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Never through a link: the folder belongs to the user that a daemon becomes, and this is still root.
    if let Some(Ok(Some(group))) = group.map(Group::from_name) {
        hand_to(path, group.gid)?;
    }
    fchmodat(AT_FDCWD, path, Mode::from_bits_truncate(0o660), FchmodatFlags::NoFollowSymlink)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn no_listener(path: &Path, error: io::Error) -> anyhow::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            "; this user may not write the folder: let root or systemd start it"
        }
        Some(libc::ENOENT | libc::ENOTDIR) => "; make its folder first",
        Some(libc::ENOSPC | libc::EDQUOT) => "; make room there",
        Some(libc::EMFILE | libc::ENFILE) => "; a limit on open files: see ulimit -n",
        // Not from the kernel: a path of more than 107 bytes.
        None => "; choose a shorter path",
        _ => "",
    };
    let told = format!("cannot listen at {}{remedy}", path.display());
    anyhow::Error::new(error).context(told)
}

/// A daemon that is neither root's nor in the group keeps its file to itself and its own group. One of that group is not
/// asked to change anything: the service denies it the call.
fn hand_to(path: &Path, group: Gid) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.gid() == group.as_raw() {
        return Ok(());
    }
    match lchown(path, None, Some(group.as_raw())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}
