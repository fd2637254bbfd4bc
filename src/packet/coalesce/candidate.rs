//! What a packet is to the coalescer: one that may be merged, one that ends its flow's group, or neither.

use std::net::IpAddr;

use crate::packet::bytes::{u16_at, u32_at};
use crate::packet::checksum::Sum;
use crate::packet::ip::{Fragment, Header, TCP, UDP, V4_LEN, V6_LEN};

const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// What a packet is to the coalescer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    /// May be merged with others of its flow.
    Mergeable(Candidate),
    /// Stands alone, and what follows it in the flow must not pass it.
    Barrier(Flow),
    /// A fragment: stands alone, and may belong to any flow between its addresses.
    Fragment(Between),
    /// Stands alone, as does everything of its flow.
    Other,
}

/// Two addresses, as numbers: these are compared for each packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Between {
    src: u128,
    dst: u128,
    is_v4: bool,
}

/// The five-tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) between: Between,
    ports: u32,
    pub(super) protocol: u8,
}

/// All fields that must be equal in packets that are merged, but for TCP's options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// Version, TOS and ECN; of IPv6 the flow label, too.
    network: u32,
    /// TTL or hop limit.
    hops: u8,
    pub(super) dont_fragment: bool,
    /// Data offset, reserved bits, flags without PSH and CWR.
    flags: u16,
    acknowledgment: u32,
    window: u16,
    urgent: u16,
}

/// A packet that may be merged; its checksums are right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) flow: Flow,
    pub(super) shape: Shape,
    /// Bytes of the IP header.
    pub(super) transport: usize,
    /// Bytes of the IP and the transport header.
    pub(super) header_len: usize,
    pub(super) payload_len: usize,
    /// IPv4 identification.
    pub(super) id: u16,
    pub(super) sequence: u32,
    pub(super) push: bool,
    pub(super) reduced: bool,
}

impl Between {
    fn of(ip: &Header) -> Self {
        let number = |address| match address {
            IpAddr::V4(a) => u128::from(a.to_bits()),
            IpAddr::V6(a) => a.to_bits(),
        };
        Self { src: number(ip.src), dst: number(ip.dst), is_v4: ip.is_v4() }
    }
}

impl Flow {
    pub(super) const fn is_tcp(&self) -> bool {
        self.protocol == TCP
    }

    /// Bytes of the transport header without options.
    pub(super) const fn header_len(&self) -> usize {
        if self.is_tcp() { 20 } else { 8 }
    }

    pub(super) const fn is_v4(&self) -> bool {
        self.between.is_v4
    }
}

/// Judges `packet`, which ends with its IP packet; `tcp` and `udp` say what may be merged.
pub(super) fn classify(packet: &[u8], ip: &Header, tcp: bool, udp: bool) -> Class {
    if ip.fragment != Fragment::No {
        return Class::Fragment(Between::of(ip));
    }
    if !matches!((ip.protocol, tcp, udp), (TCP, true, _) | (UDP, _, true)) {
        return Class::Other;
    }
    let Some(ports) = u32_at(packet, ip.header_len) else { return Class::Other };
    let flow = Flow { between: Between::of(ip), ports, protocol: ip.protocol };
    let candidate = if ip.protocol == TCP { tcp_candidate(packet, ip, flow) } else { udp_candidate(packet, ip, flow) };
    match candidate {
        Some(candidate) if is_right(packet, ip) => Class::Mergeable(candidate),
        _ => Class::Barrier(flow),
    }
}

/// Data with ACK and no other flag but PSH, ECE and CWR (Linux, `tcp_gro_receive`, would also take a FIN).
fn tcp_candidate(packet: &[u8], ip: &Header, flow: Flow) -> Option<Candidate> {
    let tcp = packet.get(ip.header_len..)?;
    let flags = *tcp.get(13)?;
    if flags & !(PSH | ECE | CWR) != ACK {
        return None;
    }
    let header_len = ip.header_len + usize::from(tcp.get(12)? >> 4) * 4;
    let (shape, id) = network_shape(packet, ip)?;
    let shape = Shape {
        flags: u16_at(tcp, 12)? & !u16::from(PSH | CWR),
        acknowledgment: u32_at(tcp, 8)?,
        window: u16_at(tcp, 14)?,
        urgent: u16_at(tcp, 18)?,
        ..shape
    };
    let payload_len = packet.len().checked_sub(header_len)?;
    let (push, reduced) = (flags & PSH != 0, flags & CWR != 0);
    let sequence = u32_at(tcp, 4)?;
    let transport = ip.header_len;
    (header_len >= transport + 20 && payload_len > 0).then_some(Candidate {
        flow,
        shape,
        transport,
        header_len,
        payload_len,
        id,
        sequence,
        push,
        reduced,
    })
}

/// A datagram with a checksum: without one there is nothing to verify, and merging would add one.
fn udp_candidate(packet: &[u8], ip: &Header, flow: Flow) -> Option<Candidate> {
    let udp = packet.get(ip.header_len..)?;
    let (shape, id) = network_shape(packet, ip)?;
    let payload_len = udp.len().checked_sub(8)?;
    let is_plain = usize::from(u16_at(udp, 4)?) == udp.len() && u16_at(udp, 6)? != 0 && payload_len > 0;
    let (transport, header_len) = (ip.header_len, ip.header_len + 8);
    let (sequence, push, reduced) = (0, false, false);
    is_plain.then_some(Candidate { flow, shape, transport, header_len, payload_len, id, sequence, push, reduced })
}

/// The shape as far as IP goes; `None` with options, extension headers or IPv4's reserved bit.
fn network_shape(packet: &[u8], ip: &Header) -> Option<(Shape, u16)> {
    let (plain_len, network, hops, reserved) = if ip.is_v4() {
        (V4_LEN, u32::from(u16_at(packet, 0)?), *packet.get(8)?, *packet.get(6)? & 0x80)
    } else {
        (V6_LEN, u32_at(packet, 0)?, *packet.get(7)?, 0)
    };
    if ip.header_len != plain_len || reserved != 0 {
        return None;
    }
    let dont_fragment = ip.dont_fragment;
    let id = u16_at(packet, 4)?;
    Some((Shape { network, hops, dont_fragment, flags: 0, acknowledgment: 0, window: 0, urgent: 0 }, id))
}

/// Whether the checksums of IPv4 and of the transport are right: merging would repair a wrong one.
fn is_right(packet: &[u8], ip: &Header) -> bool {
    let Some((network, transport)) = packet.split_at_checked(ip.header_len) else { return false };
    let Ok(len) = u16::try_from(transport.len()) else { return false };
    let is_right = |sum: Sum| sum.fold() == 0xffff;
    (!ip.is_v4() || is_right(Sum::of(network)))
        && is_right(Sum::pseudo(ip.src, ip.dst, ip.protocol, len).bytes(transport))
}
