use super::*;
use crate::packet::fragment::Fragments;
use crate::packet::testing::{Random, Recipe, check_checksums, with_spare};

/// The segments of a super-packet, padding cut off and checked.
pub(in crate::packet) fn segments_of(vnet: &Vnet, packet: &[u8], mtu: Mtu, random: &mut Random) -> Vec<Vec<u8>> {
    let mut buffer = with_spare(packet);
    let mut scratch = SegmentScratch::new();
    let mut segments = Segments::new(vnet, &mut buffer, packet.len(), mtu, &mut scratch).unwrap();
    let (longest, mut all) = (segments.wire_len(), vec![]);
    loop {
        let max = 1 + random.below(MAX_SEGMENTS + 6);
        let ready = segments.prepare(max);
        assert!(ready <= max.min(MAX_SEGMENTS) && ready <= segments.left());
        for _ in 0..ready {
            let is_last = segments.left() == 1;
            let segment = segments.next().unwrap();
            assert!(segment.len() == longest || is_last && segment.len() <= longest);
            assert!(segment.len().is_multiple_of(16) || segment.len() == mtu.bytes());
            let total = Header::parse(segment).unwrap().total_len;
            assert!(segment[total..].iter().all(|b| *b == 0), "padding is zero");
            all.push(segment[..total].to_vec());
        }
        assert!(segments.next().is_none());
        if ready == 0 {
            return all;
        }
    }
}

fn gso(recipe: &Recipe, size: u16) -> Vec<Vec<u8>> {
    let (vnet, packet) = recipe.super_packet(size);
    segments_of(&vnet, &packet, Mtu::DEFAULT, &mut Random::new(3))
}

#[test]
fn flags_identification_and_sequence_follow_each_segment() {
    let recipe = Recipe { flags: 0xd9, payload: vec![5; 2_100], ..Recipe::tcp() };
    let segments = gso(&recipe, 1_000);
    assert_eq!(segments.iter().map(|s| s[33]).collect::<Vec<_>>(), [0xd0, 0x50, 0x59]);
    assert_eq!(segments.iter().map(|s| s.len() - 40).collect::<Vec<_>>(), [1_000, 1_000, 100]);
    let number = |s: &Vec<u8>, at: usize| u32::from_be_bytes(s[at..at + 4].try_into().unwrap());
    let sequences: Vec<_> = segments.iter().map(|s| number(s, 24)).collect();
    assert_eq!(sequences, [0xffff_ff00, 0xffff_ff00_u32.wrapping_add(1_000), 0xffff_ff00_u32.wrapping_add(2_000)]);
    let ids: Vec<_> = segments.iter().map(|s| (number(s, 4) >> 16) as u16).collect();
    assert_eq!(ids, [0xfffe, 0xffff, 0]);
    segments.iter().for_each(|s| check_checksums(s));
}

#[test]
fn headers_longer_than_the_segments_do_not_hurt_the_payload() {
    for size in 1..20 {
        let payload: Vec<u8> = (0..200).collect();
        let recipe = Recipe { payload: payload.clone(), options: vec![1; 40], ..Recipe::tcp() };
        let segments = gso(&recipe, size);
        let carried: Vec<u8> = segments.iter().flat_map(|s| s[80..].to_vec()).collect();
        assert_eq!(carried, payload);
        segments.iter().for_each(|s| check_checksums(s));
    }
}

#[test]
fn ip_options_and_extension_headers_go_on_every_segment() {
    for v4 in [true, false] {
        for is_tcp in [true, false] {
            let network_options = if v4 { vec![7, 7, 4, 1, 2, 3, 4, 1] } else { vec![0; 24] };
            let recipe = Recipe { v4, is_tcp, network_options, payload: vec![3; 999], ..Recipe::tcp() };
            let segments = gso(&recipe, 300);
            assert_eq!(segments.len(), 4);
            segments.iter().for_each(|s| check_checksums(s));
        }
    }
}

/// The MTU fell after the kernel cut, and the sender lets its packets be fragmented.
#[test]
fn segments_of_udp_that_are_too_big_go_in_fragments_unless_df_forbids_it() {
    let mut random = Random::new(11);
    let recipe = Recipe { dont_fragment: false, payload: random.bytes(30_000), ..Recipe::udp() };
    let (vnet, packet) = recipe.super_packet(4_000);
    let mut scratch = SegmentScratch::new();
    let mut buffer = with_spare(&packet);
    let refused = Segments::new(&vnet, &mut buffer, packet.len(), Mtu::DEFAULT, &mut scratch).err();
    assert_eq!(refused, Some(Refused::TooBig { dont_fragment: false }));
    let whole = segments_of(&vnet, &packet, Mtu::MAX, &mut random);
    let mut segments = Segments::new(&vnet, &mut buffer, packet.len(), Mtu::MAX, &mut scratch).unwrap();
    let mut count = 0;
    while segments.prepare(3) > 0 {
        while let Some((segment, len)) = segments.next_alone() {
            assert_eq!(segment[..len], whole[count]);
            let mut fragments = Fragments::new(segment, len, Mtu::DEFAULT).unwrap();
            let mut payload: Vec<u8> = vec![];
            while let Some(fragment) = fragments.next() {
                let header = Header::parse(fragment).unwrap();
                assert!(fragment.len() <= Mtu::DEFAULT.bytes());
                payload.extend(&fragment[header.header_len..header.total_len]);
            }
            assert_eq!(payload, whole[count][20..]);
            count += 1;
        }
    }
    assert_eq!(count, 8);
}

#[test]
fn a_super_packet_is_as_it_came_until_the_first_segment_is_taken() {
    let recipe = Recipe { payload: vec![5; 8_000], ..Recipe::tcp() };
    let (vnet, packet) = recipe.super_packet(4_000);
    let (mut buffer, mut scratch) = (with_spare(&packet), SegmentScratch::new());
    let mut segments = Segments::new(&vnet, &mut buffer, packet.len(), Mtu::DEFAULT, &mut scratch).unwrap();
    assert!(segments.recut() && segments.packet() == packet);
    assert!(segments.prepare(3) == 3 && segments.packet() == packet);
    segments.next().unwrap();
    assert!(segments.packet() != packet);
}

#[test]
fn a_lie_about_the_header_length_changes_nothing() {
    let (mut vnet, packet) = Recipe { payload: vec![1; 500], ..Recipe::tcp() }.super_packet(100);
    let right = segments_of(&vnet, &packet, Mtu::DEFAULT, &mut Random::new(1));
    vnet.header_len = 500;
    assert_eq!(segments_of(&vnet, &packet, Mtu::DEFAULT, &mut Random::new(2)), right);
}

#[test]
fn without_a_partial_checksum_the_pseudo_header_is_summed_anew() {
    for recipe in [Recipe::tcp(), Recipe { v4: false, ..Recipe::udp() }] {
        let (mut vnet, packet) = Recipe { payload: vec![1; 500], ..recipe }.super_packet(77);
        vnet.needs_checksum = false;
        for segment in segments_of(&vnet, &packet, Mtu::DEFAULT, &mut Random::new(1)) {
            check_checksums(&segment);
        }
    }
}

#[test]
fn tcp_segments_that_do_not_fit_are_cut_smaller() {
    let recipe = Recipe { payload: vec![1; 40_000], ..Recipe::tcp() };
    let (vnet, packet) = recipe.super_packet(1_460);
    let mut buffer = with_spare(&packet);
    let mut scratch = SegmentScratch::new();
    let mut segments = Segments::new(&vnet, &mut buffer, packet.len(), Mtu::DEFAULT, &mut scratch).unwrap();
    assert!(segments.recut());
    assert_eq!(segments.packet(), packet);
    assert_eq!((segments.left(), segments.wire_len()), (40_000_usize.div_ceil(1_380), 1_420));
    assert!(segments.prepare(MAX_SEGMENTS) > 0);
    assert_eq!(segments.next().map(<[u8]>::len), Some(1_420));
    for segment in segments_of(&vnet, &packet, Mtu::DEFAULT, &mut Random::new(1)) {
        check_checksums(&segment);
    }
}

#[test]
fn udp_segments_that_do_not_fit_are_refused() {
    let (vnet, packet) = Recipe { payload: vec![1; 4_000], ..Recipe::udp() }.super_packet(1_400);
    let mut scratch = SegmentScratch::new();
    let refused = Segments::new(&vnet, &mut with_spare(&packet), packet.len(), Mtu::DEFAULT, &mut scratch).err();
    assert_eq!(refused, Some(Refused::TooBig { dont_fragment: true }));
}

#[test]
fn a_single_packet_is_completed_clamped_and_padded() {
    for v4 in [true, false] {
        for is_tcp in [true, false] {
            let recipe = Recipe { v4, is_tcp, flags: 2, options: vec![2, 4, 0xff, 0xff], ..Recipe::tcp() };
            let recipe = Recipe { payload: vec![9; 5], ..recipe };
            let (mut vnet, packet) = recipe.super_packet(0);
            vnet.gso = Gso::None;
            let whole = segments_of(&vnet, &packet, Mtu::DEFAULT, &mut Random::new(1));
            assert_eq!(whole.len(), 1);
            check_checksums(&whole[0]);
            let mut buffer = with_spare(&packet);
            let done = single(&vnet, &mut buffer, packet.len(), Mtu::DEFAULT).unwrap();
            assert_eq!(done.wire_len, packet.len().next_multiple_of(16));
            assert_eq!(buffer[..packet.len()], whole[0]);
            assert!(buffer[packet.len()..done.wire_len].iter().all(|b| *b == 0));
        }
    }
}

#[test]
fn a_single_packet_that_is_too_big_is_refused_with_its_checksum_complete() {
    for dont_fragment in [true, false] {
        let recipe = Recipe { dont_fragment, payload: vec![9; 1_500], ..Recipe::udp() };
        let (mut vnet, packet) = recipe.super_packet(0);
        vnet.gso = Gso::None;
        let mut buffer = with_spare(&packet);
        let refused = single(&vnet, &mut buffer, packet.len(), Mtu::DEFAULT).unwrap_err();
        assert_eq!(refused, Refused::TooBig { dont_fragment });
        check_checksums(&buffer[..packet.len()]);
    }
}

#[test]
fn a_super_packet_that_is_not_what_its_header_says_is_refused() {
    let (vnet, packet) = Recipe { payload: vec![1; 500], ..Recipe::tcp() }.super_packet(100);
    let refused = |vnet: Vnet, len: usize| {
        let mut scratch = SegmentScratch::new();
        Segments::new(&vnet, &mut with_spare(&packet), len, Mtu::DEFAULT, &mut scratch).err()
    };
    assert_eq!(refused(vnet, packet.len()), None);
    let malformed = Some(Refused::Malformed);
    assert_eq!(refused(Vnet { gso: Gso::Tcp6, ..vnet }, packet.len()), malformed);
    assert_eq!(refused(Vnet { gso: Gso::Udp, ..vnet }, packet.len()), malformed);
    assert_eq!(refused(Vnet { segment_size: 0, ..vnet }, packet.len()), malformed);
    assert_eq!(refused(Vnet { checksum_start: 24, ..vnet }, packet.len()), malformed);
    assert_eq!(refused(vnet, packet.len() - 1), malformed);
    assert_eq!(refused(vnet, packet.len() + 1), malformed);
    assert_eq!(Refused::Malformed.reason(), Reason::OutMalformed);
}
