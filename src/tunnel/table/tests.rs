//! Who may carry and admit what.

use std::time::Instant;

use super::*;
use crate::tunnel::inner::tests::packet;
use crate::tunnel::key::PrivateKey;
use crate::tunnel::peer::{Initiates, PeerConfig};

fn peer(identity: &Arc<Identity>, id: u16, connection: u32) -> Arc<Peer> {
    let config = PeerConfig {
        id: PeerId(id.into()),
        name: format!("site-{connection}/{id}"),
        connection,
        remote: PrivateKey::generate().unwrap().public(),
        psk: None,
        keepalive: None,
        initiates: Initiates::Always,
        configured_endpoint: true,
        slots: [Slot::new(id, 1), Slot::new(id + 1000, 1)],
        seed: 0,
    };
    Arc::new(Peer::new(identity, config, Instant::now()))
}

/// Peers 1 and 2 of connection 0, 3 of connection 1.
fn table() -> Table {
    let identity = Arc::new(Identity::new(PrivateKey::generate().unwrap()));
    let gate = Arc::new(Gate::new(identity.public()));
    let peers = vec![peer(&identity, 1, 0), peer(&identity, 2, 0), peer(&identity, 3, 1)];
    let networks = [
        ("10.20.0.0/16", Owner::Connection(0)),
        ("10.20.30.0/24", Owner::Connection(1)),
        ("fd00:20::/32", Owner::Connection(0)),
        ("169.254.77.2/32", Owner::Tunnel(PeerId(2))),
        ("10.99.0.0/16", Owner::Connection(9)),
    ];
    let networks = networks.map(|(network, owner)| (network.parse().unwrap(), owner));
    Table::new(identity, gate, peers, networks, Mtu::DEFAULT)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route(table: &Table, destination: &str) -> Option<u32> {
    table.route(ip(destination)).map(|peer| peer.id().0)
}

fn admit(table: &Table, peer: usize, source: &str) -> Result<(), Reason> {
    let destination = if source.contains(':') { "fd00::1" } else { "10.1.1.1" };
    let packet = packet(ip(source), ip(destination), 60);
    let opened = OpenBuffer::holding(&packet);
    table.admit(&table.peers()[peer], &opened, 0).map(|admitted| assert_eq!(opened.arena()[admitted.range()], packet))
}

#[test]
fn the_longest_network_decides_where_a_packet_goes() {
    let table = table();
    assert_eq!(route(&table, "10.20.1.1"), Some(1));
    assert_eq!(route(&table, "10.20.30.1"), Some(3));
    assert_eq!(route(&table, "fd00:20::5"), Some(1));
    assert_eq!(route(&table, "169.254.77.2"), Some(2));
    assert_eq!(route(&table, "8.8.8.8"), None);
    assert_eq!(route(&table, "10.99.0.1"), None);
}

#[test]
fn any_tunnel_of_a_connection_may_bring_its_networks() {
    let table = table();
    for peer in [0, 1] {
        assert_eq!(admit(&table, peer, "10.20.1.1"), Ok(()));
        assert_eq!(admit(&table, peer, "fd00:20::1"), Ok(()));
    }
}

#[test]
fn an_inside_address_belongs_to_its_tunnel_alone() {
    let table = table();
    assert_eq!(admit(&table, 1, "169.254.77.2"), Ok(()));
    assert_eq!(admit(&table, 0, "169.254.77.2"), Err(Reason::InSourceNotAllowed));
}

#[test]
fn trap_15_a_covering_network_is_no_right_to_anothers_more_specific_one() {
    let table = table();
    for host in 0..=255 {
        assert_eq!(admit(&table, 0, &format!("10.20.30.{host}")), Err(Reason::InSourceNotAllowed));
        assert_eq!(admit(&table, 2, &format!("10.20.30.{host}")), Ok(()));
    }
    assert_eq!(admit(&table, 2, "10.20.1.1"), Err(Reason::InSourceNotAllowed));
    assert_eq!(admit(&table, 0, "192.168.1.1"), Err(Reason::InSourceNotAllowed));
    assert_eq!(admit(&table, 0, "10.99.0.1"), Err(Reason::InSourceNotAllowed));
}

#[test]
fn what_is_not_ip_is_not_admitted() {
    let table = table();
    for packet in [&[][..], &[0x45; 19], &[0x60; 39], &[0; 100]] {
        assert_eq!(
            table.admit(&table.peers()[0], &OpenBuffer::holding(packet), 0).map(|_| ()),
            Err(Reason::InInnerMalformed)
        );
    }
}

#[test]
fn a_peer_is_found_by_all_its_indices_and_by_its_key() {
    let table = table();
    for peer in table.peers() {
        for slot in peer.lane.slots() {
            for n in [0, 1, 255] {
                assert_eq!(table.by_index(slot.value() << 8 | n).unwrap().id(), peer.id());
            }
        }
        assert_eq!(table.by_key(peer.key()).unwrap().id(), peer.id());
    }
    assert!(table.by_index(0xffff_ff00).is_none());
    assert!(table.by_key(table.identity().public()).is_none());
}
