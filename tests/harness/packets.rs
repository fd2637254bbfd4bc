//! Inner packets made by hand.

use std::net::IpAddr;

use etherparse::{IpFragOffset, Ipv4Header, Ipv6Header, PacketBuilder};

/// What test payloads hold, so that a capture shows whether they passed in clear.
pub const MARKER: &[u8] = b"<inner packet in clear>";

/// A whole UDP packet.
pub fn udp(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    udp_ecn(source, destination, 0, payload)
}

/// A whole UDP packet with these ECN bits.
pub fn udp_ecn(source: IpAddr, destination: IpAddr, ecn: u8, payload: &[u8]) -> Vec<u8> {
    let builder = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(payload.len() + 8).unwrap();
            let mut ip =
                Ipv4Header::new(length, 64, etherparse::IpNumber::UDP, source.octets(), destination.octets()).unwrap();
            ip.ecn = ecn.try_into().unwrap();
            ip.fragment_offset = IpFragOffset::ZERO;
            PacketBuilder::ip(etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = Ipv6Header {
                traffic_class: ecn,
                hop_limit: 64,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            PacketBuilder::ip(etherparse::IpHeaders::Ipv6(ip, etherparse::Ipv6Extensions::default()))
        }
        _ => panic!("{source} and {destination} are of two families"),
    };
    let builder = builder.udp(7000, 7001);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).unwrap();
    packet
}

/// Bytes that look random and are the same at every run; `seed` is not 0.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Marsaglia's xorshift64*, for tests only.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}
