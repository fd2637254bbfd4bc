//! Cuts an IPv4 packet that is too big, and may be fragmented, into fragments (RFC 791, section 2.3), in place.

use super::bytes::{put_u16, u16_at};
use super::checksum::Sum;
use super::cleartext::{SPARE, Window};
use super::ip::V4_LEN;
use super::segment::Refused;
use super::{Cleartext, Header, Mtu};

const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const MAX_HEADER: usize = 60;

/// An IPv4 header of up to 60 bytes.
#[derive(Debug)]
struct Copied {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

/// The fragments of one packet; all of them are ready from the start.
#[derive(Debug)]
pub struct Fragments<'p> {
    window: Window<'p>,
    first: Copied,
    later: Copied,
    /// Reserved bit, "more fragments" and offset of the packet as it came: it may be a fragment itself.
    field: u16,
    /// Payload bytes of each fragment but the last, a multiple of 8.
    stride: usize,
    /// Where the payload ends in the buffer.
    end: usize,
    next: usize,
}

impl<'p> Fragments<'p> {
    /// Takes the first `len` bytes of `buffer`, which has at least [`SPARE`] bytes more. Its transport checksum must
    /// be complete.
    ///
    /// # Errors
    ///
    /// [`Refused::TooBig`] for what must not be fragmented (IPv6, too), [`Refused::Malformed`].
    pub fn new(buffer: &'p mut [u8], len: usize, mtu: Mtu) -> Result<Self, Refused> {
        let packet = buffer.get(..len).ok_or(Refused::Malformed)?;
        let header = Header::parse(packet).ok_or(Refused::Malformed)?;
        if header.dont_fragment {
            return Err(Refused::TooBig { dont_fragment: true });
        }
        let field = u16_at(packet, 6).ok_or(Refused::Malformed)?;
        let reach = usize::from(field & OFFSET) * 8 + header.transport_len();
        let unaligned = field & MORE != 0 && !header.transport_len().is_multiple_of(8);
        if reach > usize::from(u16::MAX) || unaligned || buffer.len() < len + SPARE {
            return Err(Refused::Malformed);
        }
        let (first, later) = headers(buffer, header.header_len).ok_or(Refused::Malformed)?;
        let stride = (mtu.bytes() - header.header_len) & !7;
        let window = Window::new(buffer, mtu);
        Ok(Self { window, first, later, field, stride, end: header.total_len, next: 0 })
    }

    /// How many fragments are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        (self.end - self.first.len).div_ceil(self.stride).max(1) - self.next
    }

    fn header(&mut self, payload_len: usize) -> Option<&[u8]> {
        let is_last = self.remaining() == 1;
        let offset = u16::try_from(self.next * self.stride / 8).ok()?;
        let more = if is_last { self.field & MORE } else { MORE };
        let field = self.field & !(OFFSET | MORE) | more | ((self.field & OFFSET) + offset);
        let Copied { bytes, len } = if self.next == 0 { &mut self.first } else { &mut self.later };
        let header = bytes.get_mut(..*len)?;
        put_u16(header, 2, u16::try_from(*len + payload_len).ok()?)?;
        put_u16(header, 6, field)?;
        put_u16(header, 10, 0)?;
        put_u16(header, 10, Sum::of(header).checksum())?;
        Some(header)
    }
}

impl Cleartext for Fragments<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        if self.remaining() == 0 {
            return None;
        }
        let start = self.first.len + self.next * self.stride;
        let end = self.end.min(start + self.stride);
        self.header(end - start)?;
        let Copied { bytes, len } = if self.next == 0 { &self.first } else { &self.later };
        self.next += 1;
        self.window.lay(bytes.get(..*len)?, start..end)
    }

    fn left(&self) -> usize {
        self.remaining()
    }
}

/// The header of the first fragment, and that of the others: without the options that are not to be copied.
fn headers(packet: &[u8], len: usize) -> Option<(Copied, Copied)> {
    let mut first = Copied { bytes: [0; MAX_HEADER], len };
    first.bytes.get_mut(..len)?.copy_from_slice(packet.get(..len)?);
    let mut later = Copied { bytes: first.bytes, len: V4_LEN };
    later.bytes.get_mut(V4_LEN..)?.fill(0);
    let mut options = packet.get(V4_LEN..len)?;
    while let Some(option) = take_option(&mut options) {
        if option.first()? & 0x80 != 0 {
            later.bytes.get_mut(later.len..later.len + option.len())?.copy_from_slice(option);
            later.len += option.len();
        }
    }
    later.len = later.len.next_multiple_of(4);
    let words = u8::try_from(later.len / 4).ok()?;
    later.bytes[0] = 0x40 | words;
    Some((first, later))
}

/// The next option; none behind the end-of-list option or one with a wrong length.
fn take_option<'o>(options: &mut &'o [u8]) -> Option<&'o [u8]> {
    let len = match **options {
        [] | [0, ..] => return None,
        [1, ..] => 1,
        [_, len, ..] if len >= 2 => usize::from(len),
        _ => return None,
    };
    let (option, rest) = options.split_at_checked(len)?;
    *options = rest;
    Some(option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{Random, Recipe, check_network_checksum, with_spare};

    /// Puts fragments together again, in any order: the payload, and the first fragment's header.
    fn reassemble(fragments: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut payload, mut header, mut last_seen) = (vec![], vec![], false);
        for bytes in fragments {
            let parsed = Header::parse(bytes).unwrap();
            let field = u16_at(bytes, 6).unwrap();
            let at = usize::from(field & OFFSET) * 8;
            let part = &bytes[parsed.header_len..parsed.total_len];
            payload.resize(payload.len().max(at + part.len()), 0);
            payload[at..at + part.len()].copy_from_slice(part);
            last_seen |= field & MORE == 0;
            if at == 0 {
                header = bytes[..parsed.header_len].to_vec();
            }
            check_network_checksum(bytes);
        }
        (header, payload, last_seen)
    }

    fn cut(packet: &[u8], mtu: Mtu) -> Vec<Vec<u8>> {
        let mut buffer = with_spare(packet);
        let mut fragments = Fragments::new(&mut buffer, packet.len(), mtu).unwrap();
        let mut all = vec![];
        let count = fragments.remaining();
        while let Some(fragment) = fragments.next() {
            let total = Header::parse(fragment).unwrap().total_len;
            assert!(total <= mtu.bytes() && fragment.len() <= mtu.bytes());
            assert!(fragment.len().is_multiple_of(16) || fragment.len() == mtu.bytes());
            assert!(fragment[total..].iter().all(|b| *b == 0));
            all.push(fragment[..total].to_vec());
        }
        assert_eq!(all.len(), count);
        all
    }

    fn fragmentable(payload: usize, random: &mut Random) -> Vec<u8> {
        let recipe = Recipe { dont_fragment: false, payload: random.bytes(payload), ..Recipe::udp() };
        recipe.packet()
    }

    #[test]
    fn fragments_reassemble_to_the_original() {
        let mut random = Random::new(7);
        for _ in 0..500 {
            let mtu = Mtu::new(1280 + (random.below(300)) as u16).unwrap();
            let size = random.below(12_000);
            let packet = fragmentable(size, &mut random);
            let fragments = cut(&packet, mtu);
            let (_, payload, complete) = reassemble(&fragments);
            assert!(complete);
            assert_eq!(payload, packet[20..]);
        }
    }

    #[test]
    fn fragments_of_fragments_reassemble_to_the_original() {
        let mut random = Random::new(8);
        let packet = fragmentable(20_000, &mut random);
        let again: Vec<_> =
            cut(&packet, Mtu::new(4_000).unwrap()).iter().rev().flat_map(|f| cut(f, Mtu::MIN)).collect();
        assert!(again.len() > 15);
        let (_, payload, complete) = reassemble(&again);
        assert!(complete);
        assert_eq!(payload, packet[20..]);
    }

    #[test]
    fn the_largest_packet_is_cut() {
        let mut random = Random::new(9);
        let packet = fragmentable(65_535 - 28, &mut random);
        let (_, payload, _) = reassemble(&cut(&packet, Mtu::MIN));
        assert_eq!(payload, packet[20..]);
    }

    #[test]
    fn only_options_with_the_copy_flag_are_repeated() {
        let mut packet = fragmentable(3_000, &mut Random::new(10));
        let options = [7, 7, 4, 1, 2, 3, 4, 1, 0x94, 4, 0, 0, 0x88, 4, 9, 9]; // record route, NOP, router alert, stream
        packet.splice(20..20, options);
        let total = packet.len() as u16;
        (packet[0], packet[2], packet[3]) = (0x49, (total >> 8) as u8, total as u8);
        let fragments = cut(&packet, Mtu::DEFAULT);
        assert_eq!(fragments[0][20..36], options);
        for later in &fragments[1..] {
            assert_eq!(later[0], 0x47);
            assert_eq!(later[20..28], [0x94, 4, 0, 0, 0x88, 4, 9, 9]);
        }
        assert_eq!(reassemble(&fragments).1, packet[36..]);
    }

    #[test]
    fn what_must_not_be_fragmented_is_refused() {
        let mut buffer = with_spare(&Recipe { payload: vec![0; 2_000], ..Recipe::udp() }.packet());
        let len = buffer.len() - SPARE;
        let refused = Refused::TooBig { dont_fragment: true };
        assert_eq!(Fragments::new(&mut buffer, len, Mtu::MIN).unwrap_err(), refused);
        let v6 = Recipe { v4: false, payload: vec![0; 2_000], ..Recipe::udp() }.packet();
        assert_eq!(Fragments::new(&mut with_spare(&v6), v6.len(), Mtu::MIN).unwrap_err(), refused);
    }
}
