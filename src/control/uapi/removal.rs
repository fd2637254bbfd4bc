//! Who removes the socket's file wants the daemon to end: so it is with every userspace WireGuard.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

use crate::control::unix_socket::UnixSocket;

/// Watches the folder of a socket.
pub(in crate::control) struct Removal<'s> {
    socket: &'s UnixSocket,
    /// No pipe, but read like one, and tokio has no safe type that fits better.
    events: Receiver,
}

impl<'s> Removal<'s> {
    pub(super) fn of(socket: &'s UnixSocket) -> io::Result<Self> {
        let events = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE_SELF;
        if let Some(folder) = socket.path().parent() {
            events.add_watch(folder, gone)?;
        }
        Ok(Self { socket, events: Receiver::from_owned_fd_unchecked(OwnedFd::from(events))? })
    }

    /// Returns when the file is gone.
    pub(in crate::control) async fn wait(&self) {
        while self.socket.is_there() {
            if self.events.readable().await.is_err() {
                pending::<()>().await;
            }
            // What happened does not matter: the file is looked at.
            while self.events.try_read(&mut [0; 4096]).is_ok() {}
        }
    }
}
