//! Hears what others change in the kernel's routing, so that it can be put back.
//!
//! Looks only at the first bytes of each message: on a router with a busy BGP daemon most of them are not for us.

use std::io;
use std::time::Duration;

use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt as _, SocketAddr, TokioSocket};
use tokio::time::{Instant, sleep_until};

use crate::control::routes::PROTOCOL;

/// How long changes are gathered before they are told: one event for a burst.
const GATHER: Duration = Duration::from_millis(100);

const HEADER: usize = 16; // struct nlmsghdr
const ROUTE_PROTOCOL: usize = 5; // rtm_protocol in struct rtmsg
const BUFFER: usize = 64 << 10;

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Tells that links, addresses, rules or our routes have changed.
pub struct Monitor {
    socket: TokioSocket,
    buffer: Vec<u8>,
    due: Option<Instant>,
    gather: Duration,
}

impl Monitor {
    /// In the network namespace of this thread; needs no capability.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> io::Result<Self> {
        Self::of(&GROUPS, GATHER)
    }

    /// The same of links only, told at once, and of those in other namespaces, too, if the process has
    /// CAP_NET_BROADCAST (it may lose it afterwards): whether it has.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open_for_links() -> io::Result<(Self, bool)> {
        let monitor = Self::of(&[MulticastGroup::Link], Duration::ZERO)?;
        let everywhere = monitor.socket.socket_ref().set_listen_all_namespaces(true).is_ok();
        Ok((monitor, everywhere))
    }

    fn of(groups: &[MulticastGroup], gather: Duration) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = groups.iter().fold(0, |groups, group| groups | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER), due: None, gather })
    }

    /// Returns 100 ms after something has changed. Safe to drop at any time: no change is forgotten.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let due = self.due;
            tokio::select! {
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                    self.due = None;
                    return Ok(());
                }
                heard = hear(&self.socket, &mut self.buffer) => {
                    if heard? {
                        self.due = self.due.or_else(|| Some(Instant::now() + self.gather));
                    }
                }
            }
        }
    }
}

/// Receives once: whether it matters.
async fn hear(socket: &TokioSocket, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.clear();
    match socket.recv(buffer).await {
        Ok(()) => Ok(matters(buffer)),
        // The kernel dropped messages because there were too many: anything may have changed.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether one of the netlink messages in `bytes` may concern us.
fn matters(mut bytes: &[u8]) -> bool {
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, k0, k1, f0, f1, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(message) = bytes.get(HEADER..length) else { return true };
        if concerns(u16::from_ne_bytes([k0, k1]), u16::from_ne_bytes([f0, f1]), message) {
            return true;
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn concerns(kind: u16, flags: u16, message: &[u8]) -> bool {
    let ours = message.get(ROUTE_PROTOCOL) == Some(&PROTOCOL);
    match kind {
        libc::RTM_DELROUTE => ours,
        // Ours may have been replaced; a new one beside it is the other's affair.
        libc::RTM_NEWROUTE => !ours && i32::from(flags) & libc::NLM_F_REPLACE != 0,
        libc::RTM_NEWRULE => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: i32, protocol: u8) -> Vec<u8> {
        let mut bytes = 28_u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(u16::try_from(flags).unwrap().to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend([2, 16, 0, 0, 254, protocol, 0, 1, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn the_loss_of_our_routes_matters_and_that_of_others_does_not() {
        assert!(matters(&message(libc::RTM_DELROUTE, 0, PROTOCOL)));
        assert!(!matters(&message(libc::RTM_DELROUTE, 0, 186)));
        assert!(!matters(&message(libc::RTM_NEWROUTE, 0, 186)));
        assert!(!matters(&message(libc::RTM_NEWROUTE, libc::NLM_F_REPLACE, PROTOCOL)));
        assert!(matters(&message(libc::RTM_NEWROUTE, libc::NLM_F_REPLACE, 186)));
        assert!(matters(&message(libc::RTM_DELADDR, 0, 0)));
        assert!(matters(&message(libc::RTM_DELRULE, 0, 0)));
    }

    #[test]
    fn the_second_message_of_a_datagram_is_seen_and_a_broken_length_counts_as_a_change() {
        let mut two = message(libc::RTM_NEWROUTE, 0, 186);
        two.extend(message(libc::RTM_DELROUTE, 0, PROTOCOL));
        assert!(matters(&two));
        let mut broken = message(libc::RTM_NEWROUTE, 0, 186);
        broken[0] = 255;
        assert!(matters(&broken));
        broken[0] = 3;
        assert!(matters(&broken));
        assert!(!matters(&[]));
    }
}
