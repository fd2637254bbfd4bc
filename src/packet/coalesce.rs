//! Merges opened packets into super-packets, so that the kernel takes up to 64 KB with one write.
//!
//! Rules as in Linux's own receive offload (`net/core/gro.c`, `net/ipv4/tcp_offload.c`): what comes out, segmented,
//! is what went in. Packets of one flow keep their order: at most one group of a flow is open, always its latest.
//! The caller is the inbound loop.

mod candidate;
mod group;
#[cfg(test)]
pub(in crate::packet) mod tests;

use std::ops::Range;

use super::vnet::{self, Gso, Vnet};
use super::{Header, bytes::put_u16};
use candidate::{Between, Candidate, Class, Flow, classify};
use group::Group;

/// Packets for which room is reserved; more may be pushed, at the price of an allocation.
pub const CAPACITY: usize = 1024;

/// Packets in one super-packet, at the most (Linux takes no more UDP datagrams in one).
pub const MAX_MERGED: usize = 64;

/// Flows that can be merged side by side; one more closes the oldest.
const MAX_OPEN: usize = 16;

/// What became of a write that [`Coalescer::flush`] asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// The kernel took it.
    Whole,
    /// It did not, and may not understand super-packets.
    NotMerged,
    /// It did not, for another reason.
    Not,
}

/// Collects opened packets and hands them over merged. Reusable; allocates nothing up to [`CAPACITY`] packets.
#[derive(Debug)]
pub struct Coalescer {
    tcp: bool,
    udp: bool,
    /// In the order of their first packets.
    groups: Vec<Group>,
    payloads: Vec<Payload>,
    /// Groups that may still grow, oldest first: indices into `groups`.
    open: Vec<usize>,
    pieces: Vec<Range<usize>>,
}

/// One piece of a group: of its first packet all of it, of the others the payload.
#[derive(Debug)]
struct Payload {
    range: Range<usize>,
    next: Option<usize>,
}

impl Coalescer {
    /// Merges TCP and UDP as far as the kernel takes such super-packets; without either, packets pass as they are.
    #[must_use]
    pub fn new(tcp: bool, udp: bool) -> Self {
        Self {
            tcp,
            udp,
            groups: Vec::with_capacity(CAPACITY),
            payloads: Vec::with_capacity(CAPACITY),
            open: Vec::with_capacity(MAX_OPEN),
            pieces: Vec::with_capacity(MAX_MERGED),
        }
    }

    /// How many packets were pushed since the last flush.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Whether nothing was pushed since the last flush.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// Takes the packet at `range` of `arena`. Padding behind an IP packet is left out; what is not IP passes as it is.
    pub fn push(&mut self, arena: &[u8], range: Range<usize>) {
        let Some(bytes) = arena.get(range.clone()) else { return };
        let header = Header::parse(bytes);
        let packet = header.and_then(|h| bytes.get(..h.total_len)).unwrap_or(bytes);
        let range = range.start..range.start + packet.len();
        let class = header.map_or(Class::Other, |header| classify(packet, &header, self.tcp, self.udp));
        match class {
            Class::Mergeable(candidate) => self.merge(arena, range, &candidate),
            Class::Barrier(flow) => {
                self.close(&flow);
                self.stand(range);
            }
            Class::Fragment(between) => {
                self.close_between(&between);
                self.stand(range);
            }
            Class::Other => self.stand(range),
        }
    }

    /// Hands over all that was pushed: for each packet or super-packet a vnet header, the arena, and the pieces of it
    /// to be written behind the header. Headers of super-packets are rewritten in `arena`, which must be the one that
    /// the packets were pushed from. Empty afterwards.
    ///
    /// A super-packet that is [`Written::NotMerged`] is handed over again as the packets that it was made of; if those
    /// are taken, no packets of its protocol are merged any more. Whether that has come to pass.
    pub fn flush(
        &mut self,
        arena: &mut [u8],
        mut write: impl FnMut(&[u8; vnet::LEN], &[u8], &[Range<usize>]) -> Written,
    ) -> bool {
        let before = (self.tcp, self.udp);
        for group in &self.groups {
            gather(&self.payloads, group, &mut self.pieces);
            let merged = self.pieces.first().and_then(|first| group.finish(arena.get_mut(first.clone())?));
            let written = write(&merged.unwrap_or(Vnet::PLAIN).encode(), arena, &self.pieces);
            let (Written::NotMerged, Some(vnet)) = (written, merged) else { continue };
            group.restore(arena, &mut self.pieces);
            let mut taken = true;
            for single in self.pieces.chunks(1) {
                taken &= write(&Vnet::PLAIN.encode(), arena, single) == Written::Whole;
            }
            let merges = if vnet.gso == Gso::Udp { &mut self.udp } else { &mut self.tcp };
            *merges &= !taken;
        }
        self.groups.clear();
        self.payloads.clear();
        self.open.clear();
        before != (self.tcp, self.udp)
    }

    fn merge(&mut self, arena: &[u8], range: Range<usize>, candidate: &Candidate) {
        if let Some(place) = self.place_of(&candidate.flow) {
            if self.append(arena, &range, candidate, place) {
                return;
            }
            self.open.remove(place);
        }
        let index = self.begin(range, Some(*candidate));
        if candidate.push {
            return;
        }
        if self.open.len() == MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(index);
    }

    /// Appends to the open group at `place`, if the candidate continues it.
    fn append(&mut self, arena: &[u8], range: &Range<usize>, candidate: &Candidate, place: usize) -> bool {
        let Some(group) = self.open.get(place).and_then(|index| self.groups.get_mut(*index)) else { return false };
        let Some(first) = self.payloads.get(group.first) else { return false };
        let options = |packet: &Range<usize>| {
            let options = candidate.transport + candidate.flow.header_len()..candidate.header_len;
            arena.get(packet.start + options.start..packet.start + options.end)
        };
        if !group.accepts(candidate) || options(&first.range) != options(range) {
            return false;
        }
        let index = self.payloads.len();
        self.payloads.push(Payload { range: range.start + candidate.header_len..range.end, next: None });
        if let Some(last) = self.payloads.get_mut(group.last) {
            last.next = Some(index);
        }
        if group.take(candidate, index) {
            self.open.remove(place);
        }
        true
    }

    fn stand(&mut self, range: Range<usize>) {
        self.begin(range, None);
    }

    fn begin(&mut self, range: Range<usize>, candidate: Option<Candidate>) -> usize {
        self.groups.push(Group::new(self.payloads.len(), candidate));
        self.payloads.push(Payload { range, next: None });
        self.groups.len() - 1
    }

    fn place_of(&self, flow: &Flow) -> Option<usize> {
        self.open.iter().position(|index| self.groups.get(*index).is_some_and(|group| group.is_of(flow)))
    }

    fn close(&mut self, flow: &Flow) {
        if let Some(place) = self.place_of(flow) {
            self.open.remove(place);
        }
    }

    fn close_between(&mut self, between: &Between) {
        let groups = &self.groups;
        self.open.retain(|index| !groups.get(*index).is_some_and(|group| group.is_between(between)));
    }
}

/// The pieces of `group`, in order.
fn gather(payloads: &[Payload], group: &Group, pieces: &mut Vec<Range<usize>>) {
    pieces.clear();
    let mut at = Some(group.first);
    while let Some(payload) = at.and_then(|index| payloads.get(index)) {
        pieces.push(payload.range.clone());
        at = payload.next;
    }
}
