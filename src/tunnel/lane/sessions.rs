//! Our own account of the sessions inside an engine: boringtun tells neither which one it seals with nor whether
//! the peer ever confirmed it.

use std::time::{Duration, Instant};

/// Sessions in boringtun's ring; a session's place is its index modulo this.
const RING: u32 = 8;
/// After this a session may no longer be used (paper, section 6.1: Reject-After-Time).
const LIFETIME: Duration = Duration::from_secs(180);

/// One session as far as we know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    index: u32,
    /// When its handshake was made.
    pub(super) born: Instant,
    /// The engine's tick at its birth: what boringtun compares to choose between two sessions.
    order: u64,
    /// Whether the peer has shown that it has the keys: by its response, or by its first transport data.
    confirmed: bool,
    /// Messages sealed with it.
    pub(super) sealed: u64,
}

/// The ring, mirrored.
#[derive(Debug)]
pub(super) struct Sessions {
    ring: [Option<Session>; RING as usize],
    current: u32,
    /// The index of the last handshake message that the engine made.
    last: u32,
    order: u64,
}

impl Sessions {
    /// Of an engine whose indices start after `first`.
    pub(super) const fn new(first: u32) -> Self {
        Self { ring: [None; RING as usize], current: 0, last: first, order: 0 }
    }

    /// The engine made a handshake message with this index.
    pub(super) const fn used(&mut self, index: u32) {
        self.last = index;
    }

    /// We answered an initiation. The session takes its place at once, but nothing is confirmed yet.
    pub(super) fn answered(&mut self, index: u32, now: Instant) {
        self.put(Session { index, born: now, order: self.order, confirmed: false, sealed: 0 });
    }

    /// Our initiation was answered: the session is good and boringtun uses it from now on.
    pub(super) fn established(&mut self, index: u32, now: Instant) {
        self.put(Session { index, born: now, order: self.order, confirmed: true, sealed: 1 });
        self.current = index;
    }

    /// Transport data was authenticated on this session. boringtun moves to it unless it is the older one.
    pub(super) fn heard(&mut self, index: u32) {
        let Some(session) = self.at_mut(index).filter(|s| s.index == index) else { return };
        session.confirmed = true;
        let order = session.order;
        if index != self.current && self.at(self.current).is_none_or(|current| order >= current.order) {
            self.current = index;
        }
    }

    /// boringtun's timers ran. `alive`: whether it still has the session that it seals with.
    pub(super) fn tick(&mut self, now: Instant, alive: bool) {
        self.order += 1;
        for place in &mut self.ring {
            *place = place.filter(|session| now.saturating_duration_since(session.born) <= LIFETIME);
        }
        if !alive && let Some(place) = self.place(self.current) {
            *place = None;
        }
    }

    /// boringtun dropped all sessions.
    pub(super) fn clear(&mut self) {
        self.ring = [None; RING as usize];
    }

    /// The session that boringtun seals with, if the peer has confirmed it.
    pub(super) fn current(&self) -> Option<&Session> {
        self.at(self.current).filter(|session| session.confirmed)
    }

    /// Counts messages sealed with the current session.
    pub(super) fn sealed(&mut self, messages: u64) {
        if let Some(session) = self.at_mut(self.current) {
            session.sealed = session.sealed.saturating_add(messages);
        }
    }

    /// When the newest confirmed session was made.
    pub(super) fn newest(&self) -> Option<Instant> {
        self.ring.iter().flatten().filter(|s| s.confirmed).map(|s| s.born).max()
    }

    /// Whether answering an initiation would put an unproven session in the place of the current one.
    pub(super) fn would_overwrite(&self) -> bool {
        let next = (self.last & !0xff) | u32::from(self.last.to_le_bytes()[0].wrapping_add(1));
        self.current().is_some() && next % RING == self.current % RING
    }

    fn put(&mut self, session: Session) {
        self.last = session.index;
        if let Some(place) = self.place(session.index) {
            *place = Some(session);
        }
    }

    fn at(&self, index: u32) -> Option<&Session> {
        self.ring.get((index % RING) as usize)?.as_ref()
    }

    fn at_mut(&mut self, index: u32) -> Option<&mut Session> {
        self.place(index)?.as_mut()
    }

    fn place(&mut self, index: u32) -> Option<&mut Option<Session>> {
        self.ring.get_mut((index % RING) as usize)
    }
}
