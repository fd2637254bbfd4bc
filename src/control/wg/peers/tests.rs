use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::tunnel::key::PrivateKey;

const KEYS: u8 = 5;

fn key(number: u8) -> PublicKey {
    PublicKey::new([number; 32])
}

fn network(number: u8) -> IpNet {
    format!("10.{number}.0.0/16").parse().unwrap()
}

fn add(number: u8) -> PeerChange {
    PeerChange::new(key(number))
}

fn remove(number: u8) -> PeerChange {
    PeerChange { remove: true, ..add(number) }
}

/// Peers and who we are.
struct World(Peers, Arc<Identity>);

impl World {
    fn new() -> Self {
        Self(Peers::new(2), Arc::new(Identity::new(PrivateKey::generate().unwrap())))
    }

    fn apply(&mut self, change: Change) {
        let reserved = self.0.reserve(&change).unwrap();
        self.0.apply(change.replace_peers, change.peers, &self.1, reserved, Instant::now());
    }

    fn keys(&self) -> Vec<PublicKey> {
        self.0.iter().map(|peer| *peer.key()).collect()
    }
}

fn of(peers: Vec<PeerChange>) -> Change {
    Change { peers, ..Change::default() }
}

#[test]
fn a_peer_that_is_removed_and_added_again_by_one_request_is_there() {
    let mut world = World::new();
    world.apply(of(vec![add(1), remove(1), add(1)]));
    assert_eq!(world.keys(), [key(1)]);
    world.apply(of(vec![remove(1), add(1), remove(1), add(1), add(2)]));
    assert_eq!(world.keys(), [key(1), key(2)]);
    world.apply(Change { replace_peers: true, ..of(vec![add(2), remove(2), add(2), add(1)]) });
    assert_eq!(world.keys(), [key(2), key(1)]);
}

#[test]
fn only_peers_that_are_new_take_slots() {
    let mut world = World::new();
    world.apply(of(vec![add(1), add(2)]));
    let again = of(vec![add(1), PeerChange { update_only: true, ..add(3) }, add(2), add(4), add(4)]);
    assert_eq!(world.0.reserve(&again).unwrap().0.len(), 1);
    let all = Change { replace_peers: true, ..of(vec![add(1), add(2)]) };
    assert_eq!(world.0.reserve(&all).unwrap().0.len(), 2);
}

/// A list of peers in order, each with its networks: what the words of a request mean.
#[derive(Default)]
struct Model(Vec<(PublicKey, Vec<IpNet>)>);

impl Model {
    fn apply(&mut self, replace: bool, changes: &[PeerChange]) {
        if replace {
            self.0.clear();
        }
        for change in changes {
            self.change(change);
        }
    }

    fn change(&mut self, change: &PeerChange) {
        if change.remove {
            return self.0.retain(|(key, _)| *key != change.public_key);
        }
        let known = self.0.iter().any(|(key, _)| *key == change.public_key);
        match (known, change.update_only) {
            (false, true) => return,
            (false, false) => self.0.push((change.public_key, Vec::new())),
            (true, _) if change.replace_allowed_ips => self.allowed(&change.public_key).clear(),
            (true, _) => {}
        }
        for one in &change.allowed_ips {
            match one {
                AllowedIp::Give(network) => {
                    self.0.iter_mut().for_each(|(_, networks)| networks.retain(|other| other != network));
                    self.allowed(&change.public_key).push(*network);
                }
                AllowedIp::Take(network) => self.allowed(&change.public_key).retain(|other| other != network),
            }
        }
    }

    fn allowed(&mut self, key: &PublicKey) -> &mut Vec<IpNet> {
        &mut self.0.iter_mut().find(|(other, _)| other == key).unwrap().1
    }
}

fn allowed_ip() -> impl Strategy<Value = AllowedIp> {
    (any::<bool>(), 0..6_u8).prop_map(|(give, number)| match give {
        true => AllowedIp::Give(network(number)),
        false => AllowedIp::Take(network(number)),
    })
}

fn peer_change() -> impl Strategy<Value = PeerChange> {
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (1..=KEYS, flags, vec(allowed_ip(), 0..4)).prop_map(|(number, (remove, update_only, replace), allowed_ips)| {
        PeerChange { remove, update_only, replace_allowed_ips: replace, allowed_ips, ..add(number) }
    })
}

proptest! {
    #[test]
    fn any_sequence_of_requests_leaves_what_a_naive_model_has(
        requests in vec((prop::bool::weighted(0.2), vec(peer_change(), 0..8)), 1..8),
    ) {
        let (mut world, mut model) = (World::new(), Model::default());
        for (replace_peers, peers) in requests {
            model.apply(replace_peers, &peers);
            world.apply(Change { replace_peers, peers, ..Change::default() });
            let sorted = |networks: &[IpNet]| { let mut all = networks.to_vec(); all.sort(); all };
            let has: Vec<_> =
                world.0.answers().iter().map(|peer| (peer.public_key, sorted(&peer.allowed_ips))).collect();
            let should: Vec<_> = model.0.iter().map(|(key, networks)| (*key, sorted(networks))).collect();
            prop_assert_eq!(has, should);
        }
    }
}
