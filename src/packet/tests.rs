//! Over all of the room: segmenting and coalescing undo each other, and no bytes make anything panic.

use super::coalesce::tests::coalesce;
use super::coalesce::{Coalescer, MAX_MERGED};
use super::fragment::Fragments;
use super::icmp;
use super::mss::{self, Checksum};
use super::segment::tests::segments_of;
use super::segment::{self, SegmentScratch, Segments};
use super::testing::{Random, Recipe, check_checksums, with_spare};
use super::{Cleartext, Header, Mtu, Vnet, ecn, ip, vnet};

/// The figure of the push run, ten times as much with LINKSPAN_LONG=1, and far less under Miri.
fn figure(push: usize) -> usize {
    if cfg!(miri) {
        return push / 1_000;
    }
    if std::env::var_os("LINKSPAN_LONG").is_some() { push * 10 } else { push }
}

/// Runs `round` `rounds` times over two threads, each with its own seed.
fn on_two_threads(rounds: usize, round: impl Fn(&mut Random) + Sync) {
    std::thread::scope(|scope| {
        for seed in [101, 202] {
            let round = &round;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                (0..rounds / 2).for_each(|_| round(&mut random));
            });
        }
    });
}

struct Case {
    recipe: Recipe,
    mtu: Mtu,
    size: usize,
}

fn case(random: &mut Random) -> Case {
    let mut recipe = Recipe::random(random);
    let mtu = Mtu::new([1_280, 1_420, 8_920, 1_281 + random.below(7_000) as u16][random.below(4)]).unwrap();
    let room = mtu.bytes() - recipe.header_len();
    let size = match random.below(8) {
        0 => 1 + random.below(40),
        1..6 => 1 + random.below(700),
        6 => room,
        _ => 1 + random.below(room),
    };
    let many = if random.one_in(20) { MAX_MERGED } else { 6 };
    let limit = (size * many).min(65_535 - recipe.header_len());
    let len = if random.one_in(4) { (limit / size * size).max(1) } else { 1 + random.below(limit) };
    recipe.payload = random.bytes(len);
    Case { recipe, mtu, size }
}

/// The segment at `index`, made from scratch.
fn expected(case: &Case, index: usize, payload: &[u8], is_last: bool) -> Vec<u8> {
    let Recipe { flags, sequence, id, .. } = case.recipe;
    let flags = flags & !(if index > 0 { 0x80 } else { 0 }) & !(if is_last { 0 } else { 0x09 });
    let sequence = sequence.wrapping_add((index * case.size) as u32);
    let id = id.wrapping_add(index as u16);
    Recipe { flags, sequence, id, payload: payload.to_vec(), ..case.recipe.clone() }.packet()
}

#[test]
fn segmenting_then_coalescing_is_the_identity() {
    on_two_threads(figure(100_000), |random| {
        let case = case(random);
        let (vnet, packet) = case.recipe.super_packet(case.size as u16);
        let segments = segments_of(&vnet, &packet, case.mtu, random);
        let count = case.recipe.payload.len().div_ceil(case.size);
        assert_eq!(segments.len(), count);
        for (index, payload) in case.recipe.payload.chunks(case.size).enumerate() {
            check_checksums(&segments[index]);
            assert!(
                segments[index] == expected(&case, index, payload, index + 1 == count),
                "{case:?}",
                case = case.recipe
            );
        }
        let merged = coalesce(&mut Coalescer::new(true, true), &segments);
        assert_eq!(merged.len(), 1);
        let (found, bytes) = &merged[0];
        if count == 1 {
            assert!(*found == Vnet::PLAIN && *bytes == segments[0]);
        } else {
            assert_eq!(*found, vnet);
            assert!(*bytes == packet);
        }
    });
}

/// A packet that was valid once, and a vnet header.
fn malformed(random: &mut Random) -> (Vnet, Vec<u8>) {
    let mut recipe = Recipe::random(random);
    let len = random.below(600);
    recipe.payload = random.bytes(len);
    if random.one_in(3) {
        let len = 8 * (1 + random.below(4));
        recipe.network_options = random.bytes(len);
    }
    if random.one_in(4) {
        recipe.flags |= 2;
        let len = recipe.options.len();
        recipe.options = [vec![2, 4, 0xff, 0xff], recipe.options].concat()[..len.max(4)].to_vec();
    }
    let (mut vnet, mut packet) = recipe.super_packet(random.next() as u16 >> random.below(16));
    for _ in 0..random.below(4) {
        let reach = if random.one_in(2) { packet.len() } else { 70 };
        let at = random.below(reach.min(packet.len()));
        packet[at] = random.next() as u8;
    }
    if random.one_in(3) {
        packet.truncate(random.below(packet.len() + 1));
    }
    if random.one_in(20) {
        let len = random.below(100);
        packet = random.bytes(len);
    }
    if random.one_in(3) {
        vnet = Vnet::parse(&random.bytes(vnet::LEN)).unwrap_or(Vnet::PLAIN);
    }
    if random.one_in(3) {
        vnet.gso = vnet::Gso::None;
    }
    (vnet, packet)
}

fn drain(cleartext: &mut impl Cleartext) -> usize {
    let mut packets = 0;
    while cleartext.next().is_some() {
        packets += 1;
    }
    packets
}

/// Gives `packet` to everything that takes a packet.
fn try_everything(vnet: &Vnet, packet: &[u8], scratch: &mut SegmentScratch, random: &mut Random) {
    let mtu = Mtu::new(1_280 + random.below(9) as u16).unwrap();
    let len = packet.len();
    let parsed = Header::parse(packet);
    assert!(parsed.is_none_or(|h| h.total_len <= len && h.header_len <= h.total_len));
    assert!(parsed.is_none_or(|h| ip::destination(packet) == Some(h.dst) && ip::source(packet) == Some(h.src)));
    let mut buffer = with_spare(packet);
    if let Ok(mut segments) = Segments::new(vnet, &mut buffer, len, mtu, scratch) {
        let (left, mut given) = (segments.left(), 0);
        while segments.prepare(1 + random.below(70)) > 0 {
            given += drain(&mut segments);
        }
        assert_eq!(left, given);
    }
    let _ = segment::single(vnet, &mut with_spare(packet), len, mtu);
    let _ = segment::single(vnet, &mut packet.to_vec(), len, mtu);
    if let Ok(mut fragments) = Fragments::new(&mut with_spare(packet), len, mtu) {
        assert_eq!(fragments.remaining(), drain(&mut fragments));
    }
    for checksum in [Checksum::Complete, Checksum::Partial] {
        mss::clamp(&mut packet.to_vec(), mtu, checksum);
    }
    let mut out = [0; icmp::MAX_LEN];
    for answer in [icmp::too_big(packet, mtu, &mut out), icmp::unreachable(packet, &mut out)].into_iter().flatten() {
        assert_eq!(Header::parse(&out[..answer]).map(|h| h.total_len), Some(answer));
    }
    let _ = ecn::decapsulate(random.next() as u8, &mut packet.to_vec());
}

#[test]
fn malformed_packets_make_nothing_panic() {
    on_two_threads(figure(100_000) / 10, |random| {
        let mut scratch = SegmentScratch::new();
        let mut coalescer = Coalescer::new(true, true);
        let packets: Vec<_> = (0..10).map(|_| malformed(random)).collect();
        for (vnet, packet) in &packets {
            try_everything(vnet, packet, &mut scratch, random);
        }
        let packets: Vec<_> = packets.into_iter().map(|(_, packet)| packet).collect();
        coalesce(&mut coalescer, &packets);
    });
}

#[test]
fn a_range_outside_of_the_arena_is_passed_over() {
    let mut coalescer = Coalescer::new(true, true);
    coalescer.push(&[0; 4], 2..9);
    assert!(coalescer.is_empty());
}
