//! What is read from the TUN, as the outbound worker takes it: vnet header, segments, fragments, ICMP.
//!
//! Input: the vnet header (10 bytes), the MTU (2), segments at a time (1), then the packet.

use linkspan::packet::cleartext::SPARE;
use linkspan::packet::coalesce::{Coalescer, Written};
use linkspan::packet::fragment::Fragments;
use linkspan::packet::segment::{self, Refused, SegmentScratch, Segments};
use linkspan::packet::{Cleartext, Header, Mtu, Vnet, icmp, ip, vnet};

use super::Input;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let Some(vnet) = Vnet::parse(input.take(vnet::LEN)) else { return };
    let mtu = Mtu::new(input.short()).unwrap_or(Mtu::DEFAULT);
    let at_a_time = usize::from(input.byte()).clamp(1, segment::MAX_SEGMENTS);
    let packet = input.0;
    let buffer = || [packet, &[0xa5; SPARE]].concat();
    answers(packet, mtu);
    if let Err(Refused::TooBig { dont_fragment: false }) = single(&vnet, &mut buffer(), packet.len(), mtu) {
        fragments(&mut buffer(), packet.len(), mtu);
    }
    segments(&vnet, &mut buffer(), packet.len(), mtu, at_a_time);
    segments_in_fragments(&vnet, &mut buffer(), packet.len(), mtu, at_a_time);
}

/// An ICMP about it is a packet.
fn answers(packet: &[u8], mtu: Mtu) {
    let mut out = [0; icmp::MAX_LEN];
    for len in [icmp::unreachable(packet, &mut out), icmp::too_big(packet, mtu, &mut out)].into_iter().flatten() {
        assert!(len <= out.len() && ip::total_len(&out) <= len);
    }
}

fn single(vnet: &Vnet, buffer: &mut [u8], len: usize, mtu: Mtu) -> Result<(), Refused> {
    let single = segment::single(vnet, buffer, len, mtu)?;
    fits(single.wire_len, mtu);
    assert!(single.wire_len >= single.header.total_len && single.wire_len <= buffer.len());
    Ok(())
}

/// What goes on the wire is padded, and never larger than the tunnel.
fn fits(len: usize, mtu: Mtu) {
    assert!(len <= mtu.bytes() && (len.is_multiple_of(16) || len == mtu.bytes()), "{len} bytes for {mtu}");
}

fn fragments(buffer: &mut [u8], len: usize, mtu: Mtu) {
    let Ok(mut fragments) = Fragments::new(buffer, len, mtu) else { return };
    let (expected, mut count) = (fragments.remaining(), 0);
    while let Some(fragment) = fragments.next() {
        fits(fragment.len(), mtu);
        assert!(Header::parse(fragment).is_some());
        count += 1;
    }
    assert_eq!(count, expected);
}

fn segments(vnet: &Vnet, buffer: &mut [u8], len: usize, mtu: Mtu, at_a_time: usize) {
    let mut scratch = SegmentScratch::new();
    let Ok(mut segments) = Segments::new(vnet, buffer, len, mtu, &mut scratch) else { return };
    let (expected, destination, mut taken) = (segments.left(), segments.header().dst, Vec::new());
    while segments.prepare(at_a_time) > 0 {
        while let Some(segment) = segments.next() {
            fits(segment.len(), mtu);
            assert_eq!(ip::destination(segment), Some(destination));
            taken.push(segment.to_vec());
        }
    }
    assert!(taken.len() <= expected);
    merge(&taken);
}

/// As where the segments are too big, and may be fragmented.
fn segments_in_fragments(vnet: &Vnet, buffer: &mut [u8], len: usize, mtu: Mtu, at_a_time: usize) {
    let mut scratch = SegmentScratch::new();
    let Ok(mut segments) = Segments::new(vnet, buffer, len, Mtu::MAX, &mut scratch) else { return };
    while segments.prepare(at_a_time) > 0 {
        while let Some((segment, len)) = segments.next_alone() {
            assert_eq!(segment.len(), len + SPARE);
            fragments(segment, len, mtu);
        }
    }
}

/// What the far end makes of them: nothing is lost.
fn merge(packets: &[Vec<u8>]) {
    let mut coalescer = Coalescer::new(true, true);
    let (mut arena, mut at) = (packets.concat(), 0);
    for packet in packets {
        coalescer.push(&arena, at..at + packet.len());
        at += packet.len();
    }
    let mut pieces = 0;
    coalescer.flush(&mut arena, |_, _, group| {
        pieces += group.len();
        Written::Whole
    });
    assert_eq!(pieces, packets.len());
}
