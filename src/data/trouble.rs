//! What the kernel refuses on the hot path: counted each time, told to the admin once a minute.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::sys::minute::Minute;
use crate::sys::udp::SendError;

/// How long a worker leaves a descriptor alone that fails instead of saying that it has nothing.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// One plane's, shared by its threads.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    read: Minute,
    write: Minute,
    merge: Minute,
    receive: Minute,
    send: Minute,
}

impl Trouble {
    /// Reading the interface failed, but it is still there.
    pub(super) fn reading(&self, error: &io::Error) {
        if self.read.is_due(Instant::now()) {
            warn!(%error, "reading the interface fails: trying again and again");
        }
    }

    /// The interface took a packet singly but not merged with others.
    pub(super) fn merging(&self) {
        if self.merge.is_due(Instant::now()) {
            warn!("the interface refuses merged packets: slower delivery, one by one, from now on");
        }
    }

    /// The interface did not take a packet.
    pub(super) fn writing(&self, error: &io::Error) {
        if self.write.is_due(Instant::now()) {
            let remedy = match error.raw_os_error() {
                Some(libc::EIO) => "; it is down: set it up again (ip link set NAME up)",
                _ => "",
            };
            warn!(%error, "the interface refuses packets from the tunnel{remedy}");
        }
    }

    /// Receiving on a socket failed.
    pub(super) fn receiving(&self, error: &io::Error) {
        if self.receive.is_due(Instant::now()) {
            warn!(%error, "receiving fails: trying again and again");
        }
    }

    /// Sending failed for another reason than full buffers.
    pub(super) fn sending(&self, to: SocketAddr, error: &SendError) {
        if self.send.is_due(Instant::now()) {
            warn!(%to, "{error}{}", remedy(error));
        }
    }
}

/// What an admin can do about it.
fn remedy(error: &SendError) -> &'static str {
    let kernel = match error {
        SendError::TooBig => return "; the way there carries less than the tunnel sends: set a smaller mtu",
        SendError::Refused(kernel) => kernel,
        SendError::Busy => return "",
    };
    match kernel.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; a firewall rule of this machine forbids it",
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN) => "; look at the uplink and at the routes to it",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_a_missing_route_and_a_narrow_way_have_a_remedy() {
        let refused = |errno| SendError::Refused(io::Error::from_raw_os_error(errno));
        assert!(remedy(&refused(libc::EPERM)).contains("firewall"));
        assert!(remedy(&refused(libc::ENETUNREACH)).contains("routes"));
        assert!(remedy(&SendError::TooBig).contains("smaller mtu"));
    }
}
