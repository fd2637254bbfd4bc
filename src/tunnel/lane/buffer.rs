//! Where sealed datagrams and opened packets lie: fixed memory, reused batch after batch.

use std::ops::Range;

use super::Lane;
use crate::packet::Mtu;
use crate::tunnel::{Admitted, wire};

/// The largest datagram that UDP can bring, rounded up.
const LARGEST_DATAGRAM: usize = 65_536;

/// Sealed datagrams, back to back, ready for one segmented send.
pub struct SealBuffer {
    bytes: Box<[u8]>,
    used: usize,
    lengths: Vec<usize>,
    datagrams: usize,
    largest: usize,
}

impl SealBuffer {
    /// With room for `datagrams` of inner packets up to `mtu`.
    #[must_use]
    pub fn new(datagrams: usize, mtu: Mtu) -> Self {
        let largest = mtu.bytes() + Lane::OVERHEAD;
        // boringtun wants 148 bytes also for the smallest packet.
        let bytes = vec![0; datagrams * largest + wire::INITIATION].into_boxed_slice();
        Self { bytes, used: 0, lengths: Vec::with_capacity(datagrams), datagrams, largest }
    }

    /// Makes room for inner packets up to `mtu`, another than before; forgets all datagrams then.
    pub fn fit(&mut self, mtu: Mtu) {
        if self.largest != mtu.bytes() + Lane::OVERHEAD {
            *self = Self::new(self.datagrams, mtu);
        }
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.used = 0;
        self.lengths.clear();
    }

    /// How many datagrams there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// How many more datagrams fit for sure.
    #[must_use]
    pub fn room(&self) -> usize {
        self.datagrams - self.lengths.len()
    }

    /// The datagrams, in the order they were sealed.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes();
        self.lengths.iter().map_while(move |len| {
            let (datagram, behind) = rest.split_at_checked(*len)?;
            rest = behind;
            Some(datagram)
        })
    }

    /// Length of each datagram, in bytes.
    #[must_use]
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// All datagrams, back to back.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// Where the datagram of an inner packet of `len` bytes may be written; none = it is larger than the MTU.
    pub(super) fn spare(&mut self, len: usize) -> Option<&mut [u8]> {
        if len.checked_add(Lane::OVERHEAD)? > self.largest {
            return None;
        }
        self.bytes.get_mut(self.used..)
    }

    /// A datagram of `len` bytes was written into [`SealBuffer::spare`].
    pub(super) fn push(&mut self, len: usize) {
        self.used += len;
        self.lengths.push(len);
    }
}

/// Opened inner packets in one arena. None overlaps another, and none is written again before `clear`.
pub struct OpenBuffer {
    arena: Box<[u8]>,
    used: usize,
    packets: Vec<Range<usize>>,
    /// Bytes of the datagram of each packet.
    datagrams: Vec<usize>,
    keepalives: usize,
    limit: usize,
}

impl OpenBuffer {
    /// With room for at least `packets` packets and `bytes` of datagrams.
    #[must_use]
    pub fn new(packets: usize, bytes: usize) -> Self {
        let arena = vec![0; bytes + LARGEST_DATAGRAM].into_boxed_slice();
        let (ranges, datagrams) = (Vec::with_capacity(packets), Vec::with_capacity(packets));
        Self { arena, used: 0, packets: ranges, datagrams, keepalives: 0, limit: packets }
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets.clear();
        self.datagrams.clear();
    }

    /// Bytes of the datagram that brought the packet at `index`.
    #[must_use]
    pub fn datagram_len(&self, index: usize) -> usize {
        self.datagrams.get(index).copied().unwrap_or_default()
    }

    /// Bytes of the keepalives opened since this was last asked.
    pub fn take_keepalives(&mut self) -> usize {
        std::mem::take(&mut self.keepalives)
    }

    /// The memory that [`OpenBuffer::packets`] points into.
    #[must_use]
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// The same, to be changed in place.
    pub fn arena_mut(&mut self) -> &mut [u8] {
        &mut self.arena
    }

    /// Where each packet lies in the arena, in the order they came.
    #[must_use]
    pub fn packets(&self) -> &[Range<usize>] {
        &self.packets
    }

    /// A packet that was admitted, to be changed in place.
    pub fn admitted_mut(&mut self, admitted: &Admitted) -> &mut [u8] {
        self.arena.get_mut(admitted.range()).unwrap_or_default()
    }

    /// The packets themselves.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().filter_map(|range| self.arena.get(range.clone()))
    }

    /// Whether it must be emptied before another datagram can be opened.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.packets.len() >= self.limit || self.arena.len() - self.used < LARGEST_DATAGRAM
    }

    /// With `packet` in it, as if just opened.
    #[cfg(test)]
    pub(in crate::tunnel) fn holding(packet: &[u8]) -> Self {
        let mut buffer = Self::new(1, packet.len());
        if let Some(place) = buffer.spare().get_mut(..packet.len()) {
            place.copy_from_slice(packet);
        }
        buffer.push(packet.len(), packet.len());
        buffer
    }

    /// Where the next datagram may be opened.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        self.arena.get_mut(self.used..).unwrap_or_default()
    }

    /// Keeps the first `len` bytes of [`OpenBuffer::spare`] as a packet. Opening a datagram of `datagram` bytes has
    /// written so many at the most.
    pub(super) fn push(&mut self, len: usize, datagram: usize) {
        self.packets.push(self.used..self.used + len);
        self.datagrams.push(datagram);
        self.used += datagram;
    }

    /// A datagram of `datagram` bytes held nothing.
    pub(super) fn push_keepalive(&mut self, datagram: usize) {
        self.keepalives += datagram;
    }
}
