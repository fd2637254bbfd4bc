//! What others ask about a lane all the time, readable without its lock: moments as milliseconds since its start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A moment: milliseconds since the lane's start, plus one; 0 = never.
#[derive(Default)]
pub(super) struct Mark(AtomicU64);

/// All moments of one lane. Written under its lock.
pub(super) struct Marks {
    start: Instant,
    /// When the session that seals was made; never = there is none.
    pub(super) session: Mark,
    /// When the newest confirmed session was made.
    pub(super) handshake: Mark,
    /// When we last answered an initiation, which may have been a replay.
    pub(super) answered: Mark,
    /// When something from the peer was last authenticated.
    pub(super) received: Mark,
    /// When transport data (or a keepalive) was last sealed.
    pub(super) sent: Mark,
    /// When the oldest packet was sealed since something was last received.
    pub(super) unanswered: Mark,
    /// When the timers last ran.
    pub(super) ticked: Mark,
    /// Sessions that the peer confirmed, so far.
    pub(super) handshakes: AtomicU64,
    pub(super) worn: AtomicBool,
    pub(super) replacing: AtomicBool,
}

impl Marks {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            session: Mark::default(),
            handshake: Mark::default(),
            answered: Mark::default(),
            received: Mark::default(),
            sent: Mark::default(),
            unanswered: Mark::default(),
            ticked: Mark(AtomicU64::new(1)),
            handshakes: AtomicU64::new(0),
            worn: AtomicBool::new(false),
            replacing: AtomicBool::new(false),
        }
    }

    /// `now` as a mark's value.
    pub(super) fn value(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
    }

    /// How long before `now` the moment was.
    pub(super) fn age(&self, mark: &Mark, now: Instant) -> Option<Duration> {
        let then = mark.0.load(Relaxed);
        (then != 0).then(|| Duration::from_millis(self.value(now).saturating_sub(then)))
    }
}

impl Mark {
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Sets it; whether it is later than it was.
    pub(super) fn advances(&self, value: u64) -> bool {
        let before = self.0.load(Relaxed);
        self.set(value);
        value > before
    }

    pub(super) fn clear(&self) {
        self.set(0);
    }

    /// Sets it unless it is set.
    pub(super) fn set_first(&self, value: u64) {
        if self.0.load(Relaxed) == 0 {
            self.set(value);
        }
    }
}
