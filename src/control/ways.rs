//! The interfaces by which peers are answered: those by which they were heard, whatever the kernel would choose. Nothing
//! of that changes by itself: a peer goes on sending to where its answers come from. So what changes in the kernel's
//! routes is looked for here.

use std::collections::BTreeMap;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::netlink::Netlink;
use crate::tunnel::{Address, Local, Peer, PeerId};

/// Who answers within this time is reached.
const PATIENCE: Duration = Duration::from_secs(2);

/// Knows by which interface the kernel itself would send to each peer.
pub(super) struct Ways {
    netlink: Netlink,
    choices: BTreeMap<PeerId, Choice>,
}

/// The kernel's choice for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    remote: IpAddr,
    interface: u32,
}

impl Ways {
    pub(super) const fn new(netlink: Netlink) -> Self {
        Self { netlink, choices: BTreeMap::new() }
    }

    /// Lets the kernel choose another way to those of `peers` whose way has become a wrong one. `tun` is the index of our
    /// interface, `mark` that of the sockets. To be called every few seconds: an interface is avoided until the next call,
    /// so that a peer which is heard on the old way only stays there.
    pub(super) async fn look(&mut self, tun: u32, mark: u32, peers: Vec<Arc<Peer>>) {
        let mut before = mem::take(&mut self.choices);
        for peer in peers {
            peer.avoid(0);
            let view = peer.lane.view(Instant::now());
            let waits = view.unanswered.is_some_and(|age| age >= PATIENCE);
            // Many a peer is silent, and has no way that could be wrong.
            let Some(address) = peer.address().filter(|_| view.session || waits) else { continue };
            let old = before.remove(&peer.id());
            let new = self.choice(address.remote.ip(), tun, mark).await.or(old);
            self.choices.extend(new.map(|choice| (peer.id(), choice)));
            let Some(local) = address.local.filter(|local| local.interface != 0) else { continue };
            let why = if has_moved(old, new, local.interface) && !self.is_chosen(&address, local, mark).await {
                peer.avoid(local.interface);
                "the kernel prefers another"
            } else if waits && self.is_dead_end(&address, local, mark).await {
                peer.forget_local(&address);
                "there is no route by it any more"
            } else {
                continue;
            };
            debug!(
                tunnel = peer.name().as_str(),
                interface = local.interface,
                why,
                "no longer answered by this interface"
            );
        }
    }

    /// The tunnel itself is no way.
    async fn choice(&self, remote: IpAddr, tun: u32, mark: u32) -> Option<Choice> {
        let interface = self.netlink.chosen(remote, None, mark).await.ok().flatten().filter(|chosen| *chosen != tun)?;
        Some(Choice { remote, interface })
    }

    /// Whether the kernel keeps the way for packets from this local address, as a rule for it may say.
    async fn is_chosen(&self, address: &Address, local: Local, mark: u32) -> bool {
        self.netlink.chosen(address.remote.ip(), Some(local.addr), mark).await == Ok(Some(local.interface))
    }

    /// The route has gone while the interface stayed: the kernel refuses nothing then, but looks for the peer on the link,
    /// in vain.
    async fn is_dead_end(&self, address: &Address, local: Local, mark: u32) -> bool {
        // No answer of the kernel is no reason to leave.
        self.netlink.reaches(address.remote.ip(), local.addr, local.interface, mark).await == Ok(false)
    }
}

/// Whether the kernel's choice was `interface` and is another one: the administrator, or a routing daemon, wants that. Who
/// calls by an interface that never was the kernel's choice is answered there.
fn has_moved(old: Option<Choice>, new: Option<Choice>, interface: u32) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    old.remote == new.remote && old.interface == interface && new.interface != interface
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(host: u8, interface: u32) -> Option<Choice> {
        Some(Choice { remote: IpAddr::from([192, 0, 2, host]), interface })
    }

    #[test]
    fn a_way_is_left_when_it_was_the_kernel_s_choice_and_is_no_more() {
        assert!(has_moved(choice(1, 1), choice(1, 2), 1));
        for (old, new, interface) in [
            (choice(1, 2), choice(1, 2), 1),
            (choice(1, 1), choice(1, 2), 3),
            (choice(1, 1), choice(1, 2), 2),
            (choice(2, 1), choice(1, 2), 1),
            (None, choice(1, 2), 1),
            (choice(1, 1), None, 1),
        ] {
            assert!(!has_moved(old, new, interface), "{old:?} {new:?} {interface}");
        }
    }
}
