//! What a lane seals: inner packets one after the other, each padded for the wire.
//!
//! [`Segments`](super::segment::Segments) and [`Fragments`](super::fragment::Fragments) cut one packet in place
//! through the window here; [`Packets`] hands on packets that are ready.

use std::ops::Range;

use super::Mtu;
use super::bytes::put;

/// Spare bytes that a buffer must have behind its packet, for the padding.
pub const SPARE: usize = 16;

/// A source of inner packets for a lane.
pub trait Cleartext {
    /// The next inner packet, padded with zeros for the wire ([`padded_len`]). Valid until the next call.
    fn next(&mut self) -> Option<&[u8]>;

    /// How many there are left, at the most.
    fn left(&self) -> usize;
}

/// Packets that are finished and padded already.
#[derive(Debug)]
pub struct Packets<I: Iterator> {
    packets: I,
    current: Option<I::Item>,
}

impl<I: Iterator<Item: AsRef<[u8]>>> Packets<I> {
    /// Hands on what `packets` gives.
    pub fn new(packets: impl IntoIterator<IntoIter = I>) -> Self {
        Self { packets: packets.into_iter(), current: None }
    }
}

impl<I: Iterator<Item: AsRef<[u8]>>> Cleartext for Packets<I> {
    fn next(&mut self) -> Option<&[u8]> {
        self.current = self.packets.next();
        self.current.as_ref().map(AsRef::as_ref)
    }

    fn left(&self) -> usize {
        self.packets.size_hint().1.unwrap_or(usize::MAX)
    }
}

/// Bytes that an inner packet of `len` has on the wire: the next multiple of 16, but never beyond the MTU
/// (WireGuard paper, section 5.4.6).
#[must_use]
pub const fn padded_len(len: usize, mtu: Mtu) -> usize {
    let padded = len.next_multiple_of(16);
    if padded <= mtu.bytes() || len > mtu.bytes() { padded } else { mtu.bytes() }
}

/// Lays a header just before a piece of payload and zeros behind it, inside one packet's own buffer.
///
/// The header goes over bytes that were sealed before; what lies under the padding is put back by the next call.
#[derive(Debug)]
pub(super) struct Window<'p> {
    buffer: &'p mut [u8],
    mtu: Mtu,
    /// What was at `padding` before; nothing was touched while `padding` is none.
    saved: [u8; SPARE],
    padding: Option<usize>,
}

impl<'p> Window<'p> {
    pub(super) const fn new(buffer: &'p mut [u8], mtu: Mtu) -> Self {
        Self { buffer, mtu, saved: [0; SPARE], padding: None }
    }

    /// The buffer as it is now.
    pub(super) const fn buffer(&self) -> &[u8] {
        self.buffer
    }

    /// The same, to be changed where a piece was laid.
    pub(super) const fn buffer_mut(&mut self) -> &mut [u8] {
        self.buffer
    }

    /// The buffer with every payload byte that was not handed out yet as it was.
    pub(super) fn restored(&mut self) -> &[u8] {
        if let Some(at) = self.padding.take() {
            put(self.buffer, at, self.saved);
        }
        self.buffer
    }

    /// `header`, then the bytes of the buffer at `payload`, then padding.
    pub(super) fn lay(&mut self, header: &[u8], payload: Range<usize>) -> Option<&[u8]> {
        self.restored();
        let start = payload.start.checked_sub(header.len())?;
        self.buffer.get_mut(start..payload.start)?.copy_from_slice(header);
        self.saved = *self.buffer.get(payload.end..)?.first_chunk()?;
        put(self.buffer, payload.end, [0; SPARE])?;
        self.padding = Some(payload.end);
        let end = start + padded_len(payload.end.checked_sub(start)?, self.mtu);
        self.buffer.get(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_reaches_the_next_multiple_of_16_but_never_passes_the_mtu() {
        let mtu = Mtu::new(1420).unwrap();
        let cases = [(0, 0), (1, 16), (16, 16), (17, 32), (1408, 1408), (1409, 1420), (1420, 1420)];
        for (len, padded) in cases {
            assert_eq!(padded_len(len, mtu), padded, "{len}");
        }
    }

    #[test]
    fn ready_packets_come_in_order() {
        let ready: [&[u8]; 2] = [&[1], &[2, 2]];
        let mut packets = Packets::new(ready);
        assert_eq!(packets.next(), Some(&[1][..]));
        assert_eq!(packets.next(), Some(&[2, 2][..]));
        assert_eq!(packets.next(), None);
    }

    #[test]
    fn what_lies_under_the_padding_comes_back() {
        let mut buffer: Vec<u8> = (0..64).collect();
        let mut window = Window::new(&mut buffer, Mtu::DEFAULT);
        let laid = window.lay(&[0xaa; 4], 4..13).unwrap();
        assert_eq!((laid.len(), &laid[..5], &laid[12..]), (16, &[0xaa, 0xaa, 0xaa, 0xaa, 4][..], &[12, 0, 0, 0][..]));
        assert_eq!(&window.restored()[12..20], &[12, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!(window.lay(&[0; 5], 4..13), None);
        assert_eq!(window.lay(&[], 4..99), None);
    }
}
