//! What an inbound thread waits for: the stop, the call to look again, its queue, its sockets.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::stop::Stop;
use crate::sys::poll::{EventFd, Ready, Watch};
use crate::sys::udp::{Group, Socket};

/// Which bit of [`Ready`] is which.
const STOP: usize = 0;
const LOOK: usize = 1;
pub(super) const QUEUE: usize = 2;
pub(super) const SOCKETS: usize = 3;

/// One worker's.
pub(super) struct Waits {
    worker: usize,
    stop: Arc<Stop>,
    /// Notified when the sockets are others, or the queue is this thread's again.
    look: Arc<EventFd>,
    watch: Watch,
    /// Whose sockets are watched; none before the first.
    group: Option<Arc<Group>>,
    watches_queue: bool,
}

impl Waits {
    pub(super) fn new(worker: usize, stop: Arc<Stop>, look: Arc<EventFd>) -> io::Result<Self> {
        Ok(Self { worker, stop, look, watch: Watch::new()?, group: None, watches_queue: false })
    }

    /// Waits for the sockets of `group` instead of any others, which may then be closed.
    pub(super) fn follow(&mut self, group: &Arc<Group>) -> io::Result<()> {
        if self.group.as_ref().is_some_and(|before| Arc::ptr_eq(before, group)) {
            return Ok(());
        }
        let watch = Watch::new()?;
        watch.add(self.stop.as_fd(), STOP)?;
        watch.add(self.look.as_fd(), LOOK)?;
        for (at, socket) in of_worker(group, self.worker).enumerate() {
            watch.add(socket.as_fd(), SOCKETS + at)?;
        }
        (self.watch, self.group, self.watches_queue) = (watch, Some(group.clone()), false);
        Ok(())
    }

    /// Waits for `queue`, too, or not.
    pub(super) fn set_queue(&mut self, queue: BorrowedFd<'_>, wanted: bool) -> io::Result<()> {
        if wanted != self.watches_queue {
            if wanted { self.watch.add(queue, QUEUE) } else { self.watch.remove(queue) }?;
            self.watches_queue = wanted;
        }
        Ok(())
    }

    /// Until something is ready: which of them.
    pub(super) fn wait(&self, at_most: Duration) -> io::Result<Ready> {
        let ready = self.watch.wait(at_most)?;
        if ready.has(LOOK) {
            self.look.drain();
        }
        Ok(ready)
    }
}

/// A worker's sockets, one of each family that the host has.
pub(super) fn of_worker(sockets: &Group, worker: usize) -> impl Iterator<Item = &Arc<Socket>> {
    sockets.v4.get(worker).into_iter().chain(sockets.v6.get(worker))
}
