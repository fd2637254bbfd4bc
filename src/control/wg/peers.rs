//! The peers of a device and who may send from where: what `set` changes, with WireGuard's own rules.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::config::uapi::{AllowedIp, Change, PeerAnswer, PeerChange, Refusal, Setting};
use crate::control::locked::locked;
use crate::control::uapi::{Handshakes, peer_answer};
use crate::tunnel::key::{PresharedKey, PublicKey};
use crate::tunnel::{Address, Identity, Initiates, Owner, Peer, PeerConfig, PeerId, Slot, Slots};

/// All peers.
pub(super) struct Peers {
    workers: usize,
    /// In the order in which they came.
    members: BTreeMap<PeerId, Member>,
    keys: HashMap<PublicKey, PeerId>,
    /// Each network has one peer.
    allowed: BTreeMap<IpNet, PeerId>,
    slots: Slots,
    next: u32,
}

struct Member {
    peer: Arc<Peer>,
    handshakes: Handshakes,
}

/// Slots for peers to come: taken before anything is changed, because they may run out.
pub(super) struct Reserved(Vec<[Slot; 2]>);

impl Peers {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            members: BTreeMap::new(),
            keys: HashMap::new(),
            allowed: BTreeMap::new(),
            slots: Slots::default(),
            next: 0,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.members.values().map(|member| &member.peer)
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = (IpNet, Owner)> {
        self.allowed.iter().map(|(network, id)| (*network, Owner::Tunnel(*id)))
    }

    /// Takes what all peers need that `change` will add; a peer may be removed in it and added again.
    pub(super) fn reserve(&mut self, change: &Change) -> Result<Reserved, Refusal> {
        let adds = self.adds(change);
        let mut reserved = Reserved(Vec::with_capacity(adds));
        for _ in 0..adds {
            let worker = (self.members.len() + reserved.0.len()) % self.workers;
            match u8::try_from(worker).ok().and_then(|worker| self.slots.pair(worker).ok()) {
                Some(pair) => reserved.0.push(pair),
                None => {
                    self.release(reserved);
                    return Err(Refusal::Io);
                }
            }
        }
        Ok(reserved)
    }

    /// How often a peer that is not there is added, in the order of the request.
    fn adds(&self, change: &Change) -> usize {
        let mut there: HashSet<PublicKey> = HashSet::new();
        if !change.replace_peers {
            there.extend(self.keys.keys());
        }
        let mut is_added = |peer: &&PeerChange| {
            if peer.remove {
                there.remove(&peer.public_key);
            }
            !peer.remove && !peer.update_only && there.insert(peer.public_key)
        };
        change.peers.iter().filter(&mut is_added).count()
    }

    /// Gives back what was not needed.
    pub(super) fn release(&mut self, reserved: Reserved) {
        reserved.0.into_iter().flatten().for_each(|slot| self.slots.release(slot));
    }

    /// Does what a request says of peers, in its order. `identity` is who we are.
    pub(super) fn apply(
        &mut self,
        replace: bool,
        changes: Vec<PeerChange>,
        identity: &Arc<Identity>,
        mut reserved: Reserved,
        now: Instant,
    ) {
        if replace {
            self.clear();
        }
        for change in changes {
            self.change(change, identity, &mut reserved, now);
        }
        self.release(reserved);
    }

    fn change(&mut self, change: PeerChange, identity: &Arc<Identity>, reserved: &mut Reserved, now: Instant) {
        if change.remove {
            return self.remove(&change.public_key);
        }
        // We are no peer of ourselves.
        if change.public_key == *identity.public() {
            return;
        }
        let known = self.keys.get(&change.public_key).copied();
        let id = match known {
            None if change.update_only => return,
            Some(id) => id,
            None => match self.add(&change, identity, reserved, now) {
                Some(id) => id,
                None => return,
            },
        };
        if let Some(member) = self.members.get(&id) {
            configure(&member.peer, change.preshared_key, change.endpoint.map(Address::new), change.keepalive, now);
        }
        self.allow(id, change.replace_allowed_ips, &change.allowed_ips);
    }

    fn add(
        &mut self,
        change: &PeerChange,
        identity: &Arc<Identity>,
        reserved: &mut Reserved,
        now: Instant,
    ) -> Option<PeerId> {
        let id = PeerId(self.next);
        let config = PeerConfig {
            id,
            name: short(&change.public_key),
            connection: id.0,
            remote: change.public_key,
            psk: None,
            keepalive: None,
            initiates: Initiates::OnDemand,
            configured_endpoint: change.endpoint.is_some(),
            slots: reserved.0.pop()?,
            seed: getrandom::u64().unwrap_or_else(|_| id.0.into()),
        };
        self.next += 1;
        let member = Member { peer: locked(Peer::new(identity, config, now)), handshakes: Handshakes::default() };
        self.members.insert(id, member);
        self.keys.insert(change.public_key, id);
        Some(id)
    }

    fn allow(&mut self, id: PeerId, replace: bool, changes: &[AllowedIp]) {
        if replace {
            self.allowed.retain(|_, owner| *owner != id);
        }
        for change in changes {
            match change {
                AllowedIp::Give(network) => {
                    self.allowed.insert(*network, id);
                }
                AllowedIp::Take(network) if self.allowed.get(network) == Some(&id) => {
                    self.allowed.remove(network);
                }
                AllowedIp::Take(_) => {}
            }
        }
    }

    /// Removes a peer, if it is there.
    pub(super) fn remove(&mut self, key: &PublicKey) {
        let Some(id) = self.keys.remove(key) else { return };
        self.allowed.retain(|_, owner| *owner != id);
        if let Some(member) = self.members.remove(&id) {
            member.peer.lane.slots().into_iter().for_each(|slot| self.slots.release(slot));
        }
    }

    fn clear(&mut self) {
        let keys: Vec<PublicKey> = self.keys.keys().copied().collect();
        self.allowed.clear();
        keys.iter().for_each(|key| self.remove(key));
    }

    pub(super) fn answers(&self) -> Vec<PeerAnswer> {
        let mut networks: HashMap<PeerId, Vec<IpNet>> = HashMap::new();
        for (network, id) in &self.allowed {
            networks.entry(*id).or_default().push(*network);
        }
        let mut answer = |(id, member): (&PeerId, &Member)| {
            peer_answer(&member.peer, &member.handshakes, networks.remove(id).unwrap_or_default())
        };
        self.members.iter().map(&mut answer).collect()
    }
}

fn configure(peer: &Peer, psk: Setting<PresharedKey>, endpoint: Option<Address>, keepalive: Option<u16>, now: Instant) {
    let psk = match psk {
        Setting::Keep => None,
        Setting::Clear => Some(None),
        Setting::Set(key) => Some(Some(key)),
    };
    if let Some(psk) = psk.filter(|psk| !peer.has_psk(psk.as_ref())) {
        peer.set_psk(psk, now);
    }
    if let Some(endpoint) = endpoint {
        peer.set_address(endpoint);
    }
    if let Some(seconds) = keepalive {
        peer.set_keepalive((seconds > 0).then(|| Duration::from_secs(seconds.into())));
    }
}

/// Enough of a key to tell peers apart in a log.
fn short(key: &PublicKey) -> String {
    let text = key.to_string();
    format!("{}\u{2026}", text.get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests;
