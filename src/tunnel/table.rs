//! The table: an immutable snapshot of who is where, replaced whole when the configuration changes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;

use super::allowed_ips::AllowedIps;
use super::gate::Gate;
use super::id::{PeerId, SessionIndex, Slot};
use super::identity::Identity;
use super::inner;
use super::key::PublicKey;
use super::lane::OpenBuffer;
use super::peer::Peer;
use crate::packet::{Mtu, Reason};

/// Whom a network belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// A connection, by number: any of its tunnels may carry and admit it.
    Connection(u32),
    /// One tunnel only: its inside addresses.
    Tunnel(PeerId),
}

/// An inner packet whose source belongs to the tunnel it came from: only such a packet may be written to the TUN.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    start: usize,
    end: usize,
}

impl Admitted {
    /// Where it lies in the buffer that it was opened into.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Everything the data plane looks up.
#[derive(Debug)]
pub struct Table {
    identity: Arc<Identity>,
    gate: Arc<Gate>,
    peers: Vec<Arc<Peer>>,
    owners: AllowedIps<Entry>,
    slots: HashMap<Slot, Place>,
    keys: HashMap<PublicKey, Place>,
    mtu: Mtu,
    follows: bool,
}

/// A position in `peers`.
type Place = usize;

#[derive(Debug)]
struct Entry {
    owner: Owner,
    /// The peer that carries it; none if the owner has no peer.
    carrier: Option<Place>,
}

impl Table {
    /// A table of `peers`; `networks` says whose each network is. A connection's networks go to its first peer.
    #[must_use]
    pub fn new(
        identity: Arc<Identity>,
        gate: Arc<Gate>,
        peers: Vec<Arc<Peer>>,
        networks: impl IntoIterator<Item = (IpNet, Owner)>,
        mtu: Mtu,
    ) -> Self {
        let carriers = carriers(&peers);
        let entry = |owner| Entry { owner, carrier: carriers.get(&owner).copied() };
        let owners = networks.into_iter().map(|(network, owner)| (network, entry(owner))).collect();
        let indexed = || peers.iter().enumerate();
        let slots = indexed().flat_map(|(at, peer)| peer.lane.slots().map(|slot| (slot, at))).collect();
        let keys = indexed().map(|(at, peer)| (*peer.key(), at)).collect();
        Self { identity, gate, owners, slots, keys, peers, mtu, follows: false }
    }

    /// The MTU is that of the interface, which another sets, and this table knows it a moment later.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.follows = true;
        self
    }

    /// Whether the sender of a packet that is too big must hear of the MTU from us. Not of one that follows the
    /// interface: the kernel knows it first, and would believe an outdated one for ten minutes.
    #[must_use]
    pub const fn tells_mtu(&self) -> bool {
        !self.follows
    }

    /// The peer to which packets for `destination` go.
    #[must_use]
    pub fn route(&self, destination: IpAddr) -> Option<&Arc<Peer>> {
        self.peers.get(self.owners.lookup(destination)?.carrier?)
    }

    /// The peer that the receiver index of a datagram names.
    #[must_use]
    pub fn by_index(&self, receiver_index: impl Into<SessionIndex>) -> Option<&Arc<Peer>> {
        self.peers.get(*self.slots.get(&receiver_index.into().slot())?)
    }

    /// The peer with this key.
    #[must_use]
    pub fn by_key(&self, key: &PublicKey) -> Option<&Arc<Peer>> {
        self.peers.get(*self.keys.get(key)?)
    }

    /// Whether the source of the opened packet at `index` belongs to the tunnel it came from: the owner of the longest matching
    /// network counts, so nobody can use a more specific network of somebody else.
    ///
    /// # Errors
    /// [`Reason::InInnerMalformed`] or [`Reason::InSourceNotAllowed`].
    pub fn admit(&self, peer: &Peer, opened: &OpenBuffer, index: usize) -> Result<Admitted, Reason> {
        let range = opened.packets().get(index).cloned().ok_or(Reason::InInnerMalformed)?;
        let packet = opened.arena().get(range.clone()).ok_or(Reason::InInnerMalformed)?;
        let source = inner::source(packet).ok_or(Reason::InInnerMalformed)?;
        let entry = self.owners.lookup(source).ok_or(Reason::InSourceNotAllowed)?;
        let allowed = match entry.owner {
            Owner::Connection(number) => peer.connection() == number,
            Owner::Tunnel(id) => peer.id() == id,
        };
        if allowed { Ok(Admitted { start: range.start, end: range.end }) } else { Err(Reason::InSourceNotAllowed) }
    }

    /// All peers.
    #[must_use]
    pub fn peers(&self) -> &[Arc<Peer>] {
        &self.peers
    }

    /// The handshake gate of our key.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Our key.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The largest inner packet.
    #[must_use]
    pub const fn mtu(&self) -> Mtu {
        self.mtu
    }
}

fn carriers(peers: &[Arc<Peer>]) -> HashMap<Owner, Place> {
    let mut carriers = HashMap::new();
    for (at, peer) in peers.iter().enumerate() {
        carriers.insert(Owner::Tunnel(peer.id()), at);
        carriers.entry(Owner::Connection(peer.connection())).or_insert(at);
    }
    carriers
}

#[cfg(test)]
mod tests;
