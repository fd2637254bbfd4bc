//! The UDP sockets of the port: one per worker and address family, with segmentation and coalescing by the kernel.
//!
//! [`bind()`] opens them and steers transport data to the worker that its receiver index names. Receiving is by
//! quinn-udp; sending is our own, because that crate gives segmentation up for ever after any EINVAL and cannot name
//! the outgoing interface.

mod bind;
mod control;
mod receive;
mod refusals;
mod room;
mod send;
mod steering;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use quinn_udp::UdpSocketState;

pub use bind::{BindError, bind};
pub use receive::{Receive, Received};
pub use send::{MAX_BYTES, MAX_SEGMENTS, SendError, SendOk, Unsent};

use super::minute::Minute;
use refusals::Refusals;
use room::Room;

/// The address and the index of the interface a datagram came to, or goes from; index 0 leaves the interface open.
pub type Local = (IpAddr, u32);

/// All sockets of one port.
#[derive(Debug, Clone)]
pub struct Group {
    /// The same for both families.
    pub port: u16,
    /// One per worker.
    pub v4: Vec<Arc<Socket>>,
    /// One per worker; empty when the host has no IPv6.
    pub v6: Vec<Arc<Socket>>,
}

/// One socket of a [`Group`]: non-blocking, IPv4 only or IPv6 only. Any thread may use it.
#[derive(Debug)]
pub struct Socket {
    inner: socket2::Socket,
    state: UdpSocketState,
    ipv4: bool,
    room: Room,
    refusals: Mutex<Refusals>,
    /// Whether `refusals` holds any, so that the usual send takes no lock and reads no clock.
    refused: AtomicBool,
    /// One for the whole group.
    refusal_logged: Arc<Minute>,
}

impl Group {
    /// All sockets, of both families.
    pub fn sockets(&self) -> impl Iterator<Item = &Arc<Socket>> {
        self.v4.iter().chain(&self.v6)
    }

    /// Without any socket: nothing is received, and nothing can be sent.
    #[must_use]
    pub const fn closed() -> Self {
        Self { port: 0, v4: Vec::new(), v6: Vec::new() }
    }

    /// The mark of what they send; 0 = none.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.sockets().next().and_then(|socket| socket.inner.mark().ok()).unwrap_or_default()
    }

    /// Marks what all of them send, for routing rules. 0 = no mark.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without CAP_NET_ADMIN.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        self.sockets().try_for_each(|socket| socket.set_mark(mark))
    }
}

impl Socket {
    /// Whether it carries IPv4; else IPv6.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.ipv4
    }

    /// Marks what it sends, for routing rules. 0 = no mark.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without CAP_NET_ADMIN.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        self.inner.set_mark(mark)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// Sets a socket option that is an int and that no crate here names.
fn set_option(socket: &socket2::Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    const SIZE: libc::socklen_t = libc::c_int::BITS / 8;
    let pointer = (&raw const value).cast();
    // SAFETY: `pointer` and `SIZE` describe `value`, which lives through the call; the descriptor is open.
    let answer = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, SIZE) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
