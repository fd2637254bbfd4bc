//! A lane: the sessions with one static key, as one thing that seals and opens batches.
//!
//! The lock and boringtun are private to it. The lock is held for crypto only; moments that others want to know
//! are readable without it.

mod buffer;
pub(in crate::tunnel) mod engine;
mod engines;
mod flight;
mod marks;
mod outcome;
mod sessions;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use buffer::{OpenBuffer, SealBuffer};
pub use engine::SMALL;
pub use flight::InFlight;
pub use outcome::{Answer, Emitted, LaneView, SealRefused};

use super::address::Address;
use super::id::Slot;
use super::identity::Identity;
use super::inner;
use super::key::{PresharedKey, PublicKey};
use super::wire::{self, Kind};
use crate::packet::cleartext::Cleartext;
use crate::packet::reason::DropCounters;
use crate::packet::{Reason, ip};
use engine::{Engine, Opened, Ticked};
use engines::Engines;
use flight::Flights;
use marks::Marks;

/// Sessions expire only in `tick`: if that stands still, nothing more may be sealed.
const STALE: Duration = Duration::from_secs(5);
/// A session is renewed after so many messages, long before its end at [`MESSAGES`].
const RENEW_MESSAGES: u64 = 1 << 48;
/// A session seals no more messages than this (paper, section 6.1: Rekey-After-Messages).
const MESSAGES: u64 = 1 << 60;

/// Where a peer moved: made only from an authenticated response or authenticated transport data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roam(Address);

impl Roam {
    /// Where to.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.0
    }
}

/// The sessions with one static key of a far machine.
pub struct Lane {
    remote: PublicKey,
    slots: [Slot; 2],
    core: Mutex<Core>,
    marks: Marks,
    flights: Flights,
}

struct Core {
    engines: Engines,
    /// Datagrams sealed by the lane, whatever the session.
    sealed: u64,
    last_tick: Instant,
}

impl Lane {
    /// What sealing adds to a packet, in bytes.
    pub const OVERHEAD: usize = wire::TRANSPORT;
    /// The most datagrams that one [`Lane::seal_batch`] seals.
    pub const BATCH: usize = 64;

    /// A lane with `remote`, without a session.
    #[must_use]
    pub fn new(
        local: &Arc<Identity>,
        remote: PublicKey,
        psk: Option<&PresharedKey>,
        slots: [Slot; 2],
        now: Instant,
    ) -> Self {
        let [slot, _] = slots;
        let engines = Engines::new(Engine::new(local, &remote, psk, slot));
        let core = Mutex::new(Core { engines, sealed: 0, last_tick: now });
        Self { remote, slots, core, marks: Marks::new(now), flights: Flights::new() }
    }

    /// The slots that its session indices are made from.
    #[must_use]
    pub const fn slots(&self) -> [Slot; 2] {
        self.slots
    }

    /// Seals up to [`Lane::BATCH`] of `packets`, as long as `out` has room, and appends them to `out`.
    ///
    /// # Errors
    /// Nothing was sealed and no packet taken; see [`SealRefused`].
    pub fn seal_batch(
        &self,
        worker: usize,
        now: Instant,
        packets: &mut impl Cleartext,
        out: &mut SealBuffer,
    ) -> Result<InFlight<'_>, SealRefused> {
        let mut core = self.core.lock();
        core.check(now)?;
        let most = packets.left().min(out.room()).min(Self::BATCH);
        let mut flight = self.flights.begin(worker, core.sealed, most as u64).ok_or(SealRefused::Ahead)?;
        core.seal(packets, most, out, &mut flight);
        if flight.sealed > 0 {
            let stamp = self.marks.value(now);
            self.marks.sent.set(stamp);
            self.marks.unanswered.set_first(stamp);
        }
        Ok(flight)
    }

    /// Opens `datagrams`, all of them from one source, until `out` is full; what is left stays in the iterator.
    ///
    /// Each lands in `out`, is a keepalive, or is counted in `drops`. Gives where the peer is if at least one was
    /// authenticated.
    pub fn open_batch<'d>(
        &self,
        now: Instant,
        mut datagrams: impl Iterator<Item = &'d [u8]>,
        from: &Address,
        out: &mut OpenBuffer,
        drops: &DropCounters,
    ) -> Option<Roam> {
        let mut core = self.core.lock();
        let mut authenticated = false;
        while !out.is_full() {
            let Some(datagram) = datagrams.next() else { break };
            match core.open(datagram, out) {
                Ok(()) => authenticated = true,
                Err(Reason::InInnerMalformed) => {
                    authenticated = true;
                    drops.add(Reason::InInnerMalformed, 1);
                }
                Err(reason) => drops.add(reason, 1),
            }
        }
        authenticated.then(|| {
            self.heard(&mut core, now);
            Roam(*from)
        })
    }

    /// Takes a handshake message (types 1, 2 and 3) that has passed the gate. Costs curve operations: only the
    /// handshake thread may call it.
    ///
    /// # Errors
    /// [`Reason::InHandshakeRefused`] when it is not for us, not from the peer, or a replay.
    pub fn handshake(
        &self,
        now: Instant,
        message: &[u8],
        from: &Address,
        out: &mut [u8; SMALL],
    ) -> Result<Answer, Reason> {
        let mut core = self.core.lock();
        match wire::kind(message) {
            Some(Kind::Initiation) => self.respond(&mut core, now, message, out),
            Some(Kind::Response) => self.complete(&mut core, now, message, from, out),
            Some(Kind::Cookie) => core.take_cookie(message),
            Some(Kind::Transport) | None => return Err(Reason::InMalformed),
        }
        .ok_or(Reason::InHandshakeRefused)
    }

    /// An initiation may be a replay: it is answered to its source, and nothing else comes of it.
    fn respond(&self, core: &mut Core, now: Instant, message: &[u8], out: &mut [u8; SMALL]) -> Option<Answer> {
        let reply = core.engines.newest().respond(now, message, out)?;
        self.marks.answered.set(self.marks.value(now));
        Some(Answer { reply: Some(reply), roam: None, session_began: false })
    }

    fn complete(
        &self,
        core: &mut Core,
        now: Instant,
        message: &[u8],
        from: &Address,
        out: &mut [u8; SMALL],
    ) -> Option<Answer> {
        let engine = core.engines.owner(wire::receiver_index(message)?)?;
        let reply = engine.complete(now, message, out)?;
        core.sealed += 1;
        self.heard(core, now);
        self.marks.sent.set(self.marks.value(now));
        Some(Answer { reply: Some(reply), roam: Some(Roam(*from)), session_began: true })
    }

    /// Something was authenticated.
    fn heard(&self, core: &mut Core, now: Instant) {
        core.engines.promote(now);
        self.marks.received.set(self.marks.value(now));
        self.marks.unanswered.clear();
        self.publish(core);
    }

    /// Runs boringtun's timers; to be called each 250 ms. What it gives has not been sent.
    pub fn tick(&self, now: Instant, out: &mut [u8; SMALL]) -> Option<Emitted> {
        let mut core = self.core.lock();
        core.last_tick = now;
        self.marks.ticked.set(self.marks.value(now));
        let made = core.engines.tick(now, out);
        self.publish(&mut core);
        match made {
            Ticked::Nothing => None,
            Ticked::Initiation(len) => Some(Emitted::Initiation(len)),
            Ticked::Keepalive(len) => {
                core.sealed += 1;
                self.marks.sent.set(self.marks.value(now));
                Some(Emitted::Keepalive(len))
            }
        }
    }

    /// A handshake initiation, whether or not one is under way: its size in `out`.
    pub fn initiate(&self, out: &mut [u8; SMALL]) -> Option<usize> {
        self.core.lock().engines.newest().initiate(out)
    }

    /// A keepalive: its size in `out`; none without a session.
    pub fn keepalive(&self, now: Instant, out: &mut [u8; SMALL]) -> Option<usize> {
        let mut core = self.core.lock();
        core.check(now).ok()?;
        let len = core.engines.active().seal(&[], out)?;
        core.count(1);
        self.marks.sent.set(self.marks.value(now));
        Some(len)
    }

    /// Starts over with another preshared key, or with the same one and the wall clock of now, without a gap: the
    /// old sessions serve until the first new one is confirmed, for 180 s at the most.
    pub fn replace(&self, local: &Identity, psk: Option<&PresharedKey>, now: Instant) {
        let mut core = self.core.lock();
        let slot = core.engines.free_slot(self.slots);
        core.engines.replace(Engine::new(local, &self.remote, psk, slot), now);
        self.publish(&mut core);
    }

    /// Forgets all sessions at once, and starts over: our key is another one, or there is to be silence.
    pub fn restart(&self, local: &Identity, psk: Option<&PresharedKey>) {
        let mut core = self.core.lock();
        let slot = core.engines.free_slot(self.slots);
        core.engines = Engines::new(Engine::new(local, &self.remote, psk, slot));
        self.marks.unanswered.clear();
        self.publish(&mut core);
    }

    /// Its state, without taking the lock.
    #[must_use]
    pub fn view(&self, now: Instant) -> LaneView {
        let age = |mark| self.marks.age(mark, now);
        let session_age = age(&self.marks.session);
        let fresh = age(&self.marks.ticked).is_some_and(|age| age <= STALE);
        LaneView {
            session: fresh && session_age.is_some(),
            session_age,
            last_handshake: age(&self.marks.handshake),
            handshakes: self.marks.handshakes.load(Relaxed),
            last_answer: age(&self.marks.answered),
            last_receive: age(&self.marks.received),
            last_send: age(&self.marks.sent),
            unanswered: age(&self.marks.unanswered),
            worn: self.marks.worn.load(Relaxed),
            replacing: self.marks.replacing.load(Relaxed),
        }
    }

    /// Makes the engines' state readable without the lock.
    fn publish(&self, core: &mut Core) {
        let replacing = core.engines.is_replacing();
        let sessions = core.engines.active().sessions();
        let value = |moment: Option<Instant>| moment.map_or(0, |moment| self.marks.value(moment));
        self.marks.session.set(value(sessions.current().map(|session| session.born)));
        if let Some(newest) = sessions.newest()
            && self.marks.handshake.advances(self.marks.value(newest))
        {
            self.marks.handshakes.fetch_add(1, Relaxed);
        }
        self.marks.worn.store(sessions.current().is_some_and(|s| s.sealed >= RENEW_MESSAGES), Relaxed);
        self.marks.replacing.store(replacing, Relaxed);
    }

    #[cfg(test)]
    pub(in crate::tunnel) fn pretend_sealed(&self, messages: u64) {
        self.core.lock().engines.active().pretend_sealed(messages);
    }
}

impl Core {
    /// Whether sealing is allowed.
    fn check(&mut self, now: Instant) -> Result<(), SealRefused> {
        if now.saturating_duration_since(self.last_tick) > STALE {
            return Err(SealRefused::Stale);
        }
        let session = self.engines.active().current().ok_or(SealRefused::NoSession)?;
        if session.sealed >= MESSAGES { Err(SealRefused::Exhausted) } else { Ok(()) }
    }

    fn seal(&mut self, packets: &mut impl Cleartext, most: usize, out: &mut SealBuffer, flight: &mut InFlight<'_>) {
        let engine = self.engines.active();
        while flight.sealed < most {
            let Some(packet) = packets.next() else { break };
            match out.spare(packet.len()).and_then(|spare| engine.seal(packet, spare)) {
                Some(len) => {
                    out.push(len);
                    flight.sealed += 1;
                    flight.bytes += ip::total_len(packet);
                }
                None => flight.oversized += 1,
            }
        }
        self.count(flight.sealed as u64);
    }

    fn count(&mut self, datagrams: u64) {
        self.engines.active().count(datagrams);
        self.sealed += datagrams;
    }

    fn open(&mut self, datagram: &[u8], out: &mut OpenBuffer) -> Result<(), Reason> {
        let index = wire::receiver_index(datagram).ok_or(Reason::InMalformed)?;
        let engine = self.engines.owner(index).ok_or(Reason::InNoSession)?;
        match engine.open(datagram, out.spare()) {
            // boringtun has not looked at more than the version and the length.
            Opened::Packet(len) if out.spare().get(..len).and_then(inner::source).is_some() => {
                out.push(len, datagram.len());
                Ok(())
            }
            Opened::Keepalive => {
                out.push_keepalive(datagram.len());
                Ok(())
            }
            Opened::Packet(_) | Opened::Garbage => Err(Reason::InInnerMalformed),
            Opened::Refused(reason) => Err(reason),
        }
    }

    /// A cookie reply comes from anybody who saw our initiation: nothing moves, nothing was heard.
    fn take_cookie(&mut self, message: &[u8]) -> Option<Answer> {
        let engine = self.engines.owner(wire::receiver_index(message)?)?;
        engine.take_cookie(message).then_some(Answer { reply: None, roam: None, session_began: false })
    }
}

/// Names a lane in a log line.
impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("remote", &self.remote).finish_non_exhaustive()
    }
}
