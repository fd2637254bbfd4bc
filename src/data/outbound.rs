//! TUN -> UDP: read until empty, segment, seal under the lane's lock, send.
//!
//! ```text
//! Queue::read* -> Backlog -> by tunnel -> segments, checksums -> Lane::seal_batch -> sendmsg with UDP_SEGMENT
//!                            |                                    |
//!                            no tunnel, too big: ICMP back        no session: staged for a second
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::answers::Answers;
use super::backlog::{Backlog, Item};
use super::burst::Burst;
use super::counters::Counters;
use super::egress::Egress;
use super::handshake::HandshakeQueue;
use super::took::Took;
use crate::packet::cleartext::Cleartext;
use crate::packet::fragment::Fragments;
use crate::packet::segment::{self, Refused, SegmentScratch, Segments};
use crate::packet::vnet::Gso;
use crate::packet::{Header, Mtu, Reason, ecn, ip};
use crate::sys::tun::Queue;
use crate::sys::udp::MAX_BYTES;
use crate::tunnel::{Address, InFlight, Lane, Peer, SealBuffer, SealRefused, Table};

/// How long a worker waits for another one that has sealed but not yet sent (the replay window).
const AHEAD_WAIT: Duration = Duration::from_millis(20);

/// After such a silence a packet is alone, most likely, and goes before the queue is asked for more.
const ALONE: Duration = Duration::from_millis(1);

/// The way from one queue to the wire, and all that it owns. One thread at a time drives it.
pub(super) struct Outbound {
    pub(super) queue: Arc<Queue>,
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) backlog: Backlog,
    pub(super) way: Way,
    /// When there was something last.
    pub(super) last: Instant,
}

impl Outbound {
    /// Reads what is in the queue, and carries as much as is good for a turn.
    ///
    /// # Errors
    /// When the queue cannot be read; nothing was taken then.
    pub(super) fn turn(&mut self) -> io::Result<Took> {
        let now = Instant::now();
        let alone = !self.backlog.has_waiting() && now.duration_since(self.last) > ALONE;
        let (packets, bytes) = self.carry(if alone { 1 } else { usize::MAX }, now)?;
        Ok(if self.backlog.has_waiting() { Took::Much } else { Took::of(packets, bytes) })
    }

    /// Carries what waits still, and reads no more: nothing stays behind with a process that ends.
    pub(super) fn finish(&mut self) {
        while self.backlog.has_waiting() && self.carry(0, Instant::now()).is_ok() {}
    }

    /// Reads up to `most` packets and carries those of a turn: how many, and their bytes.
    fn carry(&mut self, most: usize, now: Instant) -> io::Result<(usize, usize)> {
        self.backlog.fill(most, |room| self.queue.read(room), &self.way.sealer.counters.drops)?;
        let (packets, bytes) = self.backlog.size();
        if packets > 0 {
            self.last = now;
            let table = self.table.load();
            self.way.sealer.sealed.fit(table.mtu());
            let (groups, arena) = self.backlog.parts();
            for items in groups {
                self.way.forward(&table, items, arena, now);
            }
        }
        Ok((packets, bytes))
    }
}

/// What holds for all packets of a turn to one tunnel.
#[derive(Clone, Copy)]
struct Turn<'t> {
    peer: &'t Peer,
    to: Option<&'t Address>,
    mtu: Mtu,
    tells_mtu: bool,
    now: Instant,
}

/// A worker's way from a packet to the lane.
pub(super) struct Way {
    pub(super) answers: Answers,
    pub(super) burst: Burst,
    pub(super) scratch: Box<SegmentScratch>,
    pub(super) sealer: Sealer,
}

impl Way {
    /// Sends `items`, tunnel by tunnel. The order within a tunnel is kept.
    fn forward(&mut self, table: &Table, items: &[Item], arena: &mut [u8], now: Instant) {
        let mut tunnels: [Option<&Arc<Peer>>; Backlog::ITEMS] = [None; Backlog::ITEMS];
        for (item, tunnel) in items.iter().zip(&mut tunnels) {
            *tunnel = self.tunnel(table, item.packet(arena), now);
        }
        for first in 0..items.len() {
            let Some(peer) = tunnels[first] else { continue };
            let to = peer.load_address();
            let turn = Turn { peer, to: to.as_deref(), mtu: table.mtu(), tells_mtu: table.tells_mtu(), now };
            for (item, tunnel) in items.iter().zip(&mut tunnels).skip(first) {
                if tunnel.take_if(|other| Arc::ptr_eq(other, peer)).is_some() {
                    self.carry(&turn, item, arena);
                }
            }
            self.flush(&turn, arena);
        }
    }

    /// The tunnel that carries `packet`; without one the sender is told.
    fn tunnel<'t>(&mut self, table: &'t Table, packet: &[u8], now: Instant) -> Option<&'t Arc<Peer>> {
        let Some(destination) = ip::destination(packet) else {
            self.drop_one(Reason::OutMalformed);
            return None;
        };
        let tunnel = table.route(destination);
        if tunnel.is_none() && is_multicast(destination) {
            self.drop_one(Reason::OutMulticast);
        } else if tunnel.is_none() {
            self.drop_one(Reason::OutNoTunnel);
            self.answers.unreachable(packet, now);
        }
        tunnel
    }

    /// Takes one packet as it was read: a single one joins the burst, a super-packet goes at once.
    fn carry(&mut self, turn: &Turn<'_>, item: &Item, arena: &mut [u8]) {
        let packet = item.packet(arena);
        let Some(to) = turn.to else {
            self.drop_one(Reason::OutNoEndpoint);
            return self.answers.unreachable(packet, turn.now);
        };
        if is_own_datagram(packet, to) {
            return self.drop_one(Reason::OutLoop);
        }
        let carried = if item.vnet.gso == Gso::None {
            self.single(turn, item, arena)
        } else {
            self.flush(turn, arena);
            self.super_packet(turn, item, arena)
        };
        if let Err(refused) = carried {
            self.drop_one(refused.reason());
            if let Refused::TooBig { .. } = refused {
                self.too_big(turn, item.packet(arena));
            }
        }
    }

    fn single(&mut self, turn: &Turn<'_>, item: &Item, arena: &mut [u8]) -> Result<(), Refused> {
        match segment::single(&item.vnet, item.buffer(arena), item.len, turn.mtu) {
            Ok(single) => {
                if !self.burst.takes(single.header.ecn) {
                    self.flush(turn, arena);
                }
                let range = item.start..item.start + single.wire_len;
                self.burst.push(range, single.header.ecn);
                Ok(())
            }
            Err(Refused::TooBig { dont_fragment: false }) => {
                self.flush(turn, arena);
                self.sealer.send_fragments(turn, item.buffer(arena), item.len)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Seals and sends the burst.
    fn flush(&mut self, turn: &Turn<'_>, arena: &[u8]) {
        if !self.burst.is_empty() {
            self.sealer.send(turn, &mut self.burst.packets(arena), self.burst.ecn());
            self.burst.clear();
        }
    }

    /// Seals and sends the segments of one super-packet, as many at a time as one send takes.
    fn super_packet(&mut self, turn: &Turn<'_>, item: &Item, arena: &mut [u8]) -> Result<(), Refused> {
        let buffer = item.buffer(arena);
        let mut segments = match Segments::new(&item.vnet, buffer, item.len, turn.mtu, &mut self.scratch) {
            Err(Refused::TooBig { dont_fragment: false }) => return self.segments_in_fragments(turn, item, arena),
            other => other?,
        };
        if segments.recut() && turn.tells_mtu {
            // As long as it is as its sender made it.
            self.answers.too_big(segments.packet(), turn.mtu, turn.now);
        }
        let ecn = segments.header().ecn;
        let at_a_time = Lane::BATCH.min(MAX_BYTES / (segments.wire_len() + Lane::OVERHEAD));
        while segments.prepare(at_a_time) > 0 {
            self.sealer.send(turn, &mut segments, ecn);
        }
        Ok(())
    }

    /// Seals and sends the segments of a super-packet that are too big each in fragments of its own.
    fn segments_in_fragments(&mut self, turn: &Turn<'_>, item: &Item, arena: &mut [u8]) -> Result<(), Refused> {
        let buffer = item.buffer(arena);
        let mut segments = Segments::new(&item.vnet, buffer, item.len, Mtu::MAX, &mut self.scratch)?;
        while segments.prepare(segment::MAX_SEGMENTS) > 0 {
            while let Some((segment, len)) = segments.next_alone() {
                self.sealer.send_fragments(turn, segment, len)?;
            }
        }
        Ok(())
    }

    fn too_big(&mut self, turn: &Turn<'_>, packet: &[u8]) {
        if turn.tells_mtu {
            self.answers.too_big(packet, turn.mtu, turn.now);
        }
    }

    fn drop_one(&self, reason: Reason) {
        self.sealer.counters.drops.add(reason, 1);
    }
}

/// A worker's way through the lane to the wire.
pub(super) struct Sealer {
    pub(super) worker: usize,
    pub(super) egress: Egress,
    pub(super) handshakes: HandshakeQueue,
    pub(super) counters: Arc<Counters>,
    pub(super) sealed: SealBuffer,
}

impl Sealer {
    /// Takes up to [`Lane::BATCH`] packets: sealed and sent, staged, or dropped.
    fn send(&mut self, turn: &Turn<'_>, packets: &mut impl Cleartext, ecn: u8) {
        self.sealed.clear();
        match self.seal(turn, packets) {
            Ok(in_flight) => {
                turn.peer.counters.add_sent(in_flight.sealed() as u64, in_flight.bytes() as u64);
                self.counters.drops.add(Reason::OutTooBig, in_flight.oversized() as u64);
                if let Some(to) = turn.to {
                    self.egress.send_batch(turn.peer, to, &self.sealed, ecn, &self.counters.drops);
                }
                drop(in_flight);
            }
            Err(SealRefused::NoSession) => self.stage(turn, packets),
            Err(SealRefused::Stale | SealRefused::Exhausted) => self.drop_all(packets, Reason::OutStale),
            Err(SealRefused::Ahead) => self.drop_all(packets, Reason::OutSendBusy),
        }
    }

    /// Seals and sends an IPv4 packet that is too big in fragments: the first `len` bytes of `buffer`.
    fn send_fragments(&mut self, turn: &Turn<'_>, buffer: &mut [u8], len: usize) -> Result<(), Refused> {
        let ecn = ecn::of(buffer);
        let mut fragments = Fragments::new(buffer, len, turn.mtu)?;
        for _ in 0..fragments.remaining().div_ceil(Lane::BATCH) {
            self.send(turn, &mut fragments, ecn);
        }
        Ok(())
    }

    /// Seals, waiting for workers that have sealed earlier datagrams of this lane but not sent them yet.
    fn seal<'t>(&mut self, turn: &Turn<'t>, packets: &mut impl Cleartext) -> Result<InFlight<'t>, SealRefused> {
        let mut since = None;
        loop {
            match turn.peer.lane.seal_batch(self.worker, turn.now, packets, &mut self.sealed) {
                Err(SealRefused::Ahead) if since.get_or_insert_with(Instant::now).elapsed() < AHEAD_WAIT => {
                    thread::yield_now();
                }
                result => return result,
            }
        }
    }

    /// Keeps the packets for the session that the handshake thread is asked for.
    fn stage(&self, turn: &Turn<'_>, packets: &mut impl Cleartext) {
        while let Some(packet) = packets.next() {
            if let Err(reason) = turn.peer.stage(turn.now, packet) {
                self.counters.drops.add(reason, 1);
            }
        }
        if turn.peer.is_worth_a_tick(turn.now) {
            self.handshakes.wake();
        }
    }

    fn drop_all(&self, packets: &mut impl Cleartext, reason: Reason) {
        while packets.next().is_some() {
            self.counters.drops.add(reason, 1);
        }
    }
}

fn is_multicast(destination: IpAddr) -> bool {
    destination.is_multicast() || destination == Ipv4Addr::BROADCAST
}

/// Whether `packet` is an outer datagram of this very tunnel: routing has led it back into the interface.
fn is_own_datagram(packet: &[u8], to: &Address) -> bool {
    ip::destination(packet) == Some(to.remote.ip())
        && Header::parse(packet).is_some_and(|header| {
            header.protocol == ip::UDP && header.destination_port(packet) == Some(to.remote.port())
        })
}
