//! For the tests of this room: seeded random numbers, packets built field by field, checksums judged by etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::cleartext::SPARE;
use super::vnet::{Gso, Vnet};

/// SplitMix64: small, seeded, good enough.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_ne_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// A TCP or UDP packet, field by field.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) v4: bool,
    pub(crate) is_tcp: bool,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) traffic_class: u8,
    pub(crate) flow_label: u32,
    pub(crate) hops: u8,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    /// IPv4 options, or IPv6 extension headers of the kind "destination options".
    pub(crate) network_options: Vec<u8>,
    pub(crate) ports: [u16; 2],
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Recipe {
    pub(crate) fn tcp() -> Self {
        Self {
            v4: true,
            is_tcp: true,
            src: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)),
            dst: IpAddr::V4(Ipv4Addr::new(192, 168, 77, 1)),
            traffic_class: 0,
            flow_label: 0x1_2345,
            hops: 64,
            id: 0xfffe,
            dont_fragment: true,
            network_options: vec![],
            ports: [40_000, 443],
            sequence: 0xffff_ff00,
            acknowledgment: 77,
            flags: 0x10,
            window: 501,
            options: vec![],
            payload: vec![],
        }
    }

    pub(crate) fn udp() -> Self {
        Self { is_tcp: false, ..Self::tcp() }
    }

    pub(crate) fn random(random: &mut Random) -> Self {
        let v4 = random.one_in(2);
        let options = random.below(11) * 4;
        Self {
            v4,
            is_tcp: !random.one_in(3),
            src: address(v4, random),
            dst: address(v4, random),
            traffic_class: random.next() as u8,
            flow_label: random.next() as u32 & 0xf_ffff,
            hops: random.next() as u8,
            id: random.next() as u16,
            dont_fragment: random.one_in(2),
            network_options: vec![],
            ports: [random.next() as u16, random.next() as u16],
            sequence: random.next() as u32,
            acknowledgment: random.next() as u32,
            flags: 0x10 | if random.one_in(2) { 0x08 } else { 0 } | if random.one_in(4) { 0xc0 } else { 0 },
            window: random.next() as u16,
            options: random.bytes(options),
            payload: vec![],
        }
    }

    pub(crate) fn network_len(&self) -> usize {
        let fixed = if self.v4 { 20 } else { 40 };
        fixed + self.network_options.len()
    }

    pub(crate) fn header_len(&self) -> usize {
        self.network_len() + if self.is_tcp { 20 + self.options.len() } else { 8 }
    }

    /// The packet, with right checksums.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut packet = self.unsummed();
        let sum = transport_checksum(&packet);
        let at = self.checksum_at();
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The packet with a partial checksum, as the kernel gives it, and its vnet header.
    pub(crate) fn super_packet(&self, segment_size: u16) -> (Vnet, Vec<u8>) {
        let mut packet = self.unsummed();
        let sum = self.pseudo_sum(packet.len() - self.network_len());
        let at = self.checksum_at();
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let gso = match (self.is_tcp, self.v4) {
            (true, true) => Gso::Tcp4,
            (true, false) => Gso::Tcp6,
            (false, _) => Gso::Udp,
        };
        let vnet = Vnet {
            gso,
            gso_ecn: self.is_tcp && self.flags & 0x80 != 0,
            needs_checksum: true,
            header_len: self.header_len() as u16,
            segment_size,
            checksum_start: self.network_len() as u16,
            checksum_offset: if self.is_tcp { 16 } else { 6 },
        };
        (vnet, packet)
    }

    fn checksum_at(&self) -> usize {
        self.network_len() + if self.is_tcp { 16 } else { 6 }
    }

    fn unsummed(&self) -> Vec<u8> {
        let mut transport = vec![];
        self.ports.iter().for_each(|p| transport.extend(p.to_be_bytes()));
        if self.is_tcp {
            transport.extend(self.sequence.to_be_bytes());
            transport.extend(self.acknowledgment.to_be_bytes());
            transport.extend([((20 + self.options.len()) * 4) as u8, self.flags]);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0; 4]);
            transport.extend(&self.options);
        } else {
            transport.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            transport.extend([0; 2]);
        }
        transport.extend(&self.payload);
        let mut packet = if self.v4 { self.v4_header(transport.len()) } else { self.v6_header(transport.len()) };
        packet.extend(transport);
        packet
    }

    fn v4_header(&self, transport_len: usize) -> Vec<u8> {
        let len = self.network_len();
        let total = ((len + transport_len) as u16).to_be_bytes();
        let [id0, id1] = self.id.to_be_bytes();
        let df = if self.dont_fragment { 0x40 } else { 0 };
        let mut header = vec![0x40 | (len / 4) as u8, self.traffic_class, total[0], total[1], id0, id1, df, 0];
        header.extend([self.hops, if self.is_tcp { 6 } else { 17 }, 0, 0]);
        header.extend(octets(self.src, true));
        header.extend(octets(self.dst, true));
        header.extend(&self.network_options);
        let sum = !naive(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn v6_header(&self, transport_len: usize) -> Vec<u8> {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
        let len = (self.network_options.len() + transport_len) as u16;
        let protocol = if self.is_tcp { 6 } else { 17 };
        let next = if self.network_options.is_empty() { protocol } else { 60 };
        let mut header = first.to_be_bytes().to_vec();
        header.extend(len.to_be_bytes());
        header.extend([next, self.hops]);
        header.extend(octets(self.src, false));
        header.extend(octets(self.dst, false));
        if !self.network_options.is_empty() {
            let mut extension = self.network_options.clone();
            (extension[0], extension[1]) = (protocol, (extension.len() / 8 - 1) as u8);
            header.extend(extension);
        }
        header
    }

    fn pseudo_sum(&self, transport_len: usize) -> u16 {
        let mut bytes = octets(self.src, self.v4);
        bytes.extend(octets(self.dst, self.v4));
        bytes.extend([0, if self.is_tcp { 6 } else { 17 }]);
        bytes.extend((transport_len as u16).to_be_bytes());
        naive(&bytes)
    }
}

fn address(v4: bool, random: &mut Random) -> IpAddr {
    if v4 {
        return IpAddr::V4(Ipv4Addr::from_bits(random.next() as u32));
    }
    IpAddr::V6(Ipv6Addr::from_bits(u128::from(random.next()) << 64 | u128::from(random.next())))
}

/// An IPv4 address in an IPv6 packet is taken as if mapped, so that recipes need to change one field only.
fn octets(address: IpAddr, v4: bool) -> Vec<u8> {
    match (address, v4) {
        (IpAddr::V4(a), true) => a.octets().to_vec(),
        (IpAddr::V4(a), false) => Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(a.to_bits())).octets().to_vec(),
        (IpAddr::V6(a), false) => a.octets().to_vec(),
        (IpAddr::V6(a), true) => a.octets()[12..].to_vec(),
    }
}

pub(crate) fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// `packet` with the spare bytes behind that cutting in place needs; not zero, so that a leak would be seen.
pub(crate) fn with_spare(packet: &[u8]) -> Vec<u8> {
    let mut buffer = packet.to_vec();
    buffer.extend([0xee; SPARE]);
    buffer
}

/// Fails unless etherparse agrees with the IPv4 header's checksum.
pub(crate) fn check_network_checksum(packet: &[u8]) {
    let Ok((header, _)) = etherparse::Ipv4Header::from_slice(packet) else { return };
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 header checksum");
}

/// Fails unless etherparse agrees with all checksums of `packet`.
pub(crate) fn check_checksums(packet: &[u8]) {
    check_network_checksum(packet);
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let found = match sliced.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => tcp.checksum(),
        TransportSlice::Udp(udp) => udp.checksum(),
        TransportSlice::Icmpv4(icmp) => icmp.checksum(),
        TransportSlice::Icmpv6(icmp) => icmp.checksum(),
    };
    assert_eq!(found, transport_checksum(packet), "transport checksum");
}

/// What etherparse computes for the transport header of `packet`.
pub(crate) fn transport_checksum(packet: &[u8]) -> u16 {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let (src, dst): (IpAddr, IpAddr) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(v4) => (v4.header().source_addr().into(), v4.header().destination_addr().into()),
        NetSlice::Ipv6(v6) => (v6.header().source_addr().into(), v6.header().destination_addr().into()),
        NetSlice::Arp(_) => panic!("ARP"),
    };
    match (sliced.transport.as_ref().unwrap(), src, dst) {
        (TransportSlice::Tcp(tcp), IpAddr::V4(s), IpAddr::V4(d)) => tcp.calc_checksum_ipv4(s.octets(), d.octets()),
        (TransportSlice::Tcp(tcp), IpAddr::V6(s), IpAddr::V6(d)) => tcp.calc_checksum_ipv6(s.octets(), d.octets()),
        (TransportSlice::Udp(udp), IpAddr::V4(s), IpAddr::V4(d)) => {
            udp.to_header().calc_checksum_ipv4_raw(s.octets(), d.octets(), udp.payload())
        }
        (TransportSlice::Udp(udp), IpAddr::V6(s), IpAddr::V6(d)) => {
            udp.to_header().calc_checksum_ipv6_raw(s.octets(), d.octets(), udp.payload())
        }
        (TransportSlice::Icmpv4(icmp), ..) => {
            return icmp.icmp_type().calc_checksum(icmp.payload());
        }
        (TransportSlice::Icmpv6(icmp), IpAddr::V6(s), IpAddr::V6(d)) => {
            icmp.icmp_type().calc_checksum(s.octets(), d.octets(), icmp.payload())
        }
        other => panic!("{other:?}"),
    }
    .unwrap()
}
