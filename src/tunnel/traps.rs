//! What boringtun leaves to us, one test or more for each of the nineteen traps that this room deals with.
//! Those that need hours run under the feature `sim`, in virtual time.

mod handshakes;
mod net;
#[cfg(feature = "sim")]
mod sim;

use std::time::Duration;

use net::*;

use crate::packet::cleartext::{self, SPARE};
use crate::packet::fragment::Fragments;
use crate::packet::reason::DropCounters;
use crate::packet::vnet::Vnet;
use crate::packet::{Reason, segment};
use crate::tunnel::gate::{Gate, Verdict};
use crate::tunnel::key::PresharedKey;
use crate::tunnel::lane::SMALL;
use crate::tunnel::wire::{self, Kind};
use crate::tunnel::*;

/// Two ends with a session, a second after the start; the first end made it.
fn linked() -> Net {
    linked_as([Plan::default(), Plan { wanted: false, ..Plan::default() }])
}

fn linked_as(plans: [Plan; 2]) -> Net {
    let mut net = Net::new(plans);
    net.run(SECOND);
    assert!(net.both_up());
    net
}

fn seal(net: &Net, which: usize, worker: usize, count: u32, out: &mut SealBuffer) -> Result<(), SealRefused> {
    let mut packets = Packets::of((0..count).map(marked));
    net.ends[which].peer.lane.seal_batch(worker, net.now(), &mut packets, out).map(drop)
}

#[test]
fn trap_6_nothing_is_sealed_when_the_timers_stood_still_for_5_s() {
    let net = linked();
    let lane = &net.ends[0].peer.lane;
    let mut out = SealBuffer::new(64, MTU);
    let later = |ms| net.now() + Duration::from_millis(ms);
    assert!(lane.seal_batch(0, later(4900), &mut Packets::of([marked(1)]), &mut out).is_ok());
    let late = lane.seal_batch(0, later(5300), &mut Packets::of([marked(1)]), &mut out);
    assert!(matches!(late, Err(SealRefused::Stale)));
    assert!(lane.view(later(4900)).session);
    assert!(!lane.view(later(5300)).session);
}

#[test]
fn trap_6_a_session_is_renewed_long_before_2_to_the_60_messages_and_never_used_beyond() {
    let mut net = linked();
    net.run(SECOND * 10);
    let before = net.initiations();
    net.ends[0].peer.lane.pretend_sealed(1 << 48);
    net.run_for(TICK * 2);
    assert_eq!(net.initiations(), before + 1);
    net.run_for(SECOND * 10);
    assert_eq!(net.initiations(), before + 1);
    net.ends[0].peer.lane.pretend_sealed(1 << 60);
    assert_eq!(seal(&net, 0, 0, 1, &mut SealBuffer::new(64, MTU)), Err(SealRefused::Exhausted));
}

#[test]
fn trap_7_a_worker_may_not_run_256_datagrams_ahead_of_one_that_has_not_sent_yet() {
    let net = linked();
    let lane = &net.ends[0].peer.lane;
    let (mut slow, mut fast) = (SealBuffer::new(64, MTU), SealBuffer::new(1024, MTU));
    let held = lane.seal_batch(0, net.now(), &mut Packets::of([marked(0)]), &mut slow).unwrap();
    let ahead = (0..20).find_map(|_| seal(&net, 0, 1, 64, &mut fast).err());
    assert_eq!(ahead, Some(SealRefused::Ahead));
    assert!(fast.len() >= 128 && fast.len() < 256, "{}", fast.len());
    drop(held);
    assert_eq!(seal(&net, 0, 1, 64, &mut fast), Ok(()));
    // What the slow worker sends at last is still within the far end's window.
    let (mut opened, drops) = (OpenBuffer::new(1024, 1 << 20), DropCounters::default());
    let all = fast.datagrams().chain(slow.datagrams());
    net.ends[1].peer.lane.open_batch(net.now(), all, &at("192.0.2.1:1000"), &mut opened, &drops);
    assert_eq!(opened.packets().len(), fast.len() + 1);
}

#[test]
fn trap_8_every_size_is_sealed_to_its_own_length_and_32_or_left_out() {
    let net = linked();
    for len in 0..=MTU.bytes() + 40 {
        let mut out = SealBuffer::new(1, MTU);
        let mut packets = Packets::of([vec![0x45; len]]);
        let flight = net.ends[0].peer.lane.seal_batch(0, net.now(), &mut packets, &mut out).unwrap();
        let fits = len <= MTU.bytes();
        assert_eq!((flight.sealed(), flight.oversized()), (usize::from(fits), usize::from(!fits)));
        assert_eq!(out.lengths(), if fits { vec![len + Lane::OVERHEAD] } else { vec![] });
        assert_eq!(out.bytes().len(), out.lengths().iter().sum::<usize>());
    }
}

/// A packet of each size as the outbound worker hands it over: single, or in fragments.
#[test]
fn trap_9_what_is_sealed_has_a_multiple_of_16_bytes_or_just_fills_the_mtu_and_comes_out_as_it_was() {
    let net = linked();
    let largest = MTU.bytes() + 700;
    for len in 20..=largest {
        let packet = inner::tests::packet(ip("10.0.0.1"), ip("10.0.0.2"), len);
        let mut buffer = [&packet[..], &[0xaa; SPARE]].concat();
        let mut out = SealBuffer::new(4, MTU);
        let lane = &net.ends[0].peer.lane;
        let flight = match segment::single(&Vnet::PLAIN, &mut buffer, len, MTU) {
            Ok(single) => {
                let mut one = cleartext::Packets::new([&buffer[..single.wire_len]]);
                lane.seal_batch(0, net.now(), &mut one, &mut out).unwrap()
            }
            Err(_) => {
                let mut fragments = Fragments::new(&mut buffer, len, MTU).unwrap();
                lane.seal_batch(0, net.now(), &mut fragments, &mut out).unwrap()
            }
        };
        assert_eq!(flight.oversized(), 0);
        drop(flight);
        assert_eq!(out.len(), if len <= MTU.bytes() { 1 } else { 2 });
        let is_padded = |length: &usize| length.is_multiple_of(16) || *length == MTU.bytes() + Lane::OVERHEAD;
        assert!(out.lengths().iter().all(is_padded), "{len}: {:?}", out.lengths());
        if len <= MTU.bytes() {
            let (mut opened, drops) = (OpenBuffer::new(4, 1 << 12), DropCounters::default());
            net.ends[1].peer.lane.open_batch(net.now(), out.datagrams(), &at("192.0.2.1:1000"), &mut opened, &drops);
            assert!(opened.iter().next().unwrap().starts_with(&packet), "{len}");
        }
    }
}

#[test]
fn trap_8_no_datagram_of_any_size_or_type_makes_it_panic() {
    let net = linked();
    let lane = &net.ends[0].peer.lane;
    let (mut out, drops) = (OpenBuffer::new(64, 1 << 16), DropCounters::default());
    let index = lane.slots()[0].value() << 8 | 1;
    for len in (0..400).chain([1452, 1453, 9000, 65_506, 65_507]) {
        for kind in 0..6_u8 {
            let mut datagram = vec![0x5a; len];
            let head = [[kind, 0, 0, 0], index.to_le_bytes(), [0xff; 4], [0xff; 4]].concat();
            datagram.iter_mut().zip(head).for_each(|(byte, value)| *byte = value);
            assert!(lane.handshake(net.now(), &datagram, &at("192.0.2.9:9"), &mut [0; SMALL]).is_err());
            let one = std::iter::once(datagram.as_slice());
            assert_eq!(lane.open_batch(net.now(), one, &at("192.0.2.9:9"), &mut out, &drops), None);
        }
    }
    assert!(out.packets().is_empty() && out.arena().len() > 1 << 16);
    assert!(drops.count(Reason::InForged) > 0 && drops.count(Reason::InMalformed) > 0);
}

#[test]
fn trap_8_a_full_buffer_leaves_the_rest_where_it_is() {
    let net = linked();
    let mut sealed = SealBuffer::new(10, MTU);
    let mut packets = Packets::of((0..15).map(marked));
    drop(net.ends[0].peer.lane.seal_batch(0, net.now(), &mut packets, &mut sealed));
    assert_eq!((sealed.len(), sealed.room(), packets.0.len()), (10, 0, 5));
    let (mut opened, drops) = (OpenBuffer::new(4, 1), DropCounters::default());
    let mut datagrams = sealed.datagrams();
    let mut count = 0;
    while count < 10 {
        net.ends[1].peer.lane.open_batch(net.now(), datagrams.by_ref(), &at("192.0.2.1:1000"), &mut opened, &drops);
        for packet in opened.iter() {
            assert_eq!(packet, marked(count));
            count += 1;
        }
        opened.clear();
    }
}

#[test]
fn trap_8_a_datagram_is_not_opened_unless_the_largest_one_would_fit() {
    let (net, mut sealed) = (linked(), SealBuffer::new(64, MTU));
    assert_eq!(seal(&net, 0, 0, 64, &mut sealed), Ok(()));
    let (mut opened, drops) = (OpenBuffer::new(64, 500), DropCounters::default());
    let lane = &net.ends[1].peer.lane;
    lane.open_batch(net.now(), sealed.datagrams(), &at("192.0.2.1:1000"), &mut opened, &drops);
    // 96 bytes of each of the first six.
    assert!(opened.is_full());
    assert_eq!(opened.packets(), (0..6).map(|i| 96 * i..96 * i + 64).collect::<Vec<_>>());
}

#[test]
fn of_100_000_malformed_inner_packets_from_an_authenticated_peer_none_is_kept() {
    let net = linked();
    let (mut opened, drops) = (OpenBuffer::new(64, 1 << 18), DropCounters::default());
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random.to_be_bytes()
    };
    for _ in 0..100_000 / 50 {
        let malformed = |i: usize| {
            // Longer than it is, a header too short, shorter than its header, another version, IPv6 too long.
            let beginnings = [[0x45, 0, 0xff, 0xff], [0x43, 0, 0, 20], [0x45, 0, 0, 19], [0x50, 0, 0, 20], [0x60; 4]];
            let mut packet = [beginnings[i % 5].to_vec(), (0..i * 3).flat_map(|_| next()).collect()].concat();
            packet.iter_mut().skip(4).take(2).for_each(|byte| *byte |= 0x80);
            packet.truncate(packet.len() - i % 4);
            packet
        };
        let mut sealed = SealBuffer::new(64, MTU);
        let mut packets = Packets::of((0..50).map(malformed));
        drop(net.ends[0].peer.lane.seal_batch(0, net.now(), &mut packets, &mut sealed));
        net.ends[1].peer.lane.open_batch(net.now(), sealed.datagrams(), &at("192.0.2.1:1"), &mut opened, &drops);
    }
    assert!(opened.packets().is_empty());
    assert!(drops.count(Reason::InInnerMalformed) == 100_000);
}

#[test]
fn what_is_not_ip_inside_is_counted_but_proves_that_the_peer_is_there() {
    let mut net = linked();
    let mut lying = marked(1);
    lying[3] = 200;
    let mut no_header = marked(1);
    no_header[3] = 3;
    for packet in [vec![0; 16], vec![0x45; 16], vec![0x60; 32], lying, no_header] {
        net.ends[1].here = "192.0.2.2:2000".parse().unwrap();
        assert!(net.try_data(0, [packet]));
    }
    net.run_for(SECOND);
    assert_eq!(net.dropped(1, Reason::InInnerMalformed), 5);
    assert!(net.ends[1].inbox.is_empty());
}

#[test]
fn trap_10_a_new_preshared_key_takes_over_without_a_gap() {
    let mut net = linked();
    net.latency = TICK * 3 / 2;
    let psk = || PresharedKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").ok();
    let now = net.now();
    net.ends[1].peer.set_psk(psk(), now);
    net.data(0, 1);
    net.data(1, 2);
    net.run_for(SECOND / 2);
    net.ends[0].peer.set_psk(psk(), now);
    for number in 3..60 {
        net.data(0, number);
        net.data(1, number);
        net.run_for(TICK);
    }
    net.run_for(SECOND / 2);
    let numbers = |end: &End| end.inbox.iter().map(|(_, packet)| packet[23]).collect::<Vec<_>>();
    assert_eq!(numbers(&net.ends[1]), [1].into_iter().chain(3..60).collect::<Vec<_>>());
    assert_eq!(numbers(&net.ends[0]), (2..60).collect::<Vec<_>>());
    for end in &net.ends {
        let view = end.peer.lane.view(net.now());
        assert!(!view.replacing && view.last_handshake.unwrap() > SECOND);
    }
}

#[test]
fn trap_10_a_peer_with_another_preshared_key_gets_no_session() {
    let mut net = Net::new([Plan::default(), Plan::default()]);
    net.ends[1].peer.set_psk(Some(PresharedKey::generate().unwrap()), net.now());
    net.run(SECOND * 30);
    assert!(!net.session(0) && !net.session(1));
}

#[test]
fn trap_11_a_packet_without_a_session_is_neither_taken_nor_delivered_later() {
    let mut net = Net::new([Plan::default(), Plan::default()]);
    net.black = true;
    let mut packets = Packets::of([marked(7)]);
    let mut out = SealBuffer::new(64, MTU);
    let refused = net.ends[0].peer.lane.seal_batch(0, net.now(), &mut packets, &mut out).map(drop);
    assert_eq!(refused, Err(SealRefused::NoSession));
    assert_eq!((out.len(), packets.0.len()), (0, 1));
    assert_eq!(net.ends[0].peer.lane.keepalive(net.now(), &mut [0; SMALL]), None);
    net.black = false;
    net.run(SECOND * 3);
    assert!(net.both_up());
    assert!(net.ends[1].inbox.is_empty());
}

#[test]
fn trap_18_byte_5_of_what_comes_to_us_is_the_worker_of_our_slot() {
    let mut net = linked();
    net.data(1, 1);
    let bytes = &net.tape.last().unwrap().bytes;
    let [first, _] = net.ends[0].peer.lane.slots();
    assert_eq!(wire::receiver_index(bytes).unwrap().slot(), first);
    assert_eq!((bytes[5], first.worker()), (3, 3));
}

#[test]
fn secrets_are_in_no_debug_output() {
    let net = linked();
    let peer = format!("{:?} {:?} {:?}", net.ends[0].peer, net.ends[0].identity, net.ends[0].peer.lane);
    assert!(!peer.contains("psk") && !peer.contains("private"));
}
