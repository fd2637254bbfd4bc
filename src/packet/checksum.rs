//! The Internet checksum (RFC 1071): wide adds, folded once; and its incremental update (RFC 1624).

use std::net::IpAddr;

/// Bytes summed at a time: eight lanes of 32 bits, which the compiler turns into vector adds.
const BLOCK: usize = 32;

/// A one's complement sum that was not folded yet.
///
/// Holds words in memory order: byte order does not matter to the sum until it is folded (RFC 1071, 2(B)).
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Of nothing.
    pub const ZERO: Self = Self(0);

    /// The sum of `bytes`; an odd last byte counts as if a zero followed.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::default().bytes(bytes)
    }

    /// The sum of the pseudo-header of TCP, UDP (RFC 9293, 3.1) or, over IPv6, ICMPv6 (RFC 8200, 8.1).
    #[must_use]
    pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: u16) -> Self {
        address(src).plus(address(dst)).word(u16::from(protocol)).word(len)
    }

    /// With `bytes` added; everything before them had an even length.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let mut lanes = [0_u64; BLOCK / 4];
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let (words, odd) = rest.as_chunks::<4>();
        let tail: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        Self(self.0 + lanes.iter().sum::<u64>() + tail + last_bytes(odd))
    }

    /// With a number added as it would stand in the packet.
    #[must_use]
    pub const fn word(self, value: u16) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// With a number added as it would stand in the packet.
    #[must_use]
    pub const fn long(self, value: u32) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// The sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The 16-bit one's complement sum, not inverted. 0xffff over data that includes a right checksum.
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 48) + ((sum >> 32) & 0xffff) + ((sum >> 16) & 0xffff) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        u16::from_be((sum & 0xffff) as u16)
    }

    /// What goes into the checksum field of IPv4, TCP and ICMP.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// What goes into the checksum field of UDP, where 0 would mean "none" (RFC 768).
    #[must_use]
    pub const fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// `checksum` after the word `old` of its data became `new` (RFC 1624, equation 3).
#[must_use]
pub const fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    Sum(0).word(!checksum).word(!old).word(new).checksum()
}

fn address(address: IpAddr) -> Sum {
    match address {
        IpAddr::V4(a) => Sum::of(&a.octets()),
        IpAddr::V6(a) => Sum::of(&a.octets()),
    }
}

/// Up to three bytes, as the start of a word with zeros behind.
fn last_bytes(bytes: &[u8]) -> u64 {
    let mut word = [0; 4];
    word.iter_mut().zip(bytes).for_each(|(w, b)| *w = *b);
    u64::from(u32::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::Random;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn wide_sums_equal_the_naive_one_at_every_length() {
        let mut random = Random::new(1);
        for len in 0..300 {
            let bytes = random.bytes(len);
            assert_eq!(Sum::of(&bytes).fold(), naive(&bytes), "{len} bytes");
        }
        let ones = vec![0xff; 65_535];
        assert_eq!(Sum::of(&ones).fold(), naive(&ones));
        assert_eq!(Sum::default().fold(), 0);
    }

    #[test]
    fn replacing_a_word_equals_summing_again() {
        let mut random = Random::new(2);
        for _ in 0..1_000 {
            let mut bytes = random.bytes(40);
            let before = Sum::of(&bytes).checksum();
            let old = u16::from_be_bytes([bytes[6], bytes[7]]);
            let new = random.next() as u16;
            bytes[6..8].copy_from_slice(&new.to_be_bytes());
            assert_eq!(replace(before, old, new), Sum::of(&bytes).checksum());
        }
    }

    #[test]
    fn a_udp_checksum_is_never_zero() {
        assert_eq!(Sum::default().word(0xffff).checksum(), 0);
        assert_eq!(Sum::default().word(0xffff).udp_checksum(), 0xffff);
    }
}
