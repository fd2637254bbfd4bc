//! Lowers the MSS that passing SYNs offer, so that TCP segments fit the tunnel without any path-MTU discovery.

use super::bytes::{put_u16, u16_at};
use super::ip::{Fragment, Header, TCP};
use super::{Mtu, checksum};

const SYN: u8 = 2;

/// How the checksum field of a TCP packet is to be treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// It covers the packet: a change in the packet changes it.
    Complete,
    /// It holds the pseudo-header's sum only and will be completed later.
    Partial,
}

/// Lowers the MSS option of a SYN or SYN+ACK to what `mtu` carries: 40 bytes less over IPv4, 60 over IPv6
/// (RFC 9293, section 3.7.1). Everything else is left as it is, and an MSS is never raised or added.
pub fn clamp(packet: &mut [u8], mtu: Mtu, checksum: Checksum) {
    if let Some(header) = Header::parse(packet) {
        clamp_parsed(packet, &header, mtu, checksum);
    }
}

/// [`clamp`], where the header is parsed already.
pub(super) fn clamp_parsed(packet: &mut [u8], header: &Header, mtu: Mtu, checksum: Checksum) {
    if header.protocol != TCP || header.fragment == Fragment::Later {
        return;
    }
    let limit = mtu.bytes() - if header.is_v4() { 40 } else { 60 };
    let (Ok(limit), Some(tcp)) = (u16::try_from(limit), packet.get_mut(header.header_len..header.total_len)) else {
        return;
    };
    lower(tcp, limit, checksum);
}

fn lower(tcp: &mut [u8], limit: u16, checksum: Checksum) -> Option<()> {
    let [offset, flags] = *tcp.get(12..)?.first_chunk()?;
    if flags & SYN == 0 {
        return None;
    }
    let at = 20 + mss_value(tcp.get(20..usize::from(offset >> 4) * 4)?)?;
    let offered = u16_at(tcp, at)?;
    if offered <= limit {
        return None;
    }
    put_u16(tcp, at, limit)?;
    match checksum {
        Checksum::Partial => Some(()),
        Checksum::Complete => {
            let swapped = |value: u16| if at.is_multiple_of(2) { value } else { value.swap_bytes() };
            let updated = checksum::replace(u16_at(tcp, 16)?, swapped(offered), swapped(limit));
            put_u16(tcp, 16, updated)
        }
    }
}

/// Where the value of the MSS option is among `options`.
fn mss_value(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *options.get(at)? {
            0 => return None,
            1 => at += 1,
            kind => match *options.get(at + 1)? {
                4 if kind == 2 => return (at + 4 <= options.len()).then_some(at + 2),
                0 | 1 => return None,
                len => at += usize::from(len),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{Recipe, check_checksums};

    fn syn(v4: bool, flags: u8, options: &[u8]) -> Vec<u8> {
        Recipe { v4, flags, options: options.to_vec(), payload: vec![7; 3], ..Recipe::tcp() }.packet()
    }

    fn clamped(mut packet: Vec<u8>) -> Vec<u8> {
        clamp(&mut packet, Mtu::DEFAULT, Checksum::Complete);
        packet
    }

    #[test]
    fn syns_are_lowered_to_what_fits_and_their_checksum_stays_right() {
        for (v4, limit) in [(true, 1380_u16), (false, 1360)] {
            for flags in [0x02, 0x12, 0xc2] {
                for (options, at) in [
                    (&[2, 4, 0x05, 0xb4][..], 2),
                    (&[4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 2, 4, 0x23, 0, 1, 3, 3, 7], 14),
                    (&[1, 2, 4, 0xff, 0xff, 3, 3, 7], 3),
                ] {
                    let packet = clamped(syn(v4, flags, options));
                    let value = if v4 { 40 } else { 60 } + at;
                    assert_eq!(packet[value..value + 2], limit.to_be_bytes(), "v4 {v4}, {options:?}");
                    check_checksums(&packet);
                }
            }
        }
    }

    #[test]
    fn a_partial_checksum_is_left_alone() {
        let mut packet = syn(true, 2, &[2, 4, 0xff, 0xff]);
        let before = packet.clone();
        clamp(&mut packet, Mtu::DEFAULT, Checksum::Partial);
        assert_eq!(packet[36..38], before[36..38]);
        assert_eq!(packet[42..44], 1380_u16.to_be_bytes());
    }

    #[test]
    fn nothing_else_is_changed() {
        let large = [2, 4, 0xff, 0xff];
        let cases = [
            syn(true, 0x10, &large),
            syn(true, 2, &[2, 4, 0x05, 0x64]),
            syn(false, 2, &[2, 4, 0, 0]),
            syn(true, 2, &[]),
            syn(true, 2, &[0, 0, 0, 0, 2, 4, 0xff, 0xff]),
            syn(true, 2, &[3, 0, 2, 4, 0xff, 0xff, 0, 0]),
            syn(true, 2, &[1, 1, 2, 4]),
            syn(true, 2, &[1, 1, 1, 2]),
            syn(true, 2, &[2, 8, 0xff, 0xff, 0xff, 0xff, 1, 1]),
        ];
        for packet in cases {
            assert_eq!(clamped(packet.clone()), packet);
        }
    }
}
