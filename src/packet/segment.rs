//! One packet as read from the TUN, a super-packet or a single one, into inner packets ready to be sealed.
//!
//! In place: each segment's header is written just before its payload, over the payload that was sealed before.
//! The sums are made in [`Segments::prepare`], so that what runs under the lane's lock only copies headers.
//! The caller is the outbound loop.

mod template;
#[cfg(test)]
pub(in crate::packet) mod tests;

use std::ops::Range;

use super::bytes::{put, put_u16};
use super::checksum::Sum;
use super::cleartext::{SPARE, Window, padded_len};
use super::mss::{self, Checksum};
use super::vnet::{Gso, Vnet};
use super::{Cleartext, Header, Mtu, Reason};
use template::{MAX_HEADER, Place, Template};

/// Segments that are prepared at a time, at the most.
pub const MAX_SEGMENTS: usize = 64;

/// Why a packet is not carried as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Not valid IP, or not what its vnet header says, or without [`SPARE`] bytes behind.
    Malformed,
    /// Larger than the tunnel's MTU. Its checksum is complete.
    TooBig {
        /// It must not be fragmented, or cannot: its sender gets an ICMP. Otherwise
        /// [`Fragments`](super::fragment::Fragments) carries it.
        dont_fragment: bool,
    },
}

impl Refused {
    /// What it is counted as.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Malformed => Reason::OutMalformed,
            Self::TooBig { .. } => Reason::OutTooBig,
        }
    }
}

/// A packet that is no super-packet, ready to be sealed.
#[derive(Clone, Copy, Debug)]
pub struct Single {
    /// Its header.
    pub header: Header,
    /// Bytes of the buffer to seal: the packet and its padding.
    pub wire_len: usize,
}

/// Finishes a packet that is no super-packet: MSS clamped, checksum completed, padding written behind it.
/// `buffer` holds `len` bytes of packet and at least [`SPARE`] more. For bursts of single packets, which are then
/// handed to the lane as [`Packets`](super::cleartext::Packets).
///
/// # Errors
///
/// As [`Segments::new`]; a super-packet is [`Refused::Malformed`] here.
pub fn single(vnet: &Vnet, buffer: &mut [u8], len: usize, mtu: Mtu) -> Result<Single, Refused> {
    let Some(header) = parse(buffer, len) else { return Err(Refused::Malformed) };
    if vnet.gso != Gso::None {
        return Err(Refused::Malformed);
    }
    complete(vnet, buffer, &header, mtu)?;
    let wire_len = padded_len(header.total_len, mtu);
    put(buffer, header.total_len, [0; SPARE]).ok_or(Refused::Malformed)?;
    Ok(Single { header, wire_len })
}

/// Room for prepared headers, about 17 KB; one a worker, used again for each packet.
#[derive(Debug)]
pub struct SegmentScratch {
    template: Template,
    headers: [[u8; MAX_HEADER]; MAX_SEGMENTS],
}

impl SegmentScratch {
    /// Empty, on the heap.
    #[must_use]
    pub fn new() -> Box<Self> {
        Box::new(Self { template: Template::empty(), headers: [[0; MAX_HEADER]; MAX_SEGMENTS] })
    }
}

/// The segments of one packet. Call [`prepare`](Self::prepare), seal what it offers, and again until it gives 0.
#[derive(Debug)]
pub struct Segments<'p> {
    window: Window<'p>,
    scratch: &'p mut SegmentScratch,
    header: Header,
    mtu: Mtu,
    /// Bytes of the header that each segment gets; 0 for a single packet, which keeps its own.
    header_len: usize,
    /// Payload bytes of each segment but the last.
    stride: usize,
    count: usize,
    next: usize,
    /// The segments that `scratch` holds headers for; `next` lies in it or at its end.
    prepared: Range<usize>,
    recut: bool,
}

impl<'p> Segments<'p> {
    /// Takes a packet without its vnet header: the first `len` bytes of `buffer`, which has at least [`SPARE`] bytes
    /// more. Clamps the MSS of a SYN and completes the checksum of a single packet at once.
    ///
    /// # Errors
    ///
    /// See [`Refused`]. A TCP super-packet is never too big: it is cut smaller, see [`recut`](Self::recut). One of UDP
    /// over IPv4 may come without DF: its segments, with [`Mtu::MAX`], are then for
    /// [`Fragments`](super::fragment::Fragments), see [`next_alone`](Self::next_alone).
    pub fn new(
        vnet: &Vnet,
        buffer: &'p mut [u8],
        len: usize,
        mtu: Mtu,
        scratch: &'p mut SegmentScratch,
    ) -> Result<Self, Refused> {
        let Some(header) = parse(buffer, len) else { return Err(Refused::Malformed) };
        let whole = header.total_len;
        let (header_len, stride, recut) = match vnet.gso {
            Gso::None => {
                complete(vnet, buffer, &header, mtu)?;
                (0, whole, false)
            }
            Gso::Tcp4 | Gso::Tcp6 | Gso::Udp => {
                let packet = buffer.get(..whole).ok_or(Refused::Malformed)?;
                scratch.template.take(vnet, packet, &header).ok_or(Refused::Malformed)?;
                let (stride, recut) = stride(vnet, &scratch.template, &header, mtu)?;
                (scratch.template.len(), stride, recut)
            }
        };
        let count = (whole - header_len).div_ceil(stride);
        let window = Window::new(buffer, mtu);
        Ok(Self { window, scratch, header, mtu, header_len, stride, count, next: 0, prepared: 0..0, recut })
    }

    /// The packet's IP header as it came: destination, ECN, protocol.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The packet as it came, for an ICMP about it. Only whole until the first segment is taken.
    #[must_use]
    pub fn packet(&self) -> &[u8] {
        self.window.buffer().get(..self.header.total_len).unwrap_or_default()
    }

    /// Prepares up to `max` further segments (1 to [`MAX_SEGMENTS`]) and says how many there are to take;
    /// 0 = finished. Prepares nothing while some are left from before.
    pub fn prepare(&mut self, max: usize) -> usize {
        if self.remaining() == 0 {
            let end = self.count.min(self.next + max.min(MAX_SEGMENTS));
            self.prepared = self.next..end;
            if self.header_len > 0 && self.write_headers().is_none() {
                self.prepared.end = self.next;
                self.count = self.next;
            }
        }
        self.remaining()
    }

    /// How many segments [`next`](Cleartext::next) will give before [`prepare`](Self::prepare) must be called again.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.prepared.end - self.next
    }

    /// How many segments are left, prepared or not.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.count - self.next
    }

    /// Bytes of each segment but the last, padding included. The last one is never longer.
    #[must_use]
    pub const fn wire_len(&self) -> usize {
        let full = self.header_len + self.stride;
        padded_len(if full < self.header.total_len { full } else { self.header.total_len }, self.mtu)
    }

    /// The kernel's segments did not fit the tunnel and were cut smaller: tell the sender, now and then.
    #[must_use]
    pub const fn recut(&self) -> bool {
        self.recut
    }

    /// The next segment as a packet of its own, to be fragmented in place: its length, and its buffer with [`SPARE`]
    /// bytes behind it.
    pub fn next_alone(&mut self) -> Option<(&mut [u8], usize)> {
        let payload = self.payload();
        self.next()?;
        let start = payload.start - self.header_len;
        let buffer = self.window.buffer_mut().get_mut(start..payload.end + SPARE)?;
        Some((buffer, payload.end - start))
    }

    /// Where the next segment's payload lies.
    fn payload(&self) -> Range<usize> {
        let start = self.header_len + self.next * self.stride;
        start..self.header.total_len.min(start + self.stride)
    }

    fn write_headers(&mut self) -> Option<()> {
        let packet = self.window.restored().get(..self.header.total_len)?;
        let SegmentScratch { template, headers } = &mut *self.scratch;
        let start = self.header_len + self.prepared.start * self.stride;
        let payloads = packet.get(start..)?.chunks(self.stride);
        for ((index, payload), out) in self.prepared.clone().zip(payloads).zip(headers) {
            let place = Place {
                index: u16::try_from(index).ok()?,
                offset: u32::try_from(index * self.stride).ok()?,
                is_last: index + 1 == self.count,
                payload,
            };
            template.write(&place, out)?;
        }
        Some(())
    }
}

impl Cleartext for Segments<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        if self.remaining() == 0 {
            return None;
        }
        let header = self.scratch.headers.get(self.next - self.prepared.start)?.get(..self.header_len)?;
        let payload = self.payload();
        self.next += 1;
        self.window.lay(header, payload)
    }

    fn left(&self) -> usize {
        self.remaining()
    }
}

#[inline]
fn parse(buffer: &[u8], len: usize) -> Option<Header> {
    let has_spare = len.checked_add(SPARE).is_some_and(|end| end <= buffer.len());
    Header::parse(buffer.get(..len).filter(|_| has_spare)?)
}

/// How many payload bytes each segment gets, and whether that is less than the kernel wanted.
fn stride(vnet: &Vnet, template: &Template, header: &Header, mtu: Mtu) -> Result<(usize, bool), Refused> {
    let wanted = usize::from(vnet.segment_size);
    if wanted == 0 {
        return Err(Refused::Malformed);
    }
    let too_big = Refused::TooBig { dont_fragment: header.dont_fragment || template.is_tcp() };
    let room = mtu.bytes().checked_sub(template.len()).filter(|room| *room > 0).ok_or(too_big)?;
    if wanted <= room || header.total_len <= mtu.bytes() {
        return Ok((wanted, false));
    }
    if template.is_tcp() { Ok((room, true)) } else { Err(too_big) }
}

fn complete(vnet: &Vnet, buffer: &mut [u8], header: &Header, mtu: Mtu) -> Result<(), Refused> {
    let packet = buffer.get_mut(..header.total_len).ok_or(Refused::Malformed)?;
    let checksum = if vnet.needs_checksum { Checksum::Partial } else { Checksum::Complete };
    mss::clamp_parsed(packet, header, mtu, checksum);
    if vnet.needs_checksum {
        complete_checksum(vnet, packet, header.header_len).ok_or(Refused::Malformed)?;
    }
    if header.total_len > mtu.bytes() {
        return Err(Refused::TooBig { dont_fragment: header.dont_fragment });
    }
    Ok(())
}

/// The field holds the pseudo-header's sum, so summing over it completes it. 0 becomes 0xffff, which is the same
/// number and which UDP needs (Linux does so for every protocol, `skb_checksum_help`). It lies behind the IP header,
/// which was looked at already.
fn complete_checksum(vnet: &Vnet, packet: &mut [u8], header_len: usize) -> Option<()> {
    let start = usize::from(vnet.checksum_start);
    let covered = packet.get_mut(start..).filter(|_| start >= header_len)?;
    let checksum = Sum::of(covered).udp_checksum();
    put_u16(covered, usize::from(vnet.checksum_offset), checksum)
}
