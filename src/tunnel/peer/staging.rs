//! Packets that wait for a session: a few, and not for long. boringtun would keep 256 of them for 90 s.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::packet::Reason;
use crate::packet::reason::DropCounters;

const MOST: usize = 32;
const LONGEST: Duration = Duration::from_secs(1);

/// The packets of one peer that wait for its session.
#[derive(Default)]
pub(super) struct Staging {
    packets: Mutex<VecDeque<(Instant, Vec<u8>)>>,
    waiting: AtomicUsize,
}

impl Staging {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Relaxed) == 0
    }

    pub(super) fn push(&self, now: Instant, packet: &[u8]) -> Result<(), Reason> {
        let mut packets = self.packets.lock();
        if packets.len() >= MOST {
            return Err(Reason::OutStageFull);
        }
        packets.push_back((now, packet.to_vec()));
        self.waiting.store(packets.len(), Relaxed);
        Ok(())
    }

    /// All that have not waited too long; the others are counted.
    pub(super) fn take(&self, now: Instant, drops: &DropCounters) -> Vec<Vec<u8>> {
        self.expire(now, drops);
        let mut packets = self.packets.lock();
        self.waiting.store(0, Relaxed);
        packets.drain(..).map(|(_, packet)| packet).collect()
    }

    /// Drops and counts those that have waited too long.
    pub(super) fn expire(&self, now: Instant, drops: &DropCounters) {
        if self.is_empty() {
            return;
        }
        let mut packets = self.packets.lock();
        let before = packets.len();
        packets.retain(|(since, _)| now.saturating_duration_since(*since) <= LONGEST);
        self.waiting.store(packets.len(), Relaxed);
        drops.add(Reason::OutNoSession, (before - packets.len()) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_32_packets_wait() {
        let (staging, now) = (Staging::default(), Instant::now());
        for i in 0..32 {
            assert_eq!(staging.push(now, &[i]), Ok(()));
        }
        assert_eq!(staging.push(now, &[32]), Err(Reason::OutStageFull));
        let taken = staging.take(now, &DropCounters::default());
        assert_eq!(taken, (0..32).map(|i| vec![i]).collect::<Vec<_>>());
        assert!(staging.is_empty());
    }

    #[test]
    fn nothing_waits_for_longer_than_a_second() {
        let (staging, drops, now) = (Staging::default(), DropCounters::default(), Instant::now());
        staging.push(now, b"old").unwrap();
        staging.push(now + Duration::from_millis(600), b"new").unwrap();
        let taken = staging.take(now + Duration::from_millis(1100), &drops);
        assert_eq!(taken, [b"new"]);
        assert_eq!(drops.count(Reason::OutNoSession), 1);
    }
}
