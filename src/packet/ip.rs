//! What the data plane needs to know of an IPv4 or IPv6 header, parsed once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bytes::u16_at;

/// Length of an IPv4 header without options.
pub const V4_LEN: usize = 20;
/// Length of the fixed IPv6 header.
pub const V6_LEN: usize = 40;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// More extension headers than any sender has reason for; a packet with more is malformed to us.
const MAX_EXTENSIONS: usize = 12;

/// Which part of a fragmented packet this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// Whole.
    No,
    /// The one with the transport header.
    First,
    /// One without a transport header.
    Later,
}

/// An IP header; whoever holds one knows that its lengths lie within the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Bytes before the transport header, IPv4 options and IPv6 extension headers included.
    pub header_len: usize,
    /// Bytes of the whole packet; what follows is padding.
    pub total_len: usize,
    /// Protocol number of the transport.
    pub protocol: u8,
    /// Whether it is a fragment. An IPv6 packet with a fragment header always is.
    pub fragment: Fragment,
    /// Whether routers may not fragment it. Always so in IPv6.
    pub dont_fragment: bool,
    /// The ECN field, 0-3 (RFC 3168, section 5).
    pub ecn: u8,
}

impl Header {
    /// The UDP or TCP port that `packet`, whose header this is, goes to; none for other protocols and later fragments.
    #[must_use]
    pub fn destination_port(&self, packet: &[u8]) -> Option<u16> {
        let has_ports = matches!(self.protocol, TCP | UDP) && self.fragment != Fragment::Later;
        let ports = packet.get(self.header_len..self.total_len)?.first_chunk::<4>()?;
        has_ports.then_some(u16::from_be_bytes([ports[2], ports[3]]))
    }

    /// Parses the header of `packet`, which may have padding behind. `None` = malformed, or not IP.
    #[must_use]
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::v4(packet),
            6 => Self::v6(packet),
            _ => None,
        }
    }

    /// Whether it is IPv4.
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    /// Bytes of the transport header and its payload.
    #[must_use]
    pub const fn transport_len(&self) -> usize {
        self.total_len - self.header_len
    }

    #[inline]
    fn v4(packet: &[u8]) -> Option<Self> {
        let fixed: &[u8; V4_LEN] = packet.first_chunk()?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if header_len < V4_LEN || total_len < header_len || total_len > packet.len() {
            return None;
        }
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        Some(Self {
            src: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
            dst: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
            header_len,
            total_len,
            protocol: fixed[9],
            fragment: fragment_of(fragment & 0x1fff != 0, fragment & 0x2000 != 0),
            dont_fragment: fragment & 0x4000 != 0,
            ecn: fixed[1] & 3,
        })
    }

    fn v6(packet: &[u8]) -> Option<Self> {
        let fixed: &[u8; V6_LEN] = packet.first_chunk()?;
        let total_len = V6_LEN + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let chain = Chain::walk(packet.get(..total_len)?, fixed[6])?;
        let (src, dst) = v6_addresses(fixed);
        Some(Self {
            src,
            dst,
            header_len: chain.end,
            total_len,
            protocol: chain.protocol,
            fragment: chain.fragment,
            dont_fragment: true,
            ecn: fixed[1] >> 4 & 3,
        })
    }
}

/// The destination address of `packet`, without a look at the rest of the header.
#[must_use]
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    addresses(packet).map(|(_, dst)| dst)
}

/// The source address of `packet`, without a look at the rest of the header.
#[must_use]
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    addresses(packet).map(|(src, _)| src)
}

/// The length that `packet` itself states, in bytes; 0 if it is not IP. It may be shorter than the slice: padding.
#[must_use]
pub fn total_len(packet: &[u8]) -> usize {
    match packet {
        [first, _, high, low, ..] if first >> 4 == 4 => usize::from(u16::from_be_bytes([*high, *low])),
        [first, _, _, _, high, low, ..] if first >> 4 == 6 => V6_LEN + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    }
}

fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let [s0, s1, s2, s3, d0, d1, d2, d3] = *packet.get(12..V4_LEN)?.first_chunk()?;
            Some((Ipv4Addr::new(s0, s1, s2, s3).into(), Ipv4Addr::new(d0, d1, d2, d3).into()))
        }
        6 => packet.first_chunk().map(v6_addresses),
        _ => None,
    }
}

fn v6_addresses(fixed: &[u8; V6_LEN]) -> (IpAddr, IpAddr) {
    let [_, _, _, _, _, _, _, _, addresses @ ..] = fixed;
    let address = |bytes: Option<&[u8; 16]>| Ipv6Addr::from(*bytes.unwrap_or(&[0; 16])).into();
    (address(addresses.first_chunk()), address(addresses.last_chunk()))
}

const fn fragment_of(later: bool, any: bool) -> Fragment {
    match (later, any) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::No,
    }
}

/// The end of a chain of extension headers.
struct Chain {
    end: usize,
    protocol: u8,
    fragment: Fragment,
}

impl Chain {
    /// Follows the extension headers (RFC 8200, section 4) up to the transport, or to a fragment without one.
    fn walk(packet: &[u8], first: u8) -> Option<Self> {
        let mut chain = Self { end: V6_LEN, protocol: first, fragment: Fragment::No };
        for _ in 0..MAX_EXTENSIONS {
            let kind = chain.protocol;
            if !is_extension(kind) || chain.fragment == Fragment::Later {
                return Some(chain);
            }
            let [next, length] = *packet.get(chain.end..)?.first_chunk()?;
            if kind == FRAGMENT {
                let offset = u16_at(packet, chain.end + 2)? >> 3;
                chain.fragment = fragment_of(offset != 0, true);
            }
            chain.end += extension_len(kind, usize::from(length));
            chain.protocol = next;
            if chain.end > packet.len() {
                return None;
            }
        }
        None
    }
}

const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

/// Hop-by-hop, routing, fragment, authentication, destination options, mobility, HIP, Shim6 (IANA's list).
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | FRAGMENT | AUTHENTICATION | 60 | 135 | 139 | 140)
}

const fn extension_len(kind: u8, length: usize) -> usize {
    match kind {
        FRAGMENT => 8,
        AUTHENTICATION => (length + 2) * 4,
        _ => (length + 1) * 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0x20, 0, 0, 0, payload.len() as u8, next, 64];
        packet.extend([1; 16]);
        packet.extend([2; 16]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn an_ipv4_header_with_options_and_padding_behind_is_parsed() {
        let mut packet = vec![0x46, 0x03, 0, 28, 0, 1, 0x40, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([1, 1, 1, 1, 9, 9, 9, 9, 0, 0, 0]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!((header.header_len, header.total_len, header.transport_len()), (24, 28, 4));
        assert_eq!((header.protocol, header.ecn, header.dont_fragment), (UDP, 3, true));
        assert_eq!(header.dst, "10.0.0.2".parse::<IpAddr>().unwrap());
        assert_eq!((destination(&packet), source(&packet)), (Some(header.dst), Some(header.src)));
        packet[6] = 0x20;
        assert_eq!(Header::parse(&packet).unwrap().fragment, Fragment::First);
        packet[7] = 1;
        assert_eq!(Header::parse(&packet).unwrap().fragment, Fragment::Later);
    }

    #[test]
    fn lengths_that_do_not_fit_are_malformed() {
        let packet = [0x45, 0, 0, 20, 0, 1, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        assert!(Header::parse(&packet).is_some());
        for (at, value) in [(0, 0x44), (0, 0x46), (0, 0x55), (3, 19), (3, 21)] {
            let mut bad = packet;
            bad[at] = value;
            assert_eq!(Header::parse(&bad), None, "byte {at} = {value}");
        }
        assert_eq!(Header::parse(&[]), None);
        assert_eq!((destination(&packet[..19]), source(&[0x60; 39])), (None, None));
    }

    #[test]
    fn extension_headers_are_walked_to_the_transport() {
        let mut payload = vec![43, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop
        payload.extend([60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // routing
        payload.extend([51, 0, 0, 0, 0, 0, 0, 0]); // destination options
        payload.extend([TCP, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // authentication
        payload.extend([0; 20]);
        let header = Header::parse(&v6(0, &payload)).unwrap();
        assert_eq!((header.protocol, header.header_len), (TCP, 40 + 8 + 16 + 8 + 24));
        assert_eq!((header.fragment, header.ecn), (Fragment::No, 2));
    }

    #[test]
    fn ipv6_fragments_are_told_apart() {
        let first = v6(44, &[UDP, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let atomic = v6(44, &[UDP, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let later = v6(44, &[0, 0, 0, 8, 0, 0, 0, 0, 1]); // the payload is no header, whatever it says
        let parts: Vec<_> = [first, atomic, later].iter().map(|p| Header::parse(p).unwrap()).collect();
        assert_eq!(parts[0].fragment, Fragment::First);
        assert_eq!(parts[1].fragment, Fragment::First);
        assert_eq!((parts[2].fragment, parts[2].header_len, parts[2].protocol), (Fragment::Later, 48, 0));
    }

    #[test]
    fn a_chain_that_is_cut_off_or_too_long_is_malformed() {
        assert_eq!(Header::parse(&v6(0, &[TCP])), None);
        assert_eq!(Header::parse(&v6(0, &[TCP, 1, 0, 0, 0, 0, 0, 0])), None);
        assert_eq!(Header::parse(&v6(60, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(13))), None);
    }
}
