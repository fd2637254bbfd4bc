//! Once a minute, over all threads: how often one and the same trouble may be logged.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Says yes once a minute.
#[derive(Debug)]
pub struct Minute {
    start: Instant,
    /// The next yes, in milliseconds after `start`.
    next: AtomicU64,
}

impl Default for Minute {
    fn default() -> Self {
        Self { start: Instant::now(), next: AtomicU64::new(0) }
    }
}

impl Minute {
    /// Whether nobody had a yes in the minute before `now`. Any thread may ask; one of them gets it.
    pub fn is_due(&self, now: Instant) -> bool {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (now, next) = (millis(now.saturating_duration_since(self.start)), self.next.load(Relaxed));
        let after = now.saturating_add(millis(MINUTE));
        now >= next && self.next.compare_exchange(next, after, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_yes_at_once_and_then_once_a_minute() {
        let (minute, start) = (Minute::default(), Instant::now());
        let asked = [0, 1, 59, 61, 62, 200].map(|second| minute.is_due(start + Duration::from_secs(second)));
        assert_eq!(asked, [true, false, false, true, false, true]);
    }
}
