//! Packets that go to the kernel as one.

use std::ops::Range;

use super::candidate::{Between, Candidate, Flow};
use super::{MAX_MERGED, put_u16};
use crate::packet::checksum::Sum;
use crate::packet::ip::{V4_LEN, V6_LEN};
use crate::packet::vnet::{Gso, Vnet};

const MAX_TOTAL: usize = 65_535;
const PSH: u8 = 0x08;

/// One packet, or several that are merged.
#[derive(Debug)]
pub(super) struct Group {
    /// First and last of its payloads: indices.
    pub(super) first: usize,
    pub(super) last: usize,
    /// Its first packet, if others may follow.
    candidate: Option<Candidate>,
    count: usize,
    /// Bytes in all, as one packet.
    total: usize,
    last_id: u16,
    /// How the IPv4 identification goes on, 0 or 1; known from the second packet.
    id_step: Option<u16>,
    push: bool,
}

impl Group {
    pub(super) fn new(payload: usize, candidate: Option<Candidate>) -> Self {
        let (total, last_id, push) = candidate.map_or((0, 0, false), |c| (c.header_len + c.payload_len, c.id, c.push));
        Self { first: payload, last: payload, candidate, count: 1, total, last_id, id_step: None, push }
    }

    pub(super) fn is_of(&self, flow: &Flow) -> bool {
        self.candidate.as_ref().is_some_and(|c| c.flow == *flow)
    }

    pub(super) fn is_between(&self, between: &Between) -> bool {
        self.candidate.as_ref().is_some_and(|c| c.flow.between == *between)
    }

    /// Whether `next`, of the same flow, continues this group; TCP's options are the caller's to compare.
    pub(super) fn accepts(&self, next: &Candidate) -> bool {
        let Some(first) = &self.candidate else { return false };
        next.shape == first.shape
            && next.header_len == first.header_len
            && next.payload_len <= first.payload_len
            && self.total + next.payload_len <= MAX_TOTAL
            && !next.reduced
            && self.is_next_sequence(first, next)
            && self.is_next_id(next)
    }

    /// Counts `next` in, whose payload has `index`. Says whether the group is complete.
    pub(super) fn take(&mut self, next: &Candidate, index: usize) -> bool {
        if self.id_step.is_none() {
            self.id_step = Some(next.id.wrapping_sub(self.last_id));
        }
        self.last_id = next.id;
        self.last = index;
        self.count += 1;
        self.total += next.payload_len;
        self.push |= next.push;
        let is_short = self.candidate.as_ref().is_some_and(|first| next.payload_len < first.payload_len);
        is_short || self.push || self.count == MAX_MERGED
    }

    /// Rewrites the header in `packet`, the group's first, for all of it. `None` for a single packet.
    pub(super) fn finish(&self, packet: &mut [u8]) -> Option<Vnet> {
        let first = self.candidate.as_ref().filter(|_| self.count > 1)?;
        let flow = &first.flow;
        let len = u16::try_from(self.total - first.transport).ok()?;
        rewrite_network(flow, packet, self.total)?;
        let addresses = packet.get(if flow.is_v4() { 12..V4_LEN } else { 8..V6_LEN })?;
        let pseudo = Sum::of(addresses).word(u16::from(flow.protocol)).word(len).fold();
        let transport = packet.get_mut(first.transport..)?;
        let checksum_offset = if flow.is_tcp() {
            *transport.get_mut(13)? |= if self.push { PSH } else { 0 };
            16
        } else {
            put_u16(transport, 4, len)?;
            6
        };
        put_u16(transport, usize::from(checksum_offset), pseudo)?;
        Some(Vnet {
            gso: gso(flow),
            gso_ecn: first.reduced,
            needs_checksum: true,
            header_len: u16::try_from(first.header_len).ok()?,
            segment_size: u16::try_from(first.payload_len).ok()?,
            checksum_start: u16::try_from(first.transport).ok()?,
            checksum_offset,
        })
    }

    /// Undoes [`finish`](Self::finish): the group's first packet is as it came, and each of `pieces` a whole packet.
    pub(super) fn restore(&self, arena: &mut [u8], pieces: &mut [Range<usize>]) -> Option<()> {
        let first = self.candidate.as_ref()?;
        let (head, others) = pieces.split_first_mut()?;
        for other in others {
            // Of these, the headers were only left out.
            other.start -= first.header_len;
        }
        let (flow, len) = (&first.flow, first.header_len + first.payload_len);
        let packet = arena.get_mut(head.clone())?;
        rewrite_network(flow, packet, len)?;
        let addresses = packet.get(if flow.is_v4() { 12..V4_LEN } else { 8..V6_LEN })?;
        let transport_len = u16::try_from(len - first.transport).ok()?;
        let pseudo = Sum::of(addresses).word(u16::from(flow.protocol)).word(transport_len);
        let transport = packet.get_mut(first.transport..)?;
        if flow.is_tcp() {
            // One that has it is never followed by others.
            *transport.get_mut(13)? &= !PSH;
            put_u16(transport, 16, 0)?;
            put_u16(transport, 16, pseudo.bytes(transport).checksum())
        } else {
            put_u16(transport, 4, transport_len)?;
            put_u16(transport, 6, 0)?;
            put_u16(transport, 6, pseudo.bytes(transport).udp_checksum())
        }
    }

    fn is_next_sequence(&self, first: &Candidate, next: &Candidate) -> bool {
        let payload = u32::try_from(self.total - first.header_len).unwrap_or_default();
        !first.flow.is_tcp() || next.sequence == first.sequence.wrapping_add(payload)
    }

    /// Segmenting counts the identification up. Where it means nothing because of DF (RFC 6864), it may also stand.
    fn is_next_id(&self, next: &Candidate) -> bool {
        let step = next.id.wrapping_sub(self.last_id);
        let is_step = step == 1 || step == 0 && next.shape.dont_fragment;
        !next.flow.is_v4() || is_step && self.id_step.is_none_or(|before| before == step)
    }
}

fn rewrite_network(flow: &Flow, packet: &mut [u8], total: usize) -> Option<()> {
    if !flow.is_v4() {
        return put_u16(packet, 4, u16::try_from(total - V6_LEN).ok()?);
    }
    put_u16(packet, 2, u16::try_from(total).ok()?)?;
    put_u16(packet, 10, 0)?;
    let sum = Sum::of(packet.get(..V4_LEN)?);
    put_u16(packet, 10, sum.checksum())
}

const fn gso(flow: &Flow) -> Gso {
    match (flow.is_tcp(), flow.is_v4()) {
        (true, true) => Gso::Tcp4,
        (true, false) => Gso::Tcp6,
        (false, _) => Gso::Udp,
    }
}
