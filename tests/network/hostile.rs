//! What an authenticated peer may not do: claim foreign sources, crash us with packets that are none.

use std::net::IpAddr;

use crate::harness::file::INTERFACE;
use crate::harness::net::Links;
use crate::harness::packets::{MARKER, Random, noise, udp};
use crate::harness::traffic::{Echo, caller};
use crate::harness::*;

const PACKETS: usize = 10_000;
/// What honest packets carry.
const BEACON: &[u8] = b"still alive here, 1 2 3.";

/// ```text
///   B (10.2.0.0/16, fd00:2::/48) ----- A ----- C (10.2.128.0/24, fd00:2:0:8000::/64: inside B's networks)
/// ```
/// B's gateway sends, through its authenticated tunnel to A, packets with sources that are not B's.
#[test]
fn a_spoofed_inner_source_is_never_delivered() {
    let Some(net) = Net::new(3, Links::default()) else { return };
    // One queue each: what is spoofed and what is honest go one after the other all the way.
    let mut file_a = net.file(A, &[B, C]).with("workers = 1");
    file_a.connections[1].networks = vec!["10.2.128.0/24".into(), "fd00:2:0:8000::/64".into()];
    let a = net.start(A, &file_a);
    let b = net.start(B, &net.file(B, &[A]).with("workers = 1"));
    let c = net.start(C, &net.file(C, &[A]));
    for daemon in [&a, &b, &c] {
        daemon.wait_up();
    }
    let (here, far) = (net.site(A), net.site(B));
    let (on_tun, on_lan) = (Capture::start(&here.gateway, INTERFACE), Capture::start(&here.lan, "lan"));
    let tun = Port::open(&far.gateway, INTERFACE);
    let echo = Echo::start(&here.lan, here.lan4());
    let beacon = caller(&far.lan, &echo);
    let sources =
        ["10.1.0.77", "10.3.0.2", "10.2.128.9", "198.51.100.7", "fd00:1::77", "fd00:2:0:8000::9", "2001:db8:1::1"];
    let spoofed: Vec<Vec<u8>> = sources.iter().map(|source| spoof(source, here)).collect();
    for (n, packet) in spoofed.iter().cycle().take(PACKETS).enumerate() {
        tun.send(packet);
        if n % 50 == 49 {
            // An honest exchange on the same path: nothing is lost for want of buffers.
            beacon.send(b"honest").unwrap();
            beacon.recv(&mut [0; 16]).expect("honest packets pass all the while");
        }
    }
    let counted = |dropped: u64| dropped >= PACKETS as u64;
    let status = a.wait("all of them counted", |status| counted(status.dropped("in_source_not_allowed")));
    assert_eq!(status.dropped("in_source_not_allowed"), PACKETS as u64, "{}", status.drops());
    for frames in [on_tun.stop(), on_lan.stop()] {
        assert!(frames.len() > PACKETS / 50, "the captures heard the honest ones");
        assert_eq!(frames.iter().filter(|frame| frame.contains(MARKER)).count(), 0);
    }
}

fn spoof(source: &str, target: &Site) -> Vec<u8> {
    let source: IpAddr = source.parse().unwrap();
    udp(source, if source.is_ipv4() { target.lan4() } else { target.lan6() }, MARKER)
}

/// The test is the far end: a stock peer in B's gateway that has B's key.
#[test]
fn malformed_inner_packets_are_never_written_and_do_no_harm() {
    let Some(net) = Net::two_sites() else { return };
    let (here, far) = (net.site(A), net.site(B));
    let a = net.start(A, &net.file(A, &[B]));
    let mut peer = WgPeer::connect(&far.gateway, far.endpoint4(), &far.key, (here.endpoint4(), here.public()));
    a.wait_up();
    let on_tun = Capture::start(&here.gateway, INTERFACE);
    let mut random = Random(17);
    for n in 0..100_000 {
        peer.send(&malformed(&mut random, far, here));
        if n % 100 == 99 {
            beacon(&mut peer, far.lan4(), here.lan4());
        }
    }
    let status = a.wait("all of them counted", |status| {
        status.dropped("in_inner_malformed") + status.dropped("in_source_not_allowed") >= 100_000
    });
    assert!(!a.log().contains("panicked"));
    assert!(status.dropped("in_inner_malformed") >= 60_000, "{}", status.drops());
    // The kernel looks for routers and multicast listeners on every interface; that is not from the peer.
    let frames: Vec<_> = on_tun.stop().into_iter().filter(|frame| !is_multicast(frame.packet())).collect();
    let strange = frames.iter().filter(|frame| !frame.packet().ends_with(BEACON)).count();
    assert_eq!((frames.len(), strange), (2000, 0), "only the beacons pass, there and back");
}

/// Whether it is IPv6 to a multicast group.
fn is_multicast(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6) && packet.get(24) == Some(&0xff)
}

/// A ping to the LAN behind the daemon, and its answer.
fn beacon(peer: &mut WgPeer, from: IpAddr, to: IpAddr) {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from, to) else { panic!("IPv4") };
    let builder = etherparse::PacketBuilder::ipv4(source.octets(), destination.octets(), 64).icmpv4_echo_request(1, 1);
    let mut packet = Vec::new();
    builder.write(&mut packet, BEACON).unwrap();
    peer.send(&packet);
    peer.wait("the tunnel is alive", |answer| answer.ends_with(BEACON));
}

/// A packet that no IP stack may take, most of them with a source that would be allowed.
fn malformed(random: &mut Random, from: &Site, to: &Site) -> Vec<u8> {
    let payload = noise(random.next() | 1, random.below(1200));
    let mut v4 = udp(from.lan4(), to.lan4(), &payload);
    let mut v6 = udp(from.lan6(), to.lan6(), &payload);
    let length4 = u16::try_from(v4.len()).unwrap();
    match random.below(10) {
        0 => v4[..1 + random.below(19)].to_vec(),
        1 => v6[..1 + random.below(39)].to_vec(),
        // Shorter than its header says.
        2 => v4[..20 + random.below(v4.len() - 20)].to_vec(),
        3 => v6[..40 + random.below(v6.len() - 40)].to_vec(),
        4 => {
            v4[2..4].copy_from_slice(&(length4 + 1 + u16::try_from(random.below(9000)).unwrap()).to_be_bytes());
            v4
        }
        5 => {
            v6[4..6].copy_from_slice(&u16::MAX.to_be_bytes());
            v6
        }
        // A header shorter than 20 bytes, or longer than the packet.
        6 => {
            v4[0] = 0x40 | u8::try_from(random.below(5)).unwrap();
            v4
        }
        7 => {
            v4[2..4].copy_from_slice(&u16::try_from(random.below(20)).unwrap().to_be_bytes());
            v4
        }
        8 => {
            let version = [0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15][random.below(14)];
            v4[0] = version << 4 | 5;
            v4
        }
        _ => noise(random.next() | 1, 1 + random.below(1400)),
    }
}
