//! The header of a super-packet, with everything summed that its segments have in common.

use crate::packet::bytes::{put, put_u16, u16_at, u32_at};
use crate::packet::checksum::Sum;
use crate::packet::ip::{Fragment, Header, TCP, UDP, V6_LEN};
use crate::packet::vnet::{Gso, Vnet};

/// Longest header of a super-packet that is segmented: IPv4 needs 120, the rest is room for IPv6 extension headers.
pub(super) const MAX_HEADER: usize = 256;

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// One segment's place in its super-packet.
pub(super) struct Place<'b> {
    pub(super) index: u16,
    pub(super) offset: u32,
    pub(super) is_last: bool,
    pub(super) payload: &'b [u8],
}

/// What all segments share. The fields that differ are zero in `bytes` and left out of the sums.
#[derive(Debug)]
pub(super) struct Template {
    bytes: [u8; MAX_HEADER],
    len: usize,
    transport: usize,
    is_v4: bool,
    kind: Kind,
    id: u16,
    network: Sum,
    shared: Sum,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp { sequence: u32, flags: u8 },
    Udp,
}

impl Template {
    pub(super) const fn empty() -> Self {
        Self {
            bytes: [0; MAX_HEADER],
            len: 0,
            transport: 0,
            is_v4: true,
            kind: Kind::Udp,
            id: 0,
            network: Sum::ZERO,
            shared: Sum::ZERO,
        }
    }

    /// Takes the header of `packet`; `None` if it is not what `vnet` says.
    pub(super) fn take(&mut self, vnet: &Vnet, packet: &[u8], ip: &Header) -> Option<()> {
        self.transport = ip.header_len;
        self.is_v4 = ip.is_v4();
        self.kind = kind(vnet, packet, ip)?;
        self.len = ip.header_len + transport_header_len(self.kind, packet.get(ip.header_len..)?)?;
        if self.len >= packet.len() {
            return None;
        }
        let header = packet.get(..self.len)?;
        self.bytes.get_mut(..self.len)?.copy_from_slice(header);
        let pseudo = self.pseudo_without_length(vnet, packet, ip)?;
        self.blank()?;
        let (network, transport) = self.bytes.get(..self.len)?.split_at_checked(self.transport)?;
        self.network = Sum::of(network);
        self.shared = pseudo.bytes(transport);
        Some(())
    }

    /// Bytes of the header.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_tcp(&self) -> bool {
        matches!(self.kind, Kind::Tcp { .. })
    }

    /// Writes the finished header of the segment at `place`.
    pub(super) fn write(&self, place: &Place<'_>, out: &mut [u8]) -> Option<()> {
        let out = out.get_mut(..self.len)?;
        out.copy_from_slice(self.bytes.get(..self.len)?);
        let total = self.len + place.payload.len();
        self.write_network(total, place.index, out)?;
        let len = u16::try_from(total - self.transport).ok()?;
        let sum = self.shared.word(len).bytes(place.payload);
        let out = out.get_mut(self.transport..)?;
        match self.kind {
            Kind::Tcp { sequence, flags } => {
                let sequence = sequence.wrapping_add(place.offset);
                let flags = flags_of(flags, place);
                put(out, 4, sequence.to_be_bytes())?;
                put(out, 13, [flags])?;
                put_u16(out, 16, sum.long(sequence).word(u16::from(flags)).checksum())
            }
            Kind::Udp => {
                put_u16(out, 4, len)?;
                put_u16(out, 6, sum.word(len).udp_checksum())
            }
        }
    }

    fn write_network(&self, total: usize, index: u16, out: &mut [u8]) -> Option<()> {
        if !self.is_v4 {
            return put_u16(out, 4, u16::try_from(total - V6_LEN).ok()?);
        }
        let total = u16::try_from(total).ok()?;
        let id = self.id.wrapping_add(index);
        put_u16(out, 2, total)?;
        put_u16(out, 4, id)?;
        put_u16(out, 10, self.network.word(total).word(id).checksum())
    }

    /// From the checksum field where it is partial: with a routing header, the sum is over an address that is not
    /// the header's destination (RFC 8200, section 8.1).
    fn pseudo_without_length(&self, vnet: &Vnet, packet: &[u8], ip: &Header) -> Option<Sum> {
        if !vnet.needs_checksum {
            return Some(Sum::pseudo(ip.src, ip.dst, ip.protocol, 0));
        }
        let offset = if self.is_tcp() { 16 } else { 6 };
        if usize::from(vnet.checksum_start) != self.transport || vnet.checksum_offset != offset {
            return None;
        }
        let partial = u16_at(packet, self.transport + usize::from(offset))?;
        Some(Sum::ZERO.word(partial).word(!u16::try_from(ip.transport_len()).ok()?))
    }

    /// Reads the fields that differ from segment to segment, and zeroes them.
    fn blank(&mut self) -> Option<()> {
        if self.is_v4 {
            self.id = u16_at(&self.bytes, 4)?;
            put(&mut self.bytes, 2, [0; 4])?;
            put(&mut self.bytes, 10, [0; 2])?;
        } else {
            put(&mut self.bytes, 4, [0; 2])?;
        }
        let transport = self.bytes.get_mut(self.transport..)?;
        match self.kind {
            Kind::Tcp { .. } => {
                put(transport, 4, [0; 4])?;
                put(transport, 13, [0])?;
                put(transport, 16, [0; 2])
            }
            Kind::Udp => put(transport, 4, [0; 4]),
        }
    }
}

fn kind(vnet: &Vnet, packet: &[u8], ip: &Header) -> Option<Kind> {
    if ip.fragment != Fragment::No {
        return None;
    }
    match (vnet.gso, ip.is_v4(), ip.protocol) {
        (Gso::Tcp4, true, TCP) | (Gso::Tcp6, false, TCP) => {
            let tcp = packet.get(ip.header_len..)?;
            Some(Kind::Tcp { sequence: u32_at(tcp, 4)?, flags: *tcp.get(13)? })
        }
        (Gso::Udp, _, UDP) => Some(Kind::Udp),
        _ => None,
    }
}

fn transport_header_len(kind: Kind, transport: &[u8]) -> Option<usize> {
    match kind {
        Kind::Udp => Some(8),
        Kind::Tcp { .. } => {
            let len = usize::from(transport.get(12)? >> 4) * 4;
            (len >= 20).then_some(len)
        }
    }
}

/// CWR says "I have slowed down" once, FIN and PSH belong to the end (Linux, `tcp_gso_segment`).
const fn flags_of(flags: u8, place: &Place<'_>) -> u8 {
    let flags = if place.index == 0 { flags } else { flags & !CWR };
    if place.is_last { flags } else { flags & !FIN_PSH }
}
