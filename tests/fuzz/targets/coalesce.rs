//! Opened packets, as the inbound worker merges them: segmented again, they are what went in.
//!
//! Input: packets, one after the other. Each begins with a byte of [`Recipe`] flags; the fuzzer may also give the
//! packet itself.

use linkspan::packet::checksum::Sum;
use linkspan::packet::coalesce::{Coalescer, Written};
use linkspan::packet::segment::{SegmentScratch, Segments};
use linkspan::packet::vnet::Gso;
use linkspan::packet::{Cleartext, Header, Mtu, Vnet, ip};

use super::Input;

/// Packets of one batch; more would only be slower.
const MOST: usize = 80;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let offloads = input.byte();
    let mut flows = [Flow::default(); 4];
    let mut packets = Vec::new();
    while !input.is_empty() && packets.len() < MOST {
        packets.push(packet(&mut input, &mut flows));
    }
    let merged = merge(&packets, offloads & 1 == 0, offloads & 2 == 0);
    let mut before: Vec<Vec<u8>> = packets.iter().map(|packet| comparable(packet)).collect();
    let mut after: Vec<Vec<u8>> = merged.iter().map(|packet| comparable(packet)).collect();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
}

/// What the next packet of a flow continues.
#[derive(Clone, Copy, Default)]
struct Flow {
    sequence: u32,
    id: u16,
}

/// One packet: its own bytes (flag 0x80), else of a flow, in order unless the flags say otherwise.
fn packet(input: &mut Input<'_>, flows: &mut [Flow; 4]) -> Vec<u8> {
    let recipe = input.byte();
    let len = usize::from(input.byte());
    if recipe & 0x80 != 0 {
        return input.take(len).to_vec();
    }
    let [tcp, v4, v6] = [recipe & 4 == 0, recipe & 8 == 0, recipe & 8 != 0];
    let flow = &mut flows[usize::from(recipe & 3)];
    let mut packet = if v4 { ipv4(flow.id, tcp) } else { ipv6(tcp) };
    let transport = packet.len();
    packet.extend_from_slice(&[0x1b, 0x58, 0x1b, recipe & 3]);
    if tcp {
        packet.extend_from_slice(&flow.sequence.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 9, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    } else {
        packet.extend_from_slice(&u16::try_from(len + 8).unwrap().to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
    }
    packet.extend((0..len).map(|n| n.to_le_bytes()[0]));
    flow.sequence = flow.sequence.wrapping_add(u32::try_from(len).unwrap());
    flow.id = flow.id.wrapping_add(1);
    let total = u16::try_from(packet.len() - if v6 { 40 } else { 0 }).unwrap();
    packet[if v6 { 4..6 } else { 2..4 }].copy_from_slice(&total.to_be_bytes());
    // Bytes of the headers that differ from the flow's, before the checksums are made, or after.
    let (early, late) = (recipe & 0x10 != 0, recipe & 0x20 != 0);
    if early {
        change(&mut packet, input);
    }
    sum(&mut packet, transport, tcp, v4);
    if late {
        change(&mut packet, input);
    }
    if recipe & 0x40 != 0 {
        packet.resize(packet.len().next_multiple_of(16), 0);
    }
    packet
}

fn change(packet: &mut [u8], input: &mut Input<'_>) {
    let at = usize::from(input.byte()) % packet.len();
    packet[at] = input.byte();
}

fn ipv4(id: u16, tcp: bool) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, if tcp { ip::TCP } else { ip::UDP }, 0, 0];
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header.extend_from_slice(&[10, 2, 0, 2, 10, 1, 0, 2]);
    header
}

fn ipv6(tcp: bool) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, if tcp { ip::TCP } else { ip::UDP }, 64];
    header.extend_from_slice(&[0xfd; 32]);
    header
}

fn sum(packet: &mut [u8], transport: usize, tcp: bool, v4: bool) {
    if v4 {
        let header = Sum::of(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&header.to_be_bytes());
    }
    let (Some(from), Some(to)) = (ip::source(packet), ip::destination(packet)) else { return };
    let len = u16::try_from(packet.len() - transport).unwrap();
    let pseudo = Sum::pseudo(from, to, if tcp { ip::TCP } else { ip::UDP }, len);
    let checksum = pseudo.bytes(&packet[transport..]).udp_checksum();
    let at = transport + if tcp { 16 } else { 6 };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Merged, then cut again as the kernel of the receiver would.
fn merge(packets: &[Vec<u8>], tcp: bool, udp: bool) -> Vec<Vec<u8>> {
    let mut coalescer = Coalescer::new(tcp, udp);
    let (mut arena, mut at) = (packets.concat(), 0);
    for packet in packets {
        coalescer.push(&arena, at..at + packet.len());
        at += packet.len();
    }
    let mut cut = Vec::new();
    coalescer.flush(&mut arena, |header, arena, pieces| {
        let whole: Vec<u8> = pieces.iter().flat_map(|range| arena[range.clone()].iter().copied()).collect();
        let vnet = Vnet::parse(header).expect("a header that the kernel knows");
        if vnet.gso == Gso::None {
            cut.push(whole)
        } else {
            segment(&vnet, whole, &mut cut)
        }
        Written::Whole
    });
    cut
}

fn segment(vnet: &Vnet, mut whole: Vec<u8>, cut: &mut Vec<Vec<u8>>) {
    let len = whole.len();
    whole.resize(len + 16, 0);
    let mut scratch = SegmentScratch::new();
    let mut segments = Segments::new(vnet, &mut whole, len, Mtu::MAX, &mut scratch).expect("it can be cut");
    while segments.prepare(64) > 0 {
        while let Some(segment) = segments.next() {
            cut.push(segment.to_vec());
        }
    }
}

/// Without padding, without the identification where that means nothing (RFC 6864), and with one zero of the two that
/// a TCP checksum may have.
fn comparable(packet: &[u8]) -> Vec<u8> {
    let Some(header) = Header::parse(packet) else { return packet.to_vec() };
    let mut packet = packet[..header.total_len].to_vec();
    if header.src.is_ipv4() && header.dont_fragment {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    let checksum = header.header_len + 16;
    if header.protocol == ip::TCP && packet.get(checksum..checksum + 2) == Some(&[0xff, 0xff]) {
        packet[checksum..checksum + 2].fill(0);
    }
    packet
}
