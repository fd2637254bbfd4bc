//! Waiting for a few descriptors, and a descriptor to wake who waits.

use std::array;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd as Counter};

/// How many descriptors one [`poll`] waits for at the most.
pub const MAX: usize = 64;

/// Which descriptors of a [`poll`] or [`Watch::wait`] have something: bit i stands for the i-th.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready(u64);

impl Ready {
    /// Every descriptor: as good as not knowing.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether the descriptor at `index` has data, an error or a hang-up. A read tells which.
    #[must_use]
    pub const fn has(self, index: usize) -> bool {
        index < MAX && self.0 >> index & 1 == 1
    }

    /// Whether any descriptor has something; not so after a timeout or a signal.
    #[must_use]
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// All of them as a bitmask.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Waits until one of `fds` (1 to [`MAX`]) can be read, or `timeout` (rounded up to milliseconds) has passed.
///
/// A signal ends the wait with nothing ready.
///
/// # Errors
///
/// `InvalidInput` for no descriptor or too many; else what the kernel says.
pub fn poll(fds: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Ready> {
    wait(fds, PollFlags::POLLIN, timeout)
}

/// Waits until `fd` takes data again, or `timeout` has passed: then false.
///
/// # Errors
///
/// What the kernel says.
pub fn writable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    wait(&[fd], PollFlags::POLLOUT, timeout).map(Ready::any)
}

fn wait(fds: &[BorrowedFd<'_>], events: PollFlags, timeout: Duration) -> io::Result<Ready> {
    let Some(first) = fds.first().filter(|_| fds.len() <= MAX) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut all: [PollFd<'_>; MAX] = array::from_fn(|i| PollFd::new(*fds.get(i).unwrap_or(first), events));
    let set = all.split_at_mut(fds.len()).0;
    match nix::poll::poll(set, milliseconds(timeout)) {
        Ok(_) => Ok(ready(set)),
        Err(Errno::EINTR) => Ok(Ready::default()),
        Err(errno) => Err(errno.into()),
    }
}

fn ready(set: &[PollFd<'_>]) -> Ready {
    let bit = |(i, fd): (usize, &PollFd<'_>)| u64::from(fd.any().unwrap_or(true)) << i;
    Ready(set.iter().enumerate().map(bit).fold(0, |all, one| all | one))
}

/// Rounded up: a rest of half a millisecond must not become a busy loop.
fn milliseconds(timeout: Duration) -> PollTimeout {
    PollTimeout::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
}

/// Descriptors that are waited for again and again: the kernel keeps them, which makes a wait cheaper than [`poll`].
#[derive(Debug)]
pub struct Watch(Epoll);

impl Watch {
    /// Without descriptors.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Waits for `fd`, too: it is the bit at `index` (below [`MAX`]).
    ///
    /// # Errors
    ///
    /// What the kernel says: it is watched already, or is of a kind that cannot be waited for.
    pub fn add(&self, fd: BorrowedFd<'_>, index: usize) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 1 << index))?)
    }

    /// Waits for `fd` no longer.
    ///
    /// # Errors
    ///
    /// What the kernel says: it is not watched.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// As [`poll`]. Of more than eight descriptors that have something, the others come with the next call.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn wait(&self, timeout: Duration) -> io::Result<Ready> {
        let mut events = [EpollEvent::empty(); 8];
        match self.0.wait(&mut events, milliseconds(timeout)) {
            Ok(count) => Ok(Ready(events.iter().take(count).fold(0, |all, event| all | event.data()))),
            Err(Errno::EINTR) => Ok(Ready::default()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Wakes a thread that waits in [`poll`] or [`Watch::wait`]. Many notifications before it looks are one.
#[derive(Debug)]
pub struct EventFd(Counter);

impl EventFd {
    /// A new one, not notified.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Counter::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    /// Makes the descriptor readable. Never blocks, any thread may call it.
    pub fn notify(&self) {
        // The only failure is a counter at its end, which is notified enough.
        let _ = self.0.write(1);
    }

    /// Takes all notifications; true if there was one.
    pub fn drain(&self) -> bool {
        self.0.read().is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn only_the_notified_descriptor_is_ready() {
        let all: Vec<EventFd> = (0..MAX).map(|_| EventFd::new().unwrap()).collect();
        let fds: Vec<BorrowedFd<'_>> = all.iter().map(AsFd::as_fd).collect();
        all[0].notify();
        all[63].notify();
        let ready = poll(&fds, Duration::from_secs(5)).unwrap();
        assert_eq!(ready.bits(), 1 | 1 << 63);
        assert!(ready.has(0) && ready.has(63) && !ready.has(1) && !ready.has(64));
    }

    #[test]
    fn what_is_watched_is_ready_until_it_is_drained_and_no_longer_once_it_is_removed() {
        let (one, other, watch) = (EventFd::new().unwrap(), EventFd::new().unwrap(), Watch::new().unwrap());
        watch.add(one.as_fd(), 2).unwrap();
        watch.add(other.as_fd(), 63).unwrap();
        assert!(!watch.wait(Duration::ZERO).unwrap().any());
        one.notify();
        other.notify();
        assert_eq!(watch.wait(Duration::from_secs(5)).unwrap().bits(), 1 << 2 | 1 << 63);
        assert!(one.drain());
        assert_eq!(watch.wait(Duration::from_secs(5)).unwrap().bits(), 1 << 63);
        watch.remove(other.as_fd()).unwrap();
        assert!(!watch.wait(Duration::ZERO).unwrap().any());
        assert!(watch.remove(other.as_fd()).is_err() && watch.add(one.as_fd(), 2).is_err());
    }

    #[test]
    fn nothing_is_ready_after_the_timeout() {
        let event = EventFd::new().unwrap();
        let start = Instant::now();
        assert!(!poll(&[event.as_fd()], Duration::from_micros(1500)).unwrap().any());
        assert!(start.elapsed() >= Duration::from_micros(1500));
    }

    #[test]
    fn many_notifications_are_drained_at_once() {
        let event = EventFd::new().unwrap();
        event.notify();
        event.notify();
        assert!(event.drain());
        assert!(!event.drain());
        assert!(!poll(&[event.as_fd()], Duration::ZERO).unwrap().any());
    }

    #[test]
    fn no_descriptor_or_too_many_are_refused() {
        let event = EventFd::new().unwrap();
        assert!(poll(&[], Duration::ZERO).is_err());
        assert!(poll(&[event.as_fd(); MAX + 1], Duration::ZERO).is_err());
    }

    #[test]
    fn an_idle_descriptor_is_writable() {
        let event = EventFd::new().unwrap();
        assert!(writable(event.as_fd(), Duration::ZERO).unwrap());
    }

    #[test]
    fn a_timeout_beyond_what_the_kernel_takes_is_cut() {
        assert_eq!(milliseconds(Duration::MAX), PollTimeout::MAX);
        assert_eq!(milliseconds(Duration::from_nanos(1)).as_millis(), Some(1));
    }
}
