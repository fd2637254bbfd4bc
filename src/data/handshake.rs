//! The handshake thread: every curve operation and every timer of the plane happens here, so that neither a
//! data thread nor the control plane ever waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::debug;

use super::Changed;
use super::counters::Counters;
use super::egress::{BUSY_WAIT, Egress};
use crate::packet::cleartext::Packets;
use crate::packet::{Reason, ecn};
use crate::tunnel::lane::SMALL;
use crate::tunnel::random::Random;
use crate::tunnel::{Address, Answer, Peer, SealBuffer, Table, TickBuffer, wire};

/// boringtun's sessions expire only inside its tick, so it comes this often while a tunnel is dark or shaking hands,
const TICK: Duration = Duration::from_millis(250);
/// this often while all is quiet: the tick is most of what an idle daemon wakes up for,
const QUIET_TICK: Duration = Duration::from_millis(500);
/// and this often while nobody has a session or wants one; whatever changes that wakes the thread.
const RESTING_TICK: Duration = Duration::from_secs(2);
/// Handshake messages waiting, over all workers; more are dropped and counted.
const QUEUE: usize = 512;
/// How many of them may be of strangers: initiations whose senders have not proven their addresses.
const STRANGERS: usize = QUEUE / 2;

/// What the other threads ask of this one.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "no allocation per unauthenticated message")]
enum Job {
    /// A handshake message that passed the gate.
    Message { datagram: [u8; wire::INITIATION], len: usize, from: Address, stranger: bool },
    /// Look at the peers now: a packet waits for a session, or an address was set.
    Wake,
    /// Go home.
    Stop,
}

/// The way into the handshake thread; never blocks.
#[derive(Debug, Clone)]
pub(super) struct HandshakeQueue {
    sender: SyncSender<Job>,
    /// How many of the jobs that wait are strangers' messages.
    strangers: Arc<AtomicUsize>,
}

impl HandshakeQueue {
    /// A bounded queue and its far end.
    pub(super) fn new() -> (Self, Jobs) {
        let (sender, receiver) = sync_channel(QUEUE);
        let strangers = Arc::<AtomicUsize>::default();
        (Self { sender, strangers: strangers.clone() }, Jobs { receiver, strangers })
    }

    /// Hands over a handshake message of at most 148 bytes. Those of strangers leave room for others.
    pub(super) fn offer(&self, message: &[u8], from: Address, stranger: bool) -> Result<(), Reason> {
        if stranger && self.strangers.fetch_add(1, Relaxed) >= STRANGERS {
            self.strangers.fetch_sub(1, Relaxed);
            return Err(Reason::InHandshakeQueueFull);
        }
        self.put(message, from, stranger).inspect_err(|_| {
            self.strangers.fetch_sub(usize::from(stranger), Relaxed);
        })
    }

    fn put(&self, message: &[u8], from: Address, stranger: bool) -> Result<(), Reason> {
        let mut datagram = [0; wire::INITIATION];
        let target = datagram.get_mut(..message.len()).ok_or(Reason::InMalformed)?;
        target.copy_from_slice(message);
        let job = Job::Message { datagram, len: message.len(), from, stranger };
        self.sender.try_send(job).map_err(|_| Reason::InHandshakeQueueFull)
    }

    /// Makes the thread look at the peers now. A full queue means that it is about to, anyway.
    pub(super) fn wake(&self) {
        let _ = self.sender.try_send(Job::Wake);
    }

    /// Ends the thread; waits for room in the queue if it must.
    pub(super) fn stop(&self) {
        if let Err(TrySendError::Full(job)) = self.sender.try_send(Job::Stop) {
            let _ = self.sender.send(job);
        }
    }
}

/// The handshake thread's end of the queue.
pub(super) struct Jobs {
    receiver: Receiver<Job>,
    strangers: Arc<AtomicUsize>,
}

/// All that the handshake thread owns.
pub(super) struct Handshakes {
    pub(super) jobs: Jobs,
    /// The number under which this thread seals.
    pub(super) worker: usize,
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) egress: Egress,
    pub(super) counters: Arc<Counters>,
    /// Told when a session began.
    pub(super) changed: Changed,
    pub(super) sealed: SealBuffer,
    pub(super) emitted: TickBuffer,
    pub(super) next_second: Instant,
    pub(super) ticks: Ticks,
}

impl Handshakes {
    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        loop {
            self.counters.beat();
            let wait = self.ticks.next.saturating_duration_since(Instant::now());
            match self.jobs.receiver.recv_timeout(wait) {
                Ok(Job::Message { datagram, len, from, stranger }) => {
                    self.jobs.strangers.fetch_sub(usize::from(stranger), Relaxed);
                    self.message(datagram.get(..len).unwrap_or_default(), &from);
                    self.ticks.come_within(TICK, Instant::now());
                }
                Ok(Job::Wake) => self.ticks.next = Instant::now(),
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Also under a flood of messages, which would never let the wait time out.
            let now = Instant::now();
            if now >= self.ticks.next {
                let wait = self.tick(now);
                self.ticks.come_after(wait, now);
            }
        }
    }

    fn message(&mut self, datagram: &[u8], from: &Address) {
        let table = self.table.load_full();
        let Some(peer) = peer_of(&table, datagram) else {
            return self.counters.drops.add(Reason::InHandshakeRefused, 1);
        };
        let mut reply = [0; SMALL];
        match peer.lane.handshake(Instant::now(), datagram, from, &mut reply) {
            Ok(answer) => {
                let kind = wire::kind(datagram);
                if kind != Some(wire::Kind::Cookie) {
                    peer.counters.add_wire_received(datagram.len() as u64);
                }
                if kind == Some(wire::Kind::Initiation) && peer.called_from(from.remote.ip(), Instant::now()) {
                    (self.changed)();
                }
                self.follow(peer, &answer, from, &reply);
            }
            Err(reason) => self.counters.drops.add(reason, 1),
        }
    }

    /// An initiation gets its response, a response the keepalive that confirms the session, and then what waited.
    fn follow(&mut self, peer: &Peer, answer: &Answer, from: &Address, reply: &[u8]) {
        debug!(tunnel = peer.name().as_str(), from = %from.remote, began = answer.session_began, "handshake message taken");
        if let Some(roam) = answer.roam {
            peer.roam(roam);
        }
        if let Some(datagram) = answer.reply.and_then(|len| reply.get(..len)) {
            self.send(peer, from, datagram, BUSY_WAIT);
        }
        if answer.session_began {
            self.flush_staged(peer);
            (self.changed)();
        }
    }

    /// Sends one datagram to `peer`; whether it went.
    fn send(&self, peer: &Peer, to: &Address, datagram: &[u8], patience: Duration) -> bool {
        let sent = self.egress.send_one(to, datagram, patience, &self.counters.drops);
        if sent {
            peer.counters.add_wire_sent(datagram.len() as u64);
        }
        sent
    }

    /// Does what is due for every peer. Returns when to come again.
    fn tick(&mut self, now: Instant) -> Duration {
        let table = self.table.load_full();
        let (mut next, mut patience) = (RESTING_TICK, BUSY_WAIT);
        if now >= self.next_second {
            table.gate().each_second();
            self.next_second = now + Duration::from_secs(1);
        }
        for peer in table.peers() {
            peer.tick(now, &mut self.emitted);
            if let Some(to) = &*peer.load_address() {
                for datagram in self.emitted.datagrams() {
                    let sent = self.send(peer, to, datagram, patience);
                    // A full uplink must not hold up the timers of a thousand peers, one by one.
                    patience = if sent { patience } else { Duration::ZERO };
                }
            }
            if peer.has_staged() {
                self.flush_staged(peer);
            }
            next = next.min(self.after(peer, now));
        }
        next
    }

    /// When to come again for this peer, after its tick.
    fn after(&self, peer: &Peer, now: Instant) -> Duration {
        if self.emitted.datagrams().next().is_some() {
            TICK
        } else if peer.lane.view(now).session {
            QUIET_TICK
        } else if peer.is_resting(now) {
            RESTING_TICK
        } else {
            TICK
        }
    }

    /// Seals and sends what was staged, if there is a session by now; otherwise drops what is too old.
    fn flush_staged(&mut self, peer: &Peer) {
        let now = Instant::now();
        let to = peer.load_address();
        let Some(to) = to.as_deref().filter(|_| peer.lane.view(now).session) else {
            return peer.expire_staged(now, &self.counters.drops);
        };
        self.sealed.fit(self.table.load().mtu());
        for packet in peer.take_staged(now, &self.counters.drops) {
            self.sealed.clear();
            let mut one = Packets::new(std::iter::once(&packet[..]));
            match peer.lane.seal_batch(self.worker, now, &mut one, &mut self.sealed) {
                Ok(in_flight) => {
                    peer.counters.add_sent(1, in_flight.bytes() as u64);
                    self.egress.send_batch(peer, to, &self.sealed, ecn::of(&packet), &self.counters.drops);
                    drop(in_flight);
                }
                Err(_) => self.counters.drops.add(Reason::OutNoSession, 1),
            }
        }
    }
}

/// When the timers run. The messages of one end start those of the other, so each wait is a little longer or shorter
/// than asked for: else the two would stay in phase.
#[derive(Debug)]
pub(super) struct Ticks {
    next: Instant,
    random: Random,
}

impl Ticks {
    /// The first one is at once.
    pub(super) const fn new(now: Instant, seed: u64) -> Self {
        Self { next: now, random: Random::new(seed) }
    }

    fn come_after(&mut self, wait: Duration, now: Instant) {
        self.next = now + wait * 7 / 8 + self.random.below(wait / 4);
    }

    /// As after `wait`, if the next one is not due before, anyway.
    fn come_within(&mut self, wait: Duration, now: Instant) {
        let due = self.next;
        self.come_after(wait, now);
        self.next = self.next.min(due);
    }
}

/// Whose message it is: an initiation names its sender by key, the others one of our sessions.
fn peer_of<'t>(table: &'t Table, datagram: &[u8]) -> Option<&'t Arc<Peer>> {
    match wire::receiver_index(datagram) {
        Some(index) => table.by_index(index),
        None => table.by_key(&table.identity().peer_of(datagram)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_room_in_the_queue_for_those_who_have_proven_themselves() {
        let (queue, jobs) = HandshakeQueue::new();
        let from = Address::new("192.0.2.1:1000".parse().unwrap());
        let offer =
            |stranger| (0..1000).filter(|_| queue.offer(&[1; wire::INITIATION], from, stranger).is_ok()).count();
        assert_eq!(offer(true), STRANGERS);
        assert_eq!(offer(false), QUEUE - STRANGERS);
        assert_eq!(offer(true) + offer(false), 0);
        // Refused ones are not counted as waiting.
        assert_eq!(jobs.strangers.load(Relaxed), STRANGERS);
    }

    #[test]
    fn two_ends_whose_timers_started_together_do_not_stay_in_phase() {
        let start = Instant::now();
        let [mut here, mut there] = [1, 2].map(|seed| Ticks::new(start, seed));
        assert_eq!((here.next, there.next), (start, start), "a start waits for nothing");
        let mut together = 0;
        for _ in 0..100 {
            for ticks in [&mut here, &mut there] {
                let before = ticks.next;
                ticks.come_after(TICK, before);
                let wait = ticks.next - before;
                assert!(wait >= TICK * 7 / 8 && wait <= TICK * 9 / 8, "{wait:?}");
            }
            let apart = here.next.max(there.next) - here.next.min(there.next);
            together += usize::from(apart < Duration::from_millis(2));
        }
        assert!(together < 10, "{together} of 100 ticks at the same time");
    }

    #[test]
    fn a_message_never_puts_the_next_tick_off() {
        let now = Instant::now();
        let mut ticks = Ticks::new(now, 1);
        ticks.come_within(TICK, now);
        assert_eq!(ticks.next, now);
        ticks.come_after(RESTING_TICK, now);
        ticks.come_within(TICK, now);
        assert!(ticks.next <= now + TICK * 9 / 8);
    }
}
