//! What an administrator does to interfaces of `linkspan-wg` with `ip` and `wg` while traffic runs: nothing needs a
//! restart, little is lost, and every byte is counted.
//!
//! ```text
//!   A's gateway ------ internet ------ B's gateway        a datagram a millisecond each way, all the while
//!   10.9.0.1, fd09::1     |            10.9.0.2, fd09::2
//!                         C's gateway
//!                         10.9.0.3                        in the first test; 10.9.0.100 is at B and at C
//! ```

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use linkspan::tunnel::key::{PresharedKey, PrivateKey, PublicKey};

use super::uapi::{INSIDE_A, INSIDE_B, PORT_A, PORT_B, QUICK, address, pair, reaches};
use crate::harness::capture::{Datagram, Frame};
use crate::harness::host::Host;
use crate::harness::net::Links;
use crate::harness::paced::Paced;
use crate::harness::traffic::{ping, pings_pass, reached};
use crate::harness::wg::WgInterface;
use crate::harness::*;

const PORT_C: u16 = 7003;
const INSIDE_C: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 3));
/// An address that B and C both have.
const MOVING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 100));
/// A first initiation that is lost is followed by another after 5 s.
const REACHED: Duration = seconds(15);
/// Bytes of a datagram of the streams.
const SIZE: usize = 200;
/// Datagrams that what interrupts may cost, and what begins a session from nothing: a timer of 5 s would cost 5000.
const SOME: u64 = 1000;
const MORE: u64 = 3000;
/// Datagrams that may be on their way at any moment.
const UNDER_WAY: u64 = 50;
/// Bytes of a keepalive.
const KEEPALIVE: usize = 32;

/// A datagram a millisecond each way between A and B.
struct Streams {
    there: Paced,
    back: Paced,
    /// How many are known to be lost.
    lost: Cell<u64>,
}

impl Streams {
    fn start(a: &Host, b: &Host) -> Self {
        let there = Paced::start(a, b, INSIDE_B, 1, SIZE);
        let back = Paced::start(b, a, INSIDE_A, 1, SIZE);
        let streams = Self { there, back, lost: Cell::new(0) };
        streams.go_on("the streams begin");
        streams
    }

    /// A hundred more datagrams arrive at both ends.
    fn go_on(&self, what: &str) {
        let received = || (self.there.received(), self.back.received());
        let before = received();
        eventually(seconds(10), what, || {
            let now = received();
            (now.0 > before.0 + 100 && now.1 > before.1 + 100).then_some(())
        });
    }

    /// Does something; the streams go on, and in all no more than `most` datagrams are lost by it.
    fn during(&self, what: &str, most: u64, act: impl FnOnce()) {
        act();
        self.go_on(what);
        let missing = |stream: &Paced| stream.sent().saturating_sub(stream.received());
        let before = self.lost.get() + UNDER_WAY;
        eventually(seconds(5), &format!("{what}: no more than {most} datagrams are lost"), || {
            let lost = missing(&self.there) + missing(&self.back);
            self.lost.set(lost);
            (lost <= before + most).then_some(())
        });
    }

    /// Ends them: how many datagrams were lost in all.
    fn finish(self) -> u64 {
        let [there, back] = [self.there.finish(), self.back.finish()];
        there.sent - there.received + back.sent - back.received
    }
}

/// Bytes that `end` has received from and sent to the peer with this key.
fn carried(end: &WgInterface<'_>, peer: &PublicKey) -> (u64, u64) {
    let (text, key) = (end.show("transfer"), peer.to_string());
    let line = text.lines().find(|line| line.starts_with(&key)).unwrap_or_else(|| panic!("{key}: {text}"));
    let mut numbers = line.split_whitespace().skip(1).map(|word| word.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Payload bytes of all datagrams between two ports.
fn on_the_wire(frames: &[Frame], from: u16, to: u16) -> u64 {
    let datagrams = frames.iter().filter_map(Frame::udp);
    let ours = datagrams.filter(|udp: &Datagram| udp.from.port() == from && udp.to.port() == to);
    ours.map(|udp| udp.payload.len() as u64).sum()
}

/// C's interface, known to A and knowing A.
fn third<'n>(net: &'n Net, a: &WgInterface<'_>) -> WgInterface<'n> {
    let c = net.wg_interface(net.gateway(C));
    c.set_key();
    c.set(&format!("listen-port {PORT_C} peer {} allowed-ips 10.9.0.1/32", a.public()));
    a.set(&format!("peer {} allowed-ips 10.9.0.3/32 endpoint 198.18.3.1:{PORT_C}", c.public()));
    address(net.gateway(C), &c, 3);
    c
}

#[test]
fn what_interrupts_nothing_loses_nothing_and_every_byte_is_counted() {
    let links = Links { uplink_mtu: 65_535, single_datagrams: true, ..Links::default() };
    let Some(net) = Net::new(3, links) else { return };
    let uplink = Capture::start(net.gateway(A), "wan");
    let (a, b) = pair(&net);
    let c = third(&net, &a);
    reaches(&net, REACHED);
    for (site, interface) in [(A, &a), (B, &b), (C, &c)] {
        // A busy machine is no reason for the kernel to drop anything.
        net.gateway(site).ip(&format!("link set {} txqueuelen 10000\n", interface.name));
    }
    let streams = Streams::start(net.gateway(A), net.gateway(B));
    the_endpoint_changes_its_family(&net, &streams, &a, &b);
    streams.during("another mark", 0, || a.set("fwmark 0x77"));
    streams.during("no mark", 0, || a.set("fwmark off"));
    a_network_moves_between_peers(&net, &streams, &a, [&b, &c]);
    the_mtu_goes_up_and_down(&net, &streams, [&a, &b]);
    peers_come_and_go_in_bulk(&streams, &a, [&b, &c]);
    keepalives_begin_at_once(&net, &streams, &a, &c);
    assert_eq!(streams.finish(), 0, "datagrams are lost");
    for (far, port) in [(&b, PORT_B), (&c, PORT_C)] {
        eventually(seconds(5), "both ends and the wire agree to the byte", || {
            let (frames, near) = (uplink.frames(), carried(&a, &far.public()));
            let wire = (on_the_wire(&frames, port, PORT_A), on_the_wire(&frames, PORT_A, port));
            let (received, sent) = carried(far, &a.public());
            (near == wire && near == (sent, received)).then_some(())
        });
    }
}

fn the_endpoint_changes_its_family(net: &Net, streams: &Streams, a: &WgInterface<'_>, b: &WgInterface<'_>) {
    let endpoints = [
        (format!("[2001:db8:2::1]:{PORT_B}"), format!("[2001:db8:1::1]:{PORT_A}")),
        (format!("198.18.2.1:{PORT_B}"), format!("198.18.1.1:{PORT_A}")),
    ];
    for (of_b, of_a) in &endpoints {
        // As in the kernel, a datagram of B that is under way just then moves A back to where it came from.
        streams.during("an endpoint of the other family", 0, || {
            eventually(seconds(30), "both have moved", || {
                a.set(&format!("peer {} endpoint {of_b}", b.public()));
                streams.go_on("the streams go on");
                (b.show("endpoints").ends_with(of_a) && a.show("endpoints").contains(of_b)).then_some(())
            });
        });
        pings_pass(net.gateway(A), INSIDE_B, &QUICK);
    }
}

/// The traffic to an address follows `wg set` from one peer to the other and back, twice.
fn a_network_moves_between_peers(net: &Net, streams: &Streams, a: &WgInterface<'_>, owners: [&WgInterface<'_>; 2]) {
    for (site, interface) in [B, C].into_iter().zip(owners) {
        net.gateway(site).ip(&format!("address add {MOVING}/32 dev {}\n", interface.name));
    }
    let own = ["10.9.0.2/32,fd09::2/128", "10.9.0.3/32"];
    let give = |owner: usize| {
        a.set(&format!("peer {} allowed-ips {},{MOVING}/32", owners[owner].public(), own[owner]));
    };
    give(0);
    // The session is there: for a handshake only a few datagrams would wait.
    pings_pass(net.gateway(A), INSIDE_C, &QUICK);
    let heard = [B, C].map(|site| Capture::start(net.gateway(site), &owners[site - B].name));
    let moving = Paced::start(net.gateway(A), net.gateway(B), MOVING, 1, SIZE);
    // Nobody answers at C: no ICMP is to be on the wire.
    let to = moving.to;
    let _silent = net.gateway(C).udp(&to.to_string());
    // Some of them arrive merged.
    let bytes = |frame: &Frame| frame.udp().filter(|udp| udp.to == to).map(|udp| udp.payload.len());
    let count = |at: usize| heard[at].frames().iter().filter_map(bytes).sum::<usize>() / SIZE;
    for owner in [1, 0, 1, 0] {
        streams.during("a network moves to another peer", 0, || give(owner));
        // What was under way still comes to the other peer; then it hears no more of it.
        eventually(seconds(10), "the traffic follows, all of it", || {
            let (before, other) = (count(owner), count(1 - owner));
            eventually(seconds(5), "the traffic follows", || (count(owner) > before + 100).then_some(()));
            (count(1 - owner) == other).then_some(())
        });
    }
    let outcome = moving.finish();
    eventually(seconds(5), "each came to one of them", || ((count(0) + count(1)) as u64 == outcome.sent).then_some(()));
}

fn the_mtu_goes_up_and_down(net: &Net, streams: &Streams, ends: [&WgInterface<'_>; 2]) {
    for mtu in [1280, 9000, 65_000, 1420] {
        streams.during("another MTU", 0, || {
            for (site, end) in [A, B].into_iter().zip(ends) {
                net.gateway(site).ip(&format!("link set {} mtu {mtu}\n", end.name));
            }
        });
        let size = (mtu - 28).to_string();
        eventually(seconds(5), &format!("a packet of {mtu} bytes passes"), || {
            let (pings, _) = ping(net.gateway(A), INSIDE_B, &["-c", "1", "-W", "1", "-M", "do", "-s", &size]);
            (pings.received == 1).then_some(())
        });
    }
}

fn peers_come_and_go_in_bulk(streams: &Streams, a: &WgInterface<'_>, [b, c]: [&WgInterface<'_>; 2]) {
    let keys: Vec<PublicKey> = (0..40).map(|_| PrivateKey::generate().unwrap().public()).collect();
    let peer = |number: usize, key: &PublicKey| {
        format!(
            "[Peer]\nPublicKey = {key}\nEndpoint = 198.18.2.9:9\nAllowedIPs = 10.8.{number}.0/24, fd08:{number}::/64\n"
        )
    };
    let bulk: String = keys.iter().enumerate().map(|(number, key)| peer(number, key)).collect();
    streams.during("40 peers more", 0, || a.conf("addconf", &bulk));
    assert_eq!(a.show("peers").lines().count(), 42);
    let of = |peer: &WgInterface<'_>, allowed: &str| {
        format!("[Peer]\nPublicKey = {}\nAllowedIPs = {allowed}\n", peer.public())
    };
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT_A}\n{}{}",
        *a.key.reveal(),
        of(b, "10.9.0.2/32, fd09::2/128"),
        of(c, "10.9.0.3/32"),
    );
    streams.during("40 peers less", 0, || a.conf("syncconf", &text));
    assert_eq!(a.show("peers").lines().count(), 2);
}

fn keepalives_begin_at_once(net: &Net, streams: &Streams, a: &WgInterface<'_>, c: &WgInterface<'_>) {
    pings_pass(net.gateway(A), INSIDE_C, &QUICK);
    let heard = Capture::start(net.gateway(C), "wan");
    streams.during("keepalives", 0, || a.set(&format!("peer {} persistent-keepalive 600", c.public())));
    heard.wait("the first keepalive", |frame| frame.udp().filter(|udp| udp.payload.len() == KEEPALIVE));
}

#[test]
fn what_interrupts_is_over_soon() {
    let Some(net) = Net::two_sites() else { return };
    let uplink = Capture::start(net.gateway(A), "wan");
    let (mut a, b) = pair(&net);
    reaches(&net, REACHED);
    let streams = Streams::start(net.gateway(A), net.gateway(B));
    for port in [7010, PORT_B] {
        streams.during("another port of B", SOME, || b.set(&format!("listen-port {port}")));
        streams.during("another port of A", SOME, || a.set(&format!("listen-port {}", port + 10)));
    }
    let psk = PresharedKey::generate().unwrap();
    streams.during("a preshared key at A", SOME, || {
        a.set(&format!("peer {} preshared-key {}", b.public(), a.secret("psk", &psk.reveal()).display()));
    });
    streams.during("and at B", SOME, || {
        b.set(&format!("peer {} preshared-key {}", a.public(), b.secret("psk", &psk.reveal()).display()));
    });
    streams.during("no preshared key", SOME, || {
        a.set(&format!("peer {} preshared-key /dev/null", b.public()));
        b.set(&format!("peer {} preshared-key /dev/null", a.public()));
    });
    streams.finish();
    eventually(seconds(5), "through all that A has counted what it sent to the byte", || {
        let datagrams: Vec<_> = uplink.frames().iter().filter_map(Frame::udp).collect();
        let sent = datagrams.iter().filter(|udp| udp.from.ip() == net.site(A).endpoint4().ip());
        let bytes: u64 = sent.map(|udp| udp.payload.len() as u64).sum();
        (a.transfer().1 == bytes).then_some(())
    });
    let streams = Streams::start(net.gateway(A), net.gateway(B));
    let old = a.public();
    a.key = PrivateKey::generate().unwrap();
    streams.during("another private key of A", MORE, || {
        b.set(&format!("peer {old} remove peer {} allowed-ips 10.9.0.1/32,fd09::1/128", a.public()));
        a.set_key();
    });
    streams.during("B is removed and added again", MORE, || {
        a.set(&format!("peer {} remove", b.public()));
        a.set(&format!("peer {} allowed-ips 10.9.0.2/32,fd09::2/128 endpoint 198.18.2.1:{PORT_B}", b.public()));
    });
    streams.during("another address of A", MORE, || {
        net.gateway(A).ip("address add 198.18.1.99/24 dev wan\naddress del 198.18.1.1/24 dev wan\n\
             address replace 198.18.1.99/24 dev wan\nroute replace default via 198.18.1.254\n");
    });
    let follows = || b.show("endpoints").contains("198.18.1.99:").then_some(());
    eventually(seconds(5), "B follows A", follows);
    streams.finish();
    counts_to_the_byte(&net, &a, &b);
}

/// After all that, from one quiet moment to the next.
fn counts_to_the_byte(net: &Net, a: &WgInterface<'_>, b: &WgInterface<'_>) {
    let uplink = Capture::start(net.gateway(A), "wan");
    let before = (a.transfer(), b.transfer());
    Streams::start(net.gateway(A), net.gateway(B)).finish();
    eventually(seconds(5), "both ends and the wire agree to the byte", || {
        let datagrams: Vec<_> = uplink.frames().iter().filter_map(Frame::udp).collect();
        let bytes = |to_b: bool| -> u64 {
            let one_way = datagrams.iter().filter(|udp| (udp.to.port() == PORT_B) == to_b);
            one_way.map(|udp| udp.payload.len() as u64).sum()
        };
        let more = |now: (u64, u64), before: (u64, u64)| (now.0 - before.0, now.1 - before.1);
        let (of_a, of_b) = (more(a.transfer(), before.0), more(b.transfer(), before.1));
        (of_a == (bytes(false), bytes(true)) && of_b == (of_a.1, of_a.0)).then_some(())
    });
}

#[test]
fn behind_a_nat_with_a_short_memory_a_persistent_keepalive_keeps_it_reachable() {
    let Some(net) = Net::two_sites() else { return };
    net.nat(A, 3);
    let (a, b) = pair(&net);
    reaches(&net, REACHED);
    assert!(b.show("endpoints").contains("198.18.2.254:"), "the NAT's address: {}", b.show("endpoints"));
    // What is tested is the passing of time without traffic.
    let forgotten = || std::thread::sleep(seconds(4));
    forgotten();
    assert_eq!(ping(net.gateway(B), INSIDE_A, &["-c", "1", "-W", "1"]).0.received, 0, "the NAT forgets");
    a.set(&format!("peer {} persistent-keepalive 1", b.public()));
    reached(net.gateway(B), INSIDE_A, seconds(10));
    forgotten();
    reached(net.gateway(B), INSIDE_A, seconds(10));
}

/// A's interface moves into a cell that has nothing else, and back, while B sends to it.
#[test]
fn the_interface_moves_to_another_namespace_and_back_under_traffic() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = pair(&net);
    reaches(&net, REACHED);
    let (cell, gateway) = (Host::new("cell"), net.gateway(A));
    let give = |host: &Host| host.ip(&format!("address add {INSIDE_A}/24 dev {0}\nlink set {0} up\n", a.name));
    cell.ip(&format!("address add {INSIDE_A}/32 dev lo\n"));
    let in_the_cell = Paced::start(net.gateway(B), &cell, INSIDE_A, 1, SIZE);
    let in_the_gateway = Paced::start(net.gateway(B), gateway, INSIDE_A, 1, SIZE);
    let arrives = |stream: &Paced, what: &str| {
        let before = stream.received();
        eventually(seconds(20), what, || (stream.received() > before + 100).then_some(()));
    };
    arrives(&in_the_gateway, "the stream begins");
    gateway.ip(&format!("link set {} netns {}\n", a.name, cell.name()));
    give(&cell);
    arrives(&in_the_cell, "the stream arrives in the cell");
    assert_eq!(a.show("listen-port"), PORT_A.to_string());
    // New sockets, too, are where the interface was made.
    a.set(&format!("listen-port 7015 fwmark 7 peer {} persistent-keepalive 1", b.public()));
    arrives(&in_the_cell, "the stream arrives at another port");
    eventually(seconds(10), "B follows", || b.show("endpoints").contains("198.18.1.1:7015").then_some(()));
    cell.ip(&format!("link set {} netns {}\n", a.name, gateway.name()));
    give(gateway);
    arrives(&in_the_gateway, "the stream arrives in the gateway again");
}
