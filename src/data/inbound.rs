//! UDP -> TUN: receive with UDP_GRO, open under the lane's lock, admit, coalesce, one gather write each.
//!
//! ```text
//! Socket::receive* -> runs -> by session -> Lane::open_batch -> admit, ECN, MSS -> TunWriter -> Queue::write
//!                      |                      |
//!                      handshakes: gate       roam, on authenticated datagrams only
//! ```

use std::io;
use std::iter;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::Changed;
use super::counters::Counters;
use super::duty::Duty;
use super::egress::Egress;
use super::handshake::HandshakeQueue;
use super::pace::Pace;
use super::stop::Stop;
use super::took::Took;
use super::trouble::{PAUSE, Trouble};
use super::waits::{QUEUE, SOCKETS, Waits, of_worker};
use super::writer::TunWriter;
use crate::packet::mss::{self, Checksum};
use crate::packet::{Reason, ecn, ip};
use crate::sys::poll::Ready;
use crate::sys::udp::{Group, Receive, Received, Socket};
use crate::tunnel::gate::Verdict;
use crate::tunnel::wire::{self, Kind};
use crate::tunnel::{Address, Lane, Local, OpenBuffer, Peer, Roam, Table};

/// Receive calls on one socket before the other one gets its turn.
const RECEIVES: usize = 4;

/// One inbound worker and all that it owns.
pub(super) struct Inbound {
    pub(super) worker: usize,
    pub(super) sockets: Arc<ArcSwap<Group>>,
    pub(super) duty: Arc<Duty>,
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) stop: Arc<Stop>,
    pub(super) trouble: Arc<Trouble>,
    pub(super) pace: Pace,
    pub(super) waits: Waits,
    pub(super) receive: Receive,
    pub(super) way: Way,
}

impl Inbound {
    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        let mut ready = Ready::ALL;
        while !self.stop.is_set() {
            self.way.counters.beat();
            ready = self.turn(ready).unwrap_or_else(|error| self.pause(&error));
        }
        self.duty.finish();
    }

    /// Carries what is there where something is `ready`, and sleeps until something is again.
    fn turn(&mut self, ready: Ready) -> io::Result<Ready> {
        let sockets = self.sockets.load();
        // What fails there is no reason to carry nothing.
        let followed = self.waits.follow(&sockets);
        if self.carry(&sockets, ready)? == Took::Much {
            self.pace.much(Instant::now());
            return Ok(Ready::ALL);
        }
        followed?;
        self.sleep()
    }

    /// Takes what there is where something is `ready`, and carries the answers. An error if that was all.
    fn carry(&mut self, sockets: &Group, ready: Ready) -> io::Result<Took> {
        let table = self.table.load();
        let (mut took, mut failed) = (Took::Nothing, None);
        for (_, socket) in of_worker(sockets, self.worker).enumerate().filter(|(at, _)| ready.has(SOCKETS + at)) {
            match drain(socket, &mut self.receive, &table, &mut self.way) {
                Ok(some) => took = took.max(some),
                Err(error) => failed = Some(error),
            }
        }
        drop(table);
        if took > Took::Nothing || ready.has(QUEUE) {
            took = took.max(self.duty.stand_in());
        }
        failed.filter(|_| took == Took::Nothing).map_or(Ok(took), Err)
    }

    /// Until something is ready: which of them.
    fn sleep(&mut self) -> io::Result<Ready> {
        self.pace.rest(Instant::now());
        self.waits.set_queue(self.duty.queue(), !self.duty.is_away())?;
        self.waits.wait(super::HEARTBEAT)
    }

    /// Something fails that should not: not at full speed, at least.
    fn pause(&self, error: &io::Error) -> Ready {
        self.trouble.receiving(error);
        thread::sleep(PAUSE);
        Ready::ALL
    }
}

/// Takes what `socket` has, up to a bound. An error when all there was were errors.
fn drain(socket: &Socket, receive: &mut Receive, table: &Table, way: &mut Way) -> io::Result<Took> {
    let (mut took, mut failed) = (Took::Nothing, None);
    let (mut datagrams, mut bytes) = (0, 0);
    for _ in 0..RECEIVES {
        match socket.receive(receive) {
            Ok(_) => {
                for run in receive.runs() {
                    bytes += run.bytes.len();
                    datagrams += run.bytes.len().div_ceil(run.stride);
                }
                let all_data = way.take(table, receive.runs(), Instant::now());
                took = Took::of(datagrams, bytes);
                if receive.has_more() && all_data {
                    // Delivered together, merged.
                    continue;
                }
                way.deliver();
                if took < Took::Much {
                    // The answer first; whether there is more, the poll tells.
                    return Ok(took);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                way.deliver();
                return Ok(took);
            }
            // An ICMP error of an earlier send, most likely: the datagrams behind it are fine.
            Err(error) => failed = Some(error),
        }
    }
    way.deliver();
    failed.filter(|_| took == Took::Nothing).map_or(Ok(Took::Much), Err)
}

/// A worker's way from a datagram to the interface, with its buffers.
pub(super) struct Way {
    pub(super) writer: TunWriter,
    pub(super) egress: Egress,
    pub(super) handshakes: HandshakeQueue,
    pub(super) counters: Arc<Counters>,
    pub(super) changed: Changed,
    pub(super) opened: OpenBuffer,
}

impl Way {
    /// What one call has received: whether all of it was transport data. Runs that go on with each other pass the lane
    /// together.
    fn take<'r>(&mut self, table: &Table, runs: impl Iterator<Item = Received<'r>>, now: Instant) -> bool {
        let mut all_data = true;
        let mut pieces = runs.flat_map(pieces).peekable();
        while let Some(first) = pieces.next() {
            let local = first.to.map(|(addr, interface)| Local { addr, interface });
            let from = Address { remote: first.from, local };
            if first.bytes.first_chunk() == Some(&TRANSPORT) {
                let others = iter::from_fn(|| pieces.next_if(|next| goes_on(&first, next)));
                let datagrams = iter::once(first).chain(others).flat_map(|piece| piece.bytes.chunks(piece.stride));
                self.open(table, datagrams, &from, first.ecn, now);
            } else {
                self.knock(table, first.bytes, from);
                all_data = false;
            }
        }
        all_data
    }

    /// Datagrams of one session: open, admit, and keep for [`Way::deliver`].
    fn open<'d>(
        &mut self,
        table: &Table,
        datagrams: impl Iterator<Item = &'d [u8]>,
        from: &Address,
        ecn: u8,
        now: Instant,
    ) {
        let mut datagrams = datagrams.peekable();
        let index = datagrams.peek().copied().and_then(wire::receiver_index);
        let Some(peer) = index.and_then(|index| table.by_index(index)) else {
            let reason = if index.is_some() { Reason::InUnknownIndex } else { Reason::InMalformed };
            return self.counters.drops.add(reason, datagrams.count() as u64);
        };
        while datagrams.peek().is_some() {
            if self.opened.is_full() {
                self.deliver();
            }
            let before = self.opened.packets().len();
            let some = datagrams.by_ref().take(Lane::BATCH);
            let roam = peer.lane.open_batch(now, some, from, &mut self.opened, &self.counters.drops);
            if let Some(roam) = roam {
                self.heard(peer, roam);
            }
            self.admit(table, peer, before, ecn);
        }
    }

    /// The peer is alive, and here.
    fn heard(&self, peer: &Peer, roam: Roam) {
        if peer.roam(roam) {
            (self.changed)();
        }
        if peer.has_staged() {
            self.handshakes.wake();
        }
    }

    /// Checks what was opened since `before` and gives it to the writer.
    fn admit(&mut self, table: &Table, peer: &Peer, before: usize, outer_ecn: u8) {
        let (mut packets, mut bytes) = (0, 0);
        let mut wire = self.opened.take_keepalives();
        for index in before..self.opened.packets().len() {
            let admitted = table.admit(peer, &self.opened, index).and_then(|admitted| {
                let packet = self.opened.admitted_mut(&admitted);
                ecn::decapsulate(outer_ecn, packet)?;
                mss::clamp(packet, table.mtu(), Checksum::Complete);
                bytes += ip::total_len(packet) as u64;
                Ok(admitted)
            });
            match admitted {
                Ok(admitted) => {
                    packets += 1;
                    wire += self.opened.datagram_len(index);
                    self.writer.push(self.opened.arena(), &admitted);
                }
                Err(reason) => self.counters.drops.add(reason, 1),
            }
        }
        peer.counters.add_received(packets, bytes);
        peer.counters.add_wire_received(wire as u64);
    }

    /// Writes what was admitted into the interface.
    fn deliver(&mut self) {
        self.writer.flush(self.opened.arena_mut(), &self.counters.drops);
        self.opened.clear();
    }

    /// A handshake message: only what passes the gate costs more than a hash.
    fn knock(&self, table: &Table, message: &[u8], from: Address) {
        let mut cookie = [0; wire::COOKIE];
        let dropped = match wire::kind(message) {
            Some(Kind::Initiation) => self.gate(table, message, from, &mut cookie),
            Some(Kind::Response | Kind::Cookie) if !is_ours(table, message) => Err(Reason::InUnknownIndex),
            Some(Kind::Response | Kind::Cookie) => self.gate(table, message, from, &mut cookie),
            Some(Kind::Transport) | None => Err(Reason::InMalformed),
        };
        if let Err(reason) = dropped {
            self.counters.drops.add(reason, 1);
        }
    }

    fn gate(
        &self,
        table: &Table,
        message: &[u8],
        from: Address,
        cookie: &mut [u8; wire::COOKIE],
    ) -> Result<(), Reason> {
        match table.gate().admit(from.remote.ip(), message, cookie) {
            Verdict::Pass => {
                let stranger = wire::kind(message) == Some(Kind::Initiation);
                self.handshakes.offer(message, from, stranger)
            }
            Verdict::Proven => self.handshakes.offer(message, from, false),
            Verdict::Cookie(len) => {
                let reply = cookie.get(..len).unwrap_or_default();
                // Never waited for: data waits behind it.
                self.egress.send_one(&from, reply, Duration::ZERO, &self.counters.drops);
                Err(Reason::InUnderLoad)
            }
            Verdict::Drop(reason) => Err(reason),
        }
    }
}

/// How every transport datagram begins (WireGuard paper, section 5.4.6).
const TRANSPORT: [u8; 4] = [4, 0, 0, 0];
/// Type and receiver index.
const SESSION: usize = 8;

/// A run, cut where its session changes; other messages are each alone.
fn pieces(run: Received<'_>) -> impl Iterator<Item = Received<'_>> {
    let mut rest = run.bytes;
    iter::from_fn(move || {
        let (bytes, after) = split_session(rest, run.stride);
        rest = after;
        (!bytes.is_empty()).then_some(Received { bytes, ..run })
    })
}

/// Whether datagrams of one session go on in `next`, which came the same way.
fn goes_on(first: &Received<'_>, next: &Received<'_>) -> bool {
    let session = |piece: &Received<'_>| piece.bytes.first_chunk::<SESSION>().copied();
    let way = |piece: &Received<'_>| (piece.from, piece.to, piece.ecn);
    session(first).is_some() && session(first) == session(next) && way(first) == way(next)
}

/// Cuts off the leading datagrams of one session; of other messages, one.
fn split_session(run: &[u8], stride: usize) -> (&[u8], &[u8]) {
    let session = run.get(..SESSION);
    let same = |datagram: &&[u8]| session.is_some() && datagram.get(..SESSION) == session;
    let count = if run.first_chunk() == Some(&TRANSPORT) { run.chunks(stride).take_while(same).count() } else { 1 };
    run.split_at((count.max(1) * stride).min(run.len()))
}

fn is_ours(table: &Table, message: &[u8]) -> bool {
    wire::receiver_index(message).is_some_and(|index| table.by_index(index).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(head: [u8; 8], len: usize) -> Vec<u8> {
        let mut datagram = head.to_vec();
        datagram.resize(len, 0);
        datagram
    }

    #[test]
    fn a_run_is_split_where_the_session_changes() {
        let (a, b) = ([4, 0, 0, 0, 1, 1, 1, 1], [4, 0, 0, 0, 2, 1, 1, 1]);
        let run = [datagram(a, 64), datagram(a, 64), datagram(b, 40)].concat();
        let (first, rest) = split_session(&run, 64);
        assert_eq!((first.len(), rest.len()), (128, 40));
        assert_eq!(split_session(rest, 64), (rest, &[][..]));
    }

    fn run(bytes: &[u8]) -> Received<'_> {
        Received { bytes, stride: 64, from: ([192, 0, 2, 1], 9).into(), to: None, ecn: 0 }
    }

    #[test]
    fn a_run_goes_on_in_one_of_the_same_session_from_the_same_place() {
        let (a, b) = ([4, 0, 0, 0, 1, 1, 1, 1], [4, 0, 0, 0, 2, 1, 1, 1]);
        let (one, other) = ([datagram(a, 64), datagram(b, 64)].concat(), datagram(b, 40));
        let parts: Vec<_> = [&one[..], &other[..], &[]].into_iter().flat_map(|bytes| pieces(run(bytes))).collect();
        assert_eq!(parts.iter().map(|piece| piece.bytes.len()).collect::<Vec<_>>(), [64, 64, 40]);
        assert!(!goes_on(&parts[0], &parts[1]) && goes_on(&parts[1], &parts[2]));
        assert!(!goes_on(&parts[1], &Received { ecn: 3, ..parts[2] }));
        assert!(!goes_on(&parts[1], &Received { from: ([192, 0, 2, 2], 9).into(), ..parts[2] }));
        assert!(!goes_on(&run(&[4, 0, 0, 0]), &run(&[4, 0, 0, 0])));
    }

    #[test]
    fn other_messages_go_one_by_one_and_short_ones_are_not_lost() {
        let initiation = datagram([1, 0, 0, 0, 9, 9, 9, 9], 148);
        let run = [initiation.clone(), initiation].concat();
        assert_eq!(split_session(&run, 148).0.len(), 148);
        assert_eq!(split_session(&[4, 0, 0, 0], 1), (&[4][..], &[0, 0, 0][..]));
        assert_eq!(split_session(&[4, 0, 0, 0], 4), (&[4, 0, 0, 0][..], &[][..]));
    }
}
