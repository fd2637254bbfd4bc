//! Ways that lead nowhere any more. A peer's datagrams are answered by the interface on which they came; when the route
//! there goes while the interface stays, the kernel refuses nothing: it looks for the peer on the link, in vain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::netlink::Netlink;
use crate::tunnel::Peer;

/// Who answers within this time is reached.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lets the kernel choose another way to each of `peers` that does not answer, if the kernel has no route by the one on
/// which it was last heard. `mark` is that of the sockets.
pub(super) async fn leave(netlink: &Netlink, mark: u32, peers: Vec<Arc<Peer>>) {
    for peer in peers {
        let waits = peer.lane.view(Instant::now()).unanswered.is_some_and(|age| age >= PATIENCE);
        let Some(address) = peer.address().filter(|_| waits) else { continue };
        let Some(local) = address.local.filter(|local| local.interface != 0) else { continue };
        // No answer of the kernel is no reason to leave.
        if let Ok(false) = netlink.reaches(address.remote.ip(), local.addr, local.interface, mark).await {
            debug!(tunnel = peer.name().as_str(), interface = local.interface, "no route by this interface any more");
            peer.forget_local(&address);
        }
    }
}
