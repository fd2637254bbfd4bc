//! What one turn of an outbound worker reads from its queue: up to [`Batch::ITEMS`] packets in one arena.

use std::io;
use std::ops::Range;

use crate::packet::Reason;
use crate::packet::cleartext::{Cleartext, Packets, SPARE};
use crate::packet::reason::DropCounters;
use crate::packet::vnet::{self, Vnet};
use crate::sys::tun::Queue;

/// A super-packet is at most this long, with its virtio-net header, in bytes.
const LARGEST: usize = vnet::LEN + 65_535;
/// Room for three of the largest packets; more would not stay in a core's cache.
const ARENA: usize = 3 * (LARGEST + SPARE);

/// How much a thread took at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Took {
    Nothing,
    /// Whether there is more, `poll` tells.
    Little,
    /// Enough to keep a thread at work.
    Much,
}

impl Took {
    /// Half a batch is much, or the bytes of one whole super-packet.
    pub(super) const fn of(packets: usize, bytes: usize) -> Self {
        match packets {
            0 => Self::Nothing,
            _ if packets >= Batch::ITEMS / 2 || bytes >= LARGEST => Self::Much,
            _ => Self::Little,
        }
    }
}

/// One packet as the kernel handed it over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) vnet: Vnet,
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Item {
    const EMPTY: Self = Self { vnet: Vnet::PLAIN, start: 0, len: 0 };

    pub(super) fn packet<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        arena.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// The packet, and the spare bytes behind it.
    pub(super) fn buffer<'a>(&self, arena: &'a mut [u8]) -> &'a mut [u8] {
        arena.get_mut(self.start..self.start + self.len + SPARE).unwrap_or_default()
    }
}

/// A turn's packets, in the order in which they were read.
pub(super) struct Batch {
    arena: Box<[u8]>,
    items: [Item; Self::ITEMS],
    count: usize,
    /// Where the next packet would lie.
    end: usize,
}

impl Batch {
    /// Packets read in one turn, at the most.
    pub(super) const ITEMS: usize = 64;

    pub(super) fn new() -> Self {
        Self { arena: vec![0; ARENA].into_boxed_slice(), items: [Item::EMPTY; Self::ITEMS], count: 0, end: 0 }
    }

    /// Reads until the queue is empty, or the batch has `most` packets or is full. What is no packet is counted in `drops`.
    ///
    /// # Errors
    /// When the kernel refuses. An error comes alone: what was read before it is handed over first.
    pub(super) fn fill(&mut self, most: usize, queue: &Queue, drops: &DropCounters) -> io::Result<()> {
        (self.count, self.end) = (0, 0);
        for _ in 0..most.min(Self::ITEMS) {
            // The spare bytes behind the packet must lie in the arena, too.
            let Some(room) = self.arena.get_mut(self.end..self.end + LARGEST + SPARE) else { break };
            let read = match queue.read(room.split_at_mut(LARGEST).0) {
                Ok(read) if read >= vnet::LEN => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                _ if self.count > 0 => break,
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Err(error),
            };
            match (room.get(..read).and_then(Vnet::parse), self.items.get_mut(self.count)) {
                (Some(vnet), Some(item)) => {
                    *item = Item { vnet, start: self.end + vnet::LEN, len: read - vnet::LEN };
                    self.count += 1;
                    self.end = (self.end + read + SPARE).next_multiple_of(SPARE);
                }
                _ => drops.add(Reason::OutMalformed, 1),
            }
        }
        Ok(())
    }

    /// How much it is.
    pub(super) fn took(&self) -> Took {
        Took::of(self.count, self.end)
    }

    /// The packets read, and the arena that they lie in.
    pub(super) fn parts(&mut self) -> (&[Item], &mut [u8]) {
        (self.items.get(..self.count).unwrap_or_default(), &mut self.arena)
    }
}

/// Single packets to one tunnel, complete and padded where they lie, sealed together.
pub(super) struct Burst {
    ranges: [Range<usize>; Batch::ITEMS],
    count: usize,
    ecn: u8,
}

impl Burst {
    pub(super) fn new() -> Self {
        Self { ranges: std::array::from_fn(|_| 0..0), count: 0, ecn: 0 }
    }

    /// Whether a packet marked `ecn` fits a burst of at most `limit`: one send carries one mark.
    pub(super) fn takes(&self, ecn: u8, limit: usize) -> bool {
        self.count == 0 || (self.ecn == ecn && self.count < limit)
    }

    /// Adds the packet that lies in `range`, padding included.
    pub(super) fn push(&mut self, range: Range<usize>, ecn: u8) {
        if let Some(slot) = self.ranges.get_mut(self.count) {
            *slot = range;
            (self.count, self.ecn) = (self.count + 1, ecn);
        }
    }

    /// Forgets all packets.
    pub(super) const fn clear(&mut self) {
        self.count = 0;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The ECN mark of all of them.
    pub(super) const fn ecn(&self) -> u8 {
        self.ecn
    }

    /// The packets, for sealing.
    pub(super) fn packets<'a>(&'a self, arena: &'a [u8]) -> impl Cleartext {
        let ranges = self.ranges.get(..self.count).unwrap_or_default();
        Packets::new(ranges.iter().filter_map(|range| arena.get(range.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_is_half_a_batch_or_the_bytes_of_a_super_packet() {
        assert_eq!(Took::of(0, 0), Took::Nothing);
        assert_eq!(Took::of(1, 100), Took::Little);
        assert_eq!(Took::of(31, 3100), Took::Little);
        assert_eq!(Took::of(32, 3200), Took::Much);
        assert_eq!(Took::of(1, LARGEST), Took::Much);
    }
}
