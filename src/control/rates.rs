//! How much goes through a tunnel of late: the rates of counters, over intervals of about two seconds.

use std::time::{Duration, Instant};

use super::status::Traffic;
use crate::tunnel::counters::Count;

/// Looks that come sooner change nothing. Shorter than the interval of the daemon's own, which may come a little early.
const INTERVAL: Duration = Duration::from_millis(1500);

/// The rate of one direction.
pub(super) struct Rate {
    since: Instant,
    before: Count,
    packets_per_s: u64,
    bits_per_s: u64,
}

impl Rate {
    /// Of what has not begun yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, before: Count::default(), packets_per_s: 0, bits_per_s: 0 }
    }

    /// Takes note of the counter.
    pub(super) fn look(&mut self, now: Instant, count: Count) {
        let time = now.saturating_duration_since(self.since);
        if time < INTERVAL {
            return;
        }
        self.packets_per_s = per_second(count.packets.saturating_sub(self.before.packets), time);
        self.bits_per_s = per_second(8 * count.bytes.saturating_sub(self.before.bytes), time);
        (self.since, self.before) = (now, count);
    }

    /// The counter and its rate.
    pub(super) const fn traffic(&self, count: Count) -> Traffic {
        let Self { packets_per_s, bits_per_s, .. } = *self;
        Traffic { packets: count.packets, bytes: count.bytes, packets_per_s, bits_per_s }
    }
}

fn per_second(amount: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(amount) * 1_000_000 / time.as_micros().max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn count(packets: u64, bytes: u64) -> Count {
        Count { packets, bytes }
    }

    #[test]
    fn a_rate_is_that_of_the_last_whole_interval() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        rate.look(at(2), count(20, 2000));
        let shown = rate.traffic(count(20, 2000));
        assert_eq!((shown.packets_per_s, shown.bits_per_s), (10, 8000));
        // Too soon to tell.
        rate.look(at(3), count(1000, 100_000));
        assert_eq!(rate.traffic(count(0, 0)).packets_per_s, 10);
        rate.look(at(4), count(20, 2000));
        assert_eq!(rate.traffic(count(20, 2000)), Traffic { packets: 20, bytes: 2000, ..Traffic::default() });
    }
}
