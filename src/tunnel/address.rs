//! Where a peer's datagrams go.

use std::net::{IpAddr, SocketAddr};

/// The far end, and which of our addresses it knows us by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// Where the far end is.
    pub remote: SocketAddr,
    /// Where its datagrams arrive; none until one did, then the kernel chooses.
    pub local: Option<Local>,
}

/// The local side of an [`Address`]: replies leave from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    /// The address that the peer's datagram was sent to.
    pub addr: IpAddr,
    /// Number of the interface it came by; 0 = any.
    pub interface: u32,
}

impl Address {
    /// `remote`, by whichever way the kernel chooses.
    #[must_use]
    pub const fn new(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}
