//! As much of an inner packet's IP header as the tunnel itself needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The source address of an IPv4 or IPv6 packet whose header and length are sound; none = malformed.
pub(super) fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => source_v4(packet),
        6 => source_v6(packet),
        _ => None,
    }
}

fn source_v4(packet: &[u8]) -> Option<IpAddr> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let [first, _, length_high, length_low, _, _, _, _, _, _, _, _, a, b, c, d, ..] = *header;
    let header_len = usize::from(first & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([length_high, length_low]));
    let sound = header_len >= 20 && header_len <= total_len && total_len <= packet.len();
    sound.then_some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
}

fn source_v6(packet: &[u8]) -> Option<IpAddr> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let [_, _, _, _, length_high, length_low, ..] = *header;
    let total_len = 40 + usize::from(u16::from_be_bytes([length_high, length_low]));
    let source: [u8; 16] = header.get(8..24)?.try_into().ok()?;
    (total_len <= packet.len()).then_some(IpAddr::V6(Ipv6Addr::from(source)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An IP packet of `len` bytes with nothing but its header filled in.
    pub(in crate::tunnel) fn packet(source: IpAddr, destination: IpAddr, len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        match (source, destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                packet[0] = 0x45;
                packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
                packet[8] = 64;
                packet[9] = 253;
                packet[12..16].copy_from_slice(&s.octets());
                packet[16..20].copy_from_slice(&d.octets());
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                packet[0] = 0x60;
                packet[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap().to_be_bytes());
                packet[6] = 59;
                packet[8..24].copy_from_slice(&s.octets());
                packet[24..40].copy_from_slice(&d.octets());
            }
            _ => panic!("one family"),
        }
        packet
    }

    #[test]
    fn the_source_of_a_sound_packet_is_found() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.1.2.3".parse().unwrap(), "fd00::1".parse().unwrap());
        assert_eq!(source(&packet(v4, v4, 20)), Some(v4));
        assert_eq!(source(&packet(v6, v6, 40)), Some(v6));
    }

    #[test]
    fn lying_lengths_are_malformed() {
        let v4 = packet("10.1.2.3".parse().unwrap(), "10.1.2.4".parse().unwrap(), 60);
        let v6 = packet("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), 60);
        for len in 0..60 {
            assert_eq!(source(&v4[..len]), None);
            assert_eq!(source(&v6[..len]), None);
        }
        for total in 0..20 {
            let mut short = v4.clone();
            short[3] = total;
            assert_eq!(source(&short), None);
        }
        let mut long_header = v4.clone();
        long_header[0] = 0x4f;
        assert!(source(&long_header).is_some());
        long_header[3] = 59;
        assert_eq!(source(&long_header), None);
        assert_eq!(source(&[]), None);
        assert_eq!(source(&[0x50; 60]), None);
    }
}
