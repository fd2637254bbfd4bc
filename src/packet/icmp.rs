//! ICMP errors for inner packets that cannot be carried.
//!
//! Their source is the failed packet's own destination: Linux drops packets from a TUN that claim to come from
//! one of this host's addresses.

use std::net::{IpAddr, Ipv4Addr};

use super::Mtu;
use super::bytes::{put, put_u16};
use super::checksum::Sum;
use super::ip::{Fragment, Header, ICMP, ICMPV6, V4_LEN, V6_LEN};

/// The largest answer: IPv6's least MTU (RFC 4443, section 2.4(c)).
pub const MAX_LEN: usize = 1280;

/// The largest IPv4 answer (RFC 1812, section 4.3.2.3).
const MAX_V4_LEN: usize = 576;
const ICMP_LEN: usize = 8;

/// Writes "fragmentation needed" (RFC 1191, section 4) or "packet too big" (RFC 4443, section 3.2) with `mtu` to
/// `out`; returns its length, or `None` where no answer is allowed.
pub fn too_big(packet: &[u8], mtu: Mtu, out: &mut [u8; MAX_LEN]) -> Option<usize> {
    let mtu = u32::try_from(mtu.bytes()).ok()?;
    answer(packet, [3, 4], [2, 0], mtu, out)
}

/// Writes "host unreachable" (RFC 792) or "address unreachable" (RFC 4443, section 3.1) to `out`; returns its
/// length, or `None` where no answer is allowed.
pub fn unreachable(packet: &[u8], out: &mut [u8; MAX_LEN]) -> Option<usize> {
    answer(packet, [3, 1], [1, 3], 0, out)
}

fn answer(packet: &[u8], v4: [u8; 2], v6: [u8; 2], rest: u32, out: &mut [u8; MAX_LEN]) -> Option<usize> {
    let failed = Header::parse(packet)?;
    let packet = packet.get(..failed.total_len)?;
    if !may_answer(packet, &failed) {
        return None;
    }
    let (header_len, limit, kind) = if failed.is_v4() { (V4_LEN, MAX_V4_LEN, v4) } else { (V6_LEN, MAX_LEN, v6) };
    let quote = packet.get(..packet.len().min(limit - header_len - ICMP_LEN))?;
    let len = header_len + ICMP_LEN + quote.len();
    let (ip, message) = out.get_mut(..len)?.split_at_mut_checked(header_len)?;
    put(message, 0, [kind[0], kind[1], 0, 0])?;
    put(message, 4, rest.to_be_bytes())?;
    message.get_mut(ICMP_LEN..)?.copy_from_slice(quote);
    match (failed.dst, failed.src) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            put_u16(message, 2, Sum::of(message).checksum())?;
            put(ip, 0, v4_header(u16::try_from(len).ok()?, from, to))?;
            put_u16(ip, 10, Sum::of(ip).checksum())?;
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let message_len = u16::try_from(message.len()).ok()?;
            let sum = Sum::pseudo(failed.dst, failed.src, ICMPV6, message_len).bytes(message);
            put_u16(message, 2, sum.checksum())?;
            let [high, low] = message_len.to_be_bytes();
            put(ip, 0, [0x60, 0, 0, 0, high, low, ICMPV6, 64])?;
            put(ip, 8, from.octets())?;
            put(ip, 24, to.octets())?;
        }
        _ => return None,
    }
    Some(len)
}

/// DF and no identification (RFC 6864); precedence "internetwork control" (RFC 1812, section 4.3.2.5).
fn v4_header(len: u16, from: Ipv4Addr, to: Ipv4Addr) -> [u8; V4_LEN] {
    let [l0, l1] = len.to_be_bytes();
    let ([f0, f1, f2, f3], [t0, t1, t2, t3]) = (from.octets(), to.octets());
    [0x45, 0xc0, l0, l1, 0, 0, 0x40, 0, 64, ICMP, 0, 0, f0, f1, f2, f3, t0, t1, t2, t3]
}

/// RFC 1122, section 3.2.2; RFC 4443, section 2.4(e).
fn may_answer(packet: &[u8], failed: &Header) -> bool {
    failed.fragment != Fragment::Later
        && is_host(failed.src)
        && is_host(failed.dst)
        && !is_error(failed.protocol, packet.get(failed.header_len).copied())
}

fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, ..] = a.octets();
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(a) => !(a.is_unspecified() || a.is_loopback() || a.is_multicast()),
    }
}

/// An ICMP error or redirect, or a message whose type was cut off.
const fn is_error(protocol: u8, kind: Option<u8>) -> bool {
    match (protocol, kind) {
        (ICMP, Some(kind)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (ICMPV6, Some(kind)) => kind < 128 || kind == 137,
        (ICMP | ICMPV6, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::icmpv4::DestUnreachableHeader;
    use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice, icmpv6};

    use super::*;
    use crate::packet::ip;
    use crate::packet::testing::{Recipe, check_checksums};

    fn large(v4: bool) -> Vec<u8> {
        Recipe { v4, payload: vec![9; 1_500], ..Recipe::udp() }.packet()
    }

    #[test]
    fn too_big_over_ipv4_carries_the_mtu_and_quotes_the_packet() {
        let (packet, mut out) = (large(true), [0; MAX_LEN]);
        let len = too_big(&packet, Mtu::DEFAULT, &mut out).unwrap();
        assert_eq!(len, 576);
        check_checksums(&out[..len]);
        let sliced = SlicedPacket::from_ip(&out[..len]).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("not ICMP") };
        let expected = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1420 };
        assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(expected));
        assert_eq!(icmp.payload(), &packet[..548]);
        assert_eq!((ip::source(&out), ip::destination(&out)), (ip::destination(&packet), ip::source(&packet)));
    }

    #[test]
    fn too_big_over_ipv6_carries_the_mtu_and_fills_1280_bytes() {
        let (packet, mut out) = (large(false), [0; MAX_LEN]);
        let len = too_big(&packet, Mtu::DEFAULT, &mut out).unwrap();
        assert_eq!(len, 1280);
        check_checksums(&out[..len]);
        let sliced = SlicedPacket::from_ip(&out[..len]).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("not ICMPv6") };
        assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1420 });
        assert_eq!(icmp.payload(), &packet[..1232]);
        assert_eq!((ip::source(&out), ip::destination(&out)), (ip::destination(&packet), ip::source(&packet)));
    }

    #[test]
    fn unreachable_names_the_host_and_quotes_a_short_packet_whole() {
        for v4 in [true, false] {
            let packet = Recipe { v4, payload: vec![1, 2, 3], ..Recipe::udp() }.packet();
            let mut padded = packet.clone();
            padded.extend([0; 9]);
            let mut out = [0xee; MAX_LEN];
            let len = unreachable(&padded, &mut out).unwrap();
            check_checksums(&out[..len]);
            let sliced = SlicedPacket::from_ip(&out[..len]).unwrap();
            let quoted = match sliced.transport.unwrap() {
                TransportSlice::Icmpv4(icmp) => {
                    assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host));
                    icmp.payload()
                }
                TransportSlice::Icmpv6(icmp) => {
                    let expected = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Address);
                    assert_eq!(icmp.icmp_type(), expected);
                    icmp.payload()
                }
                TransportSlice::Tcp(_) | TransportSlice::Udp(_) => panic!("not ICMP"),
            };
            assert_eq!(quoted, packet);
        }
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        let mut out = [0; MAX_LEN];
        let mut silent = |packet: &[u8]| {
            assert_eq!(unreachable(packet, &mut out), None);
            assert_eq!(too_big(packet, Mtu::MIN, &mut out), None);
        };
        let v4 = |at: usize, bytes: &[u8]| {
            let mut packet = large(true);
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            packet
        };
        silent(&v4(6, &[0, 1])); // a later fragment
        for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            silent(&v4(12, &source));
            silent(&v4(16, &source));
        }
        for kind in [3, 4, 5, 11, 12] {
            let mut packet = v4(9, &[ICMP]);
            packet[20] = kind;
            silent(&packet);
        }
        for (at, address) in [(8, [0; 16]), (8, [0xff; 16]), (24, [0xff; 16]), (24, [0; 16])] {
            let mut packet = large(false);
            packet[at..at + 16].copy_from_slice(&address);
            silent(&packet);
        }
        for kind in [1, 2, 127, 137] {
            let mut packet = large(false);
            (packet[6], packet[40]) = (ICMPV6, kind);
            silent(&packet);
        }
        silent(&[]);
        silent(&[0x45; 19]);
    }

    #[test]
    fn a_ping_is_answered() {
        let mut packet = large(true);
        (packet[9], packet[20]) = (ICMP, 8);
        assert!(too_big(&packet, Mtu::DEFAULT, &mut [0; MAX_LEN]).is_some());
    }
}
