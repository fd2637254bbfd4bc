//! The peers of a configuration: made and numbered, and kept over reloads as long as their keys stay.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use ipnet::IpNet;

use super::locked::locked;
use crate::config::uapi::Setting;
use crate::config::{Config, Connection, Startup, Tunnel};
use crate::tunnel::key::PresharedKey;
use crate::tunnel::{Identity, Initiates, Owner, Peer, PeerConfig, PeerId, Slots};

/// What is to become of the preshared keys: one for each tunnel, in the order of the file.
pub(super) type Preshared = Vec<Setting<PresharedKey>>;

/// Gives numbers and slots, never the same to two peers that are there together.
pub(super) struct Roster {
    workers: usize,
    slots: Slots,
    peers: u32,
    connections: u32,
}

impl Roster {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers: workers.max(1), slots: Slots::default(), peers: 0, connections: 0 }
    }

    pub(super) const fn workers(&self) -> usize {
        self.workers
    }

    /// The peers of `config`, in its order: those of `known` whose keys it names, and the others made. A preshared key
    /// that goes into a new peer is taken out of `preshared`.
    pub(super) fn enrol(
        &mut self,
        config: &Config,
        identity: &Arc<Identity>,
        known: &[Arc<Peer>],
        preshared: &mut Preshared,
    ) -> anyhow::Result<Vec<Arc<Peer>>> {
        let mut enrolled: Vec<Arc<Peer>> = Vec::new();
        for connection in &config.connections {
            let number = self.number(connection, known, &enrolled);
            for tunnel in &connection.tunnels {
                let peer = match find(known, tunnel).filter(|peer| peer.connection() == number) {
                    Some(peer) => Ok(peer.clone()),
                    None => self.make(connection, number, tunnel, identity, preshared.get_mut(enrolled.len())),
                };
                match peer {
                    Ok(peer) => enrolled.push(peer),
                    Err(error) => {
                        self.release(&enrolled, known);
                        return Err(error);
                    }
                }
            }
        }
        Ok(enrolled)
    }

    /// Takes back what those of `peers` hold that are not among `staying`.
    pub(super) fn release(&mut self, peers: &[Arc<Peer>], staying: &[Arc<Peer>]) {
        let gone = peers.iter().filter(|peer| !staying.iter().any(|other| Arc::ptr_eq(other, peer)));
        gone.flat_map(|peer| peer.lane.slots()).for_each(|slot| self.slots.release(slot));
    }

    /// A connection keeps its number with its first peer: networks are told by it whose they are, and the change from
    /// one table to the next must not be noticed.
    fn number(&mut self, connection: &Connection, known: &[Arc<Peer>], enrolled: &[Arc<Peer>]) -> u32 {
        let kept = connection.tunnels.iter().find_map(|tunnel| find(known, tunnel)).map(|peer| peer.connection());
        let is_free = |number: &u32| !enrolled.iter().any(|peer| peer.connection() == *number);
        kept.filter(is_free).unwrap_or_else(|| {
            self.connections += 1;
            self.connections - 1
        })
    }

    fn make(
        &mut self,
        connection: &Connection,
        number: u32,
        tunnel: &Tunnel,
        identity: &Arc<Identity>,
        preshared: Option<&mut Setting<PresharedKey>>,
    ) -> anyhow::Result<Arc<Peer>> {
        let id = self.peers;
        let psk = match preshared.map(|setting| std::mem::replace(setting, Setting::Keep)) {
            Some(Setting::Set(key)) => Some(key),
            Some(Setting::Keep | Setting::Clear) | None => None,
        };
        let worker = u8::try_from(usize::try_from(id)? % self.workers)?;
        let config = PeerConfig {
            id: PeerId(id),
            name: name(connection, tunnel),
            connection: number,
            remote: tunnel.public_key,
            psk,
            keepalive: tunnel.keepalive,
            initiates: initiates(connection),
            configured_endpoint: tunnel.endpoint.is_some(),
            slots: self.slots.pair(worker)?,
            seed: getrandom::u64().context("the kernel gives no random bytes")?,
        };
        self.peers += 1;
        Ok(locked(Peer::new(identity, config, Instant::now())))
    }
}

/// Makes `peers`, those of `config`, follow it. Whose preshared key becomes another gets a new session before the old
/// one goes; whether there is such a one.
pub(super) fn follow(config: &Config, peers: &[Arc<Peer>], preshared: Preshared, now: Instant) -> bool {
    let mut begins = false;
    for (((connection, tunnel), peer), psk) in config.tunnels().zip(peers).zip(preshared) {
        let configured = tunnel.endpoint.is_some();
        peer.follow(name(connection, tunnel), initiates(connection), configured, tunnel.keepalive);
        let psk = match psk {
            Setting::Keep => continue,
            Setting::Clear => None,
            Setting::Set(key) => Some(key),
        };
        if !peer.has_psk(psk.as_ref()) {
            peer.set_psk(psk, now);
            begins = true;
        }
    }
    begins
}

/// Whom each network belongs to: what is behind the far end to the connection, its inside address to the tunnel.
pub(super) fn owners(config: &Config, peers: &[Arc<Peer>]) -> Vec<(IpNet, Owner)> {
    let mut owners = Vec::new();
    let mut rest = peers.iter();
    for connection in &config.connections {
        let own: Vec<_> = connection.tunnels.iter().zip(rest.by_ref()).collect();
        let number = own.first().map(|(_, peer)| Owner::Connection(peer.connection()));
        owners.extend(number.into_iter().flat_map(|owner| connection.networks.iter().map(move |net| (*net, owner))));
        let inside =
            |(tunnel, peer): &(&Tunnel, &Arc<Peer>)| Some((tunnel.inside?.remote.into(), Owner::Tunnel(peer.id())));
        owners.extend(own.iter().filter_map(inside));
    }
    owners
}

fn find<'p>(known: &'p [Arc<Peer>], tunnel: &Tunnel) -> Option<&'p Arc<Peer>> {
    known.iter().find(|peer| *peer.key() == tunnel.public_key)
}

fn name(connection: &Connection, tunnel: &Tunnel) -> String {
    format!("{}/{}", connection.name, tunnel.name)
}

const fn initiates(connection: &Connection) -> Initiates {
    match connection.startup {
        Startup::Start => Initiates::Always,
        Startup::Add => Initiates::WhenHeard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::tunnel::key::PrivateKey;

    struct Far(String);

    impl Far {
        fn new() -> Self {
            Self(PrivateKey::generate().unwrap().public().to_string())
        }

        fn connection(&self, name: &str, network: &str) -> String {
            let Self(key) = self;
            format!(
                "[[connection]]\nname = \"{name}\"\nnetworks = [\"{network}\"]\n[[connection.tunnel]]\npublic_key = \
                 \"{key}\"\n"
            )
        }
    }

    fn config(connections: &[String]) -> Config {
        parse(&connections.concat(), "wan0.toml", "wan0").unwrap()
    }

    fn enrol(roster: &mut Roster, config: &Config, known: &[Arc<Peer>]) -> Vec<Arc<Peer>> {
        let identity = Arc::new(Identity::new(PrivateKey::generate().unwrap()));
        let mut preshared = config.tunnels().map(|_| Setting::Clear).collect();
        roster.enrol(config, &identity, known, &mut preshared).unwrap()
    }

    #[test]
    fn who_stays_is_the_same_peer_with_the_same_number_wherever_it_stands() {
        let (a, b, c) = (Far::new(), Far::new(), Far::new());
        let mut roster = Roster::new(2);
        let before = config(&[a.connection("a", "10.1.0.0/16"), b.connection("b", "10.2.0.0/16")]);
        let old = enrol(&mut roster, &before, &[]);
        let after = config(&[c.connection("a", "10.1.0.0/16"), b.connection("renamed", "10.9.0.0/16")]);
        let new = enrol(&mut roster, &after, &old);
        assert!(Arc::ptr_eq(&new[1], &old[1]));
        let numbers =
            |peers: &[Arc<Peer>]| peers.iter().map(|peer| (peer.id().0, peer.connection())).collect::<Vec<_>>();
        assert_eq!(numbers(&old), [(0, 0), (1, 1)]);
        assert_eq!(numbers(&new), [(2, 2), (1, 1)], "numbers are never used again");
        let owner = |of: &Config, peers: &[Arc<Peer>], net: &str| {
            owners(of, peers).into_iter().find(|(network, _)| *network == net.parse().unwrap()).unwrap().1
        };
        assert_eq!(owner(&before, &old, "10.2.0.0/16"), Owner::Connection(1));
        assert_eq!(owner(&after, &new, "10.9.0.0/16"), Owner::Connection(1));
        assert_eq!(owner(&after, &new, "10.1.0.0/16"), Owner::Connection(2));
    }

    #[test]
    fn who_is_removed_gives_its_slots_back_and_who_stays_does_not() {
        let (a, b) = (Far::new(), Far::new());
        let mut roster = Roster::new(1);
        let both = config(&[a.connection("a", "10.1.0.0/16"), b.connection("b", "10.2.0.0/16")]);
        let peers = enrol(&mut roster, &both, &[]);
        roster.release(&peers, &peers[..1]);
        let in_use = |slots: &Slots| format!("{slots:?}").matches("Slot(").count();
        assert_eq!(in_use(&roster.slots), 2);
    }

    #[test]
    fn a_preshared_key_that_is_the_same_leaves_its_peer_alone() {
        let a = Far::new();
        let one = config(&[a.connection("a", "10.1.0.0/16")]);
        let mut roster = Roster::new(1);
        let peers = enrol(&mut roster, &one, &[]);
        let key = PresharedKey::generate().unwrap();
        let again = PresharedKey::parse(&key.reveal()).unwrap();
        let replacing = || peers[0].lane.view(Instant::now()).replacing;
        assert!(!follow(&one, &peers, vec![Setting::Clear], Instant::now()));
        assert!(!replacing());
        assert!(follow(&one, &peers, vec![Setting::Set(key)], Instant::now()));
        assert!(replacing() && peers[0].has_psk(Some(&again)));
    }
}
