//! Single packets to one tunnel, sealed together.

use std::ops::Range;

use super::backlog::Backlog;
use crate::packet::cleartext::{Cleartext, Packets};
use crate::tunnel::Lane;

/// Complete and padded where they lie.
pub(super) struct Burst {
    ranges: [Range<usize>; Backlog::ITEMS],
    count: usize,
    ecn: u8,
}

impl Burst {
    pub(super) fn new() -> Self {
        Self { ranges: std::array::from_fn(|_| 0..0), count: 0, ecn: 0 }
    }

    /// Whether a packet marked `ecn` fits: one send carries one mark, and one batch is sealed.
    pub(super) const fn takes(&self, ecn: u8) -> bool {
        self.count == 0 || (self.ecn == ecn && self.count < Lane::BATCH)
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
