//! What a worker counts. Each worker owns one [`Counters`] on its own cache lines; anybody may read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::packet::reason::DropCounters;

/// One thread's counters; aligned so that no two threads write the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    /// Why this thread dropped packets.
    pub(super) drops: DropCounters,
    heartbeat: AtomicU64,
}

impl Counters {
    /// Moves the heartbeat: called once a turn of the worker's loop.
    pub(super) fn beat(&self) {
        self.heartbeat.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the worker's loop has turned.
    pub(super) fn heartbeat(&self) -> u64 {
        self.heartbeat.load(Ordering::Relaxed)
    }
}

/// Lets at most `per_second` answers (ICMP) out a second, and counts on the caller's clock.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: u32,
    left: u32,
    since: Instant,
}

impl RateLimit {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: per_second, since: now }
    }

    /// Whether one more may go at `now`.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since).as_secs() >= 1 {
            (self.since, self.left) = (now, self.per_second);
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// Why the plane can't go on; set once, by the first thread that notices.
#[derive(Debug, Default)]
pub(super) struct Failure(OnceLock<String>);

impl Failure {
    pub(super) fn set(&self, why: String) {
        let _ = self.0.set(why);
    }

    pub(super) fn why(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_limit_refills_each_second() {
        let start = Instant::now();
        let mut limit = RateLimit::new(2, start);
        assert!(limit.allows(start) && limit.allows(start));
        assert!(!limit.allows(start + Duration::from_millis(999)));
        assert!(limit.allows(start + Duration::from_secs(1)));
    }
}
