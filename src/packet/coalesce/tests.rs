use super::*;
use crate::packet::Mtu;
use crate::packet::segment::tests::segments_of;
use crate::packet::testing::{Random, Recipe};
use crate::packet::vnet::Gso;

/// Pushes `packets` and gives what came out: vnet header and bytes of each write.
pub(in crate::packet) fn coalesce(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<(Vnet, Vec<u8>)> {
    let mut arena = vec![];
    for packet in packets {
        let start = arena.len();
        arena.extend(packet);
        arena.extend(vec![0; packet.len() % 5]); // padding
        let end = arena.len();
        coalescer.push(&arena, start..end);
    }
    assert_eq!(coalescer.len(), packets.len());
    let mut all = vec![];
    coalescer.flush(&mut arena, |vnet, arena, pieces| {
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| arena[piece.clone()].to_vec()).collect();
        all.push((Vnet::parse(vnet).unwrap(), bytes));
        Written::Whole
    });
    assert!(coalescer.is_empty());
    all
}

/// The same with a kernel that refuses super-packets, and `singles` of the others; whether merging has ended.
fn coalesce_refused(coalescer: &mut Coalescer, packets: &[Vec<u8>], singles: Written) -> (Vec<Vec<u8>>, bool) {
    let mut arena = vec![];
    for packet in packets {
        let start = arena.len();
        arena.extend(packet);
        arena.extend([0; 16]);
        coalescer.push(&arena, start..start + packet.len());
    }
    let mut all = vec![];
    let ended = coalescer.flush(&mut arena, |vnet, arena, pieces| {
        if Vnet::parse(vnet).unwrap() != Vnet::PLAIN {
            return Written::NotMerged;
        }
        all.push(pieces.iter().flat_map(|piece| arena[piece.clone()].to_vec()).collect());
        singles
    });
    (all, ended)
}

/// Three packets that are merged, the last of them with PSH.
fn run_of(recipe: &Recipe) -> Vec<Vec<u8>> {
    let packet = |i: u32| {
        let sequence = recipe.sequence.wrapping_add(i * recipe.payload.len() as u32);
        let flags = recipe.flags | if i == 2 { 0x08 } else { 0 };
        Recipe { id: i as u16, sequence, flags, ..recipe.clone() }.packet()
    };
    (0..3).map(packet).collect()
}

#[test]
fn a_super_packet_that_is_refused_comes_again_as_the_packets_it_was_made_of() {
    let v6 = |recipe: Recipe| Recipe { v4: false, ..recipe };
    for recipe in [tcp(), udp(), v6(tcp()), v6(udp())] {
        let mut coalescer = Coalescer::new(true, true);
        let packets = run_of(&recipe);
        assert_eq!(coalesce_refused(&mut coalescer, &packets, Written::Whole), (packets.clone(), true));
        assert_eq!(coalesce(&mut coalescer, &packets).len(), 3, "it merges this protocol no more");
        let other = run_of(&if recipe.is_tcp { udp() } else { tcp() });
        assert_eq!(coalesce(&mut coalescer, &other).len(), 1, "the other one as before");
    }
}

#[test]
fn merging_goes_on_if_its_packets_are_refused_alone_as_well() {
    let mut coalescer = Coalescer::new(true, true);
    let packets = run_of(&tcp());
    assert_eq!(coalesce_refused(&mut coalescer, &packets, Written::Not), (packets.clone(), false));
    assert_eq!(coalesce(&mut coalescer, &packets).len(), 1);
}

fn merged(recipes: &[Recipe]) -> Vec<(Vnet, Vec<u8>)> {
    let packets: Vec<_> = recipes.iter().map(Recipe::packet).collect();
    coalesce(&mut Coalescer::new(true, true), &packets)
}

/// How many packets came out of a pair of which the second is changed by `change`.
fn pair(first: &Recipe, change: impl Fn(&mut Recipe)) -> usize {
    let mut second = first.clone();
    second.id = first.id.wrapping_add(1);
    second.sequence = first.sequence.wrapping_add(first.payload.len() as u32);
    change(&mut second);
    merged(&[first.clone(), second]).len()
}

fn tcp() -> Recipe {
    Recipe { payload: vec![1; 100], options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], ..Recipe::tcp() }
}

fn udp() -> Recipe {
    Recipe { payload: vec![1; 100], ..Recipe::udp() }
}

#[test]
fn tcp_packets_that_differ_in_what_counts_stay_apart() {
    for v4 in [true, false] {
        let first = Recipe { v4, ..tcp() };
        assert_eq!(pair(&first, |_| ()), 1);
        assert_eq!(pair(&first, |r| r.payload.truncate(99)), 1, "a shorter last one");
        assert_eq!(pair(&first, |r| r.flags |= 0x08), 1, "PSH on the last one");
        assert_eq!(pair(&first, |r| r.payload.push(1)), 2, "a longer one");
        assert_eq!(pair(&first, |r| r.payload.clear()), 2, "a pure ACK");
        assert_eq!(pair(&first, |r| r.sequence = r.sequence.wrapping_add(1)), 2, "a gap");
        assert_eq!(pair(&first, |r| r.sequence = first.sequence), 2, "a repetition");
        assert_eq!(pair(&first, |r| r.acknowledgment += 1), 2, "another ack");
        assert_eq!(pair(&first, |r| r.window += 1), 2, "another window");
        assert_eq!(pair(&first, |r| r.options[7] += 1), 2, "other options");
        assert_eq!(pair(&first, |r| r.options.truncate(4)), 2, "fewer options");
        assert_eq!(pair(&first, |r| r.traffic_class ^= 4), 2, "another TOS");
        assert_eq!(pair(&first, |r| r.traffic_class ^= 3), 2, "another ECN");
        assert_eq!(pair(&first, |r| r.hops -= 1), 2, "another TTL");
        assert_eq!(pair(&first, |r| r.ports[0] += 1), 2, "another flow");
        assert_eq!(pair(&first, |r| r.is_tcp = false), 2, "another protocol");
        for flag in [0x01, 0x02, 0x04, 0x20, 0x40, 0x80] {
            assert_eq!(pair(&first, |r| r.flags |= flag), 2, "flag {flag:#x}");
        }
        assert_eq!(pair(&first, |r| r.flags = 0), 2, "no ACK");
        assert_eq!(pair(&first, |r| r.network_options = vec![if v4 { 1 } else { 0 }; 8]), 2, "IP options");
    }
    assert_eq!(pair(&Recipe { v4: false, ..tcp() }, |r| r.flow_label += 1), 2, "another flow label");
    assert_eq!(pair(&tcp(), |r| r.dont_fragment = false), 2, "another DF");
}

#[test]
fn a_packet_with_the_reserved_bit_of_ipv4_stays_as_it_is() {
    let mut packets: Vec<_> = (0..2).map(|id| Recipe { id, ..udp() }.packet()).collect();
    for packet in &mut packets {
        packet[6] |= 0x80;
        packet[10..12].fill(0);
        let sum = !crate::packet::testing::naive(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    assert_eq!(coalesce(&mut Coalescer::new(true, true), &packets).len(), 2);
}

#[test]
fn identifications_count_up_or_with_df_stand_still() {
    let (atomic, plain) = (tcp(), Recipe { dont_fragment: false, ..tcp() });
    assert_eq!(pair(&atomic, |r| r.id = atomic.id), 1);
    assert_eq!(pair(&plain, |r| r.id = plain.id), 2);
    for first in [&atomic, &plain] {
        assert_eq!(pair(first, |r| r.id = first.id.wrapping_add(2)), 2);
    }
    let third = |id| {
        let at = |i: u32, id| Recipe { id, sequence: atomic.sequence.wrapping_add(i * 100), ..atomic.clone() };
        merged(&[at(0, 5), at(1, 5), at(2, id)]).len()
    };
    assert_eq!((third(5), third(6)), (1, 2));
}

#[test]
fn udp_packets_of_equal_size_are_merged() {
    for v4 in [true, false] {
        let first = Recipe { v4, ..udp() };
        assert_eq!(pair(&first, |_| ()), 1);
        assert_eq!(pair(&first, |r| r.payload.truncate(1)), 1, "a shorter last one");
        assert_eq!(pair(&first, |r| r.payload.push(1)), 2, "a longer one");
        assert_eq!(pair(&first, |r| r.payload.clear()), 2, "an empty one");
        assert_eq!(pair(&first, |r| r.traffic_class ^= 1), 2, "another ECN");
        let short = Recipe { payload: vec![1; 50], ..first.clone() };
        let next = |r: &Recipe, id: u16| Recipe { id, ..r.clone() };
        let id = first.id;
        let out = merged(&[first.clone(), next(&short, id.wrapping_add(1)), next(&short, id.wrapping_add(2))]);
        assert_eq!(out.len(), 2, "nothing follows a shorter one");
    }
}

#[test]
fn what_the_kernel_does_not_take_is_not_merged() {
    let packets: Vec<_> = (0..3).map(|i| Recipe { id: i, ..udp() }.packet()).collect();
    for (out, offloads) in [(3, (true, false)), (1, (false, true))] {
        let mut coalescer = Coalescer::new(offloads.0, offloads.1);
        assert_eq!(coalesce(&mut coalescer, &packets).len(), out);
    }
}

#[test]
fn a_wrong_checksum_is_never_repaired() {
    for recipe in [tcp(), udp(), Recipe { v4: false, ..tcp() }, Recipe { v4: false, ..udp() }] {
        for at in 0..3 {
            let packet = |i: usize| {
                let step = (i * recipe.payload.len()) as u32;
                let sequence = recipe.sequence.wrapping_add(step);
                Recipe { id: i as u16, sequence, ..recipe.clone() }.packet()
            };
            let mut packets: Vec<_> = (0..3).map(packet).collect();
            let last = packets[at].len() - 1;
            packets[at][last] ^= 1;
            let out = coalesce(&mut Coalescer::new(true, true), &packets);
            assert!(out.iter().any(|(vnet, bytes)| *vnet == Vnet::PLAIN && *bytes == packets[at]));
        }
    }
    let mut packets = vec![udp().packet(), Recipe { id: udp().id.wrapping_add(1), ..udp() }.packet()];
    packets[1][10] ^= 1; // the IPv4 header's
    assert_eq!(coalesce(&mut Coalescer::new(true, true), &packets).len(), 2);
    packets[1] = Recipe { id: udp().id.wrapping_add(1), ..udp() }.packet();
    packets[1][26..28].fill(0); // none
    assert_eq!(coalesce(&mut Coalescer::new(true, true), &packets).len(), 2);
}

#[test]
fn a_fragment_closes_the_flows_between_its_addresses() {
    let next = |i: u16| Recipe { id: i, dont_fragment: false, ..udp() }.packet();
    let mut fragment = next(1);
    fragment[6] = 0x20;
    let sum = !crate::packet::testing::naive(&[&fragment[..10], &fragment[12..20]].concat());
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    let out = coalesce(&mut Coalescer::new(true, true), &[next(0), fragment.clone(), next(1)]);
    let bytes: Vec<_> = out.into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(bytes, [next(0), fragment, next(1)]);
}

#[test]
fn a_group_holds_64_packets_and_65_535_bytes_at_the_most() {
    let stream = |size: usize, count: usize| -> Vec<Recipe> {
        let at =
            |i: usize| Recipe { id: i as u16, sequence: (i * size) as u32, payload: vec![3; size], ..Recipe::tcp() };
        (0..count).map(at).collect()
    };
    let sizes = |recipes: &[Recipe]| merged(recipes).iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&stream(10, 130)), [680, 680, 60]);
    assert_eq!(sizes(&stream(1_400, 50)), [40 + 46 * 1_400, 40 + 4 * 1_400]);
    assert_eq!(sizes(&stream(13_099, 6)), [65_535, 13_139]);
}

#[test]
fn several_flows_are_merged_side_by_side() {
    let packets: Vec<_> = (0..30)
        .flat_map(|i| (0..4).map(move |flow| (i, flow)))
        .map(|(i, flow)| {
            let sequence = i * 100;
            Recipe { ports: [flow, 443], id: i as u16, sequence, ..tcp() }.packet()
        })
        .collect();
    let out = coalesce(&mut Coalescer::new(true, true), &packets);
    assert_eq!(out.len(), 4);
    assert!(out.iter().all(|(vnet, bytes)| vnet.gso == Gso::Tcp4 && bytes.len() == 52 + 3_000));
}

/// A random sequence of packets of a few flows, most of which continue one.
fn traffic(random: &mut Random) -> Vec<Vec<u8>> {
    let mut flows: Vec<Recipe> = (0..1 + random.below(20))
        .map(|_| Recipe { flags: 0x10, options: vec![1; 4], ..Recipe::random(random) })
        .collect();
    let size = 1 + random.below(300);
    let mut packets = vec![];
    for _ in 0..random.below(120) {
        let which = random.below(flows.len());
        let flow = &mut flows[which];
        let len = if random.one_in(8) { random.below(2 * size) } else { size };
        flow.payload = random.bytes(len);
        match random.below(40) {
            0 => flow.flags ^= 1 << random.below(8),
            1 => flow.flags = 0x10,
            2 => flow.id = flow.id.wrapping_add(5),
            3 => flow.acknowledgment += 1,
            4 => flow.hops ^= 1,
            5 => flow.sequence = flow.sequence.wrapping_sub(size as u32),
            6 => flow.traffic_class ^= 1,
            _ => (),
        }
        let mut packet = flow.packet();
        if random.one_in(30) {
            let at = random.below(packet.len() - 20) + 20;
            packet[at] ^= 1 << random.below(8);
        }
        packets.push(packet);
        flow.sequence = flow.sequence.wrapping_add(len as u32);
        flow.id = flow.id.wrapping_add(u16::from(!(flow.dont_fragment && flow.ports[0].is_multiple_of(2))));
    }
    packets
}

/// A packet without what segmenting may change: the identification of a packet that is not to be fragmented.
fn essence(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

#[test]
fn whatever_comes_out_segmented_is_what_went_in_and_in_its_flows_order() {
    let mut random = Random::new(11);
    let mut coalescer = Coalescer::new(true, true);
    let (mut came, mut went) = (0, 0);
    for _ in 0..2_000 {
        let packets = traffic(&mut random);
        let out = coalesce(&mut coalescer, &packets);
        came += packets.len();
        went += out.len();
        let again = out.iter().flat_map(|(vnet, bytes)| match vnet.gso {
            Gso::None => vec![bytes.clone()],
            Gso::Tcp4 | Gso::Tcp6 | Gso::Udp => segments_of(vnet, bytes, Mtu::DEFAULT, &mut random),
        });
        let key = |packet: &Vec<u8>| {
            let header = Header::parse(packet).unwrap();
            (header.src, header.dst, packet[header.header_len..].first_chunk::<4>().copied())
        };
        let mut expected: Vec<_> = packets.into_iter().map(essence).collect();
        let mut found: Vec<_> = again.map(essence).collect();
        expected.sort_by_key(key);
        found.sort_by_key(key);
        assert_eq!(expected.len(), found.len());
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected, found);
        }
    }
    assert!(went * 2 < came, "{came} packets became {went}");
}
