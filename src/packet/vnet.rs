//! The header that a TUN with IFF_VNET_HDR puts before each packet: `struct virtio_net_hdr`, 10 bytes, in this
//! machine's byte order (`include/uapi/linux/virtio_net.h`).

/// Bytes of the header.
pub const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_ECN: u8 = 0x80;

/// What kind of super-packet follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gso {
    /// A single packet.
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of equal size (`UDP_L4`), over either.
    Udp,
}

/// A parsed header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vnet {
    /// Kind of super-packet.
    pub gso: Gso,
    /// A TCP super-packet with CWR set, which belongs on its first segment only.
    pub gso_ecn: bool,
    /// The checksum field holds the pseudo-header's sum and must be completed.
    pub needs_checksum: bool,
    /// A hint only, and sometimes wrong: take the header's length from the packet.
    pub header_len: u16,
    /// Payload bytes of each segment but the last.
    pub segment_size: u16,
    /// Where the sum starts, in bytes from the packet's start.
    pub checksum_start: u16,
    /// Where the checksum field is, in bytes from `checksum_start`.
    pub checksum_offset: u16,
}

impl Vnet {
    /// A single packet that needs nothing.
    pub const PLAIN: Self = Self {
        gso: Gso::None,
        gso_ecn: false,
        needs_checksum: false,
        header_len: 0,
        segment_size: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// Parses the start of what was read from a TUN; `None` if too short or of a kind that we never asked for.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = *bytes.first_chunk::<LEN>()?;
        let gso = match kind & !GSO_ECN {
            0 => Gso::None,
            1 => Gso::Tcp4,
            4 => Gso::Tcp6,
            5 => Gso::Udp,
            _ => return None,
        };
        Some(Self {
            gso,
            gso_ecn: kind & GSO_ECN != 0,
            needs_checksum: flags & NEEDS_CSUM != 0,
            header_len: u16::from_ne_bytes([h0, h1]),
            segment_size: u16::from_ne_bytes([s0, s1]),
            checksum_start: u16::from_ne_bytes([c0, c1]),
            checksum_offset: u16::from_ne_bytes([o0, o1]),
        })
    }

    /// The header as the kernel expects it.
    #[must_use]
    pub const fn encode(&self) -> [u8; LEN] {
        let kind = match self.gso {
            Gso::None => 0,
            Gso::Tcp4 => 1,
            Gso::Tcp6 => 4,
            Gso::Udp => 5,
        };
        let flags = if self.needs_checksum { NEEDS_CSUM } else { 0 };
        let kind = if self.gso_ecn { kind | GSO_ECN } else { kind };
        let [h0, h1] = self.header_len.to_ne_bytes();
        let [s0, s1] = self.segment_size.to_ne_bytes();
        let [c0, c1] = self.checksum_start.to_ne_bytes();
        let [o0, o1] = self.checksum_offset.to_ne_bytes();
        [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_way_there_and_back() {
        for gso in [Gso::None, Gso::Tcp4, Gso::Tcp6, Gso::Udp] {
            for (gso_ecn, needs_checksum) in [(false, false), (true, false), (false, true), (true, true)] {
                let vnet = Vnet {
                    gso,
                    gso_ecn,
                    needs_checksum,
                    header_len: 54,
                    segment_size: 1380,
                    checksum_start: 20,
                    checksum_offset: 16,
                };
                assert_eq!(Vnet::parse(&vnet.encode()), Some(vnet));
            }
        }
        assert_eq!(Vnet::PLAIN.encode(), [0; LEN]);
    }

    #[test]
    fn short_or_unknown_headers_are_refused() {
        assert_eq!(Vnet::parse(&[0; 9]), None);
        assert_eq!(Vnet::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None); // UFO, long gone
        assert_eq!(Vnet::parse(&[2; 16]), None);
    }
}
