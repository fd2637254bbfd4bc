//! Datagrams that are sealed but not yet sent, so that workers never reorder a lane by much.
//!
//! The far end's replay window is 1,024 datagrams: a worker that is held up between sealing and sending would find
//! its datagrams refused if the others ran ahead of it by more. They may by 256 at the most.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far one worker may run ahead of another, in datagrams.
pub(super) const AHEAD: u64 = 256;
/// Workers that are told apart; beyond this some share a place, which only makes them wait more.
const WORKERS: usize = 64;

/// For each worker, one more than the number of its first unsent datagram; 0 = none.
pub(super) struct Flights([AtomicU64; WORKERS]);

/// Sealed datagrams on their way to the socket. Drop it when they have been handed to the kernel.
#[must_use = "dropping it says that the datagrams were sent"]
#[derive(Debug)]
pub struct InFlight<'l> {
    place: Option<&'l AtomicU64>,
    pub(super) sealed: usize,
    pub(super) bytes: usize,
    pub(super) oversized: usize,
}

impl Flights {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Announces that `worker` seals up to `datagrams` from `number` on; none = it would run ahead too far.
    /// Only under the lane's lock.
    pub(super) fn begin(&self, worker: usize, number: u64, datagrams: u64) -> Option<InFlight<'_>> {
        let mine = self.0.get(worker % WORKERS)?;
        let oldest = self.0.iter().filter(|place| !std::ptr::eq(*place, mine)).filter_map(first_unsent).min();
        if oldest.is_some_and(|first| number + datagrams > first + AHEAD) {
            return None;
        }
        // A worker that already holds one keeps the older number.
        let place = mine.compare_exchange(0, number + 1, Ordering::Relaxed, Ordering::Relaxed).ok().map(|_| mine);
        Some(InFlight { place, sealed: 0, bytes: 0, oversized: 0 })
    }
}

fn first_unsent(place: &AtomicU64) -> Option<u64> {
    place.load(Ordering::Acquire).checked_sub(1)
}

impl InFlight<'_> {
    /// How many datagrams were sealed.
    #[must_use]
    pub const fn sealed(&self) -> usize {
        self.sealed
    }

    /// How many bytes the packets had, without padding.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many packets were left out because they exceed the buffer's MTU: to be counted by the caller.
    #[must_use]
    pub const fn oversized(&self) -> usize {
        self.oversized
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            place.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_runs_256_datagrams_ahead_of_an_unsent_one() {
        let flights = Flights::new();
        let slow = flights.begin(0, 0, 64);
        assert!(slow.is_some());
        assert!(flights.begin(1, 64, 64).is_some());
        assert!(flights.begin(1, 192, 64).is_some());
        assert!(flights.begin(1, 193, 64).is_none());
        drop(slow);
        assert!(flights.begin(1, 193, 64).is_some());
    }

    #[test]
    fn a_worker_never_waits_for_itself_and_keeps_its_oldest_number() {
        let flights = Flights::new();
        let first = flights.begin(2, 0, 64);
        let second = flights.begin(2, 1000, 64);
        assert!(second.is_some());
        drop(second);
        assert!(flights.begin(3, 1064, 1).is_none());
        drop(first);
        assert!(flights.begin(3, 1064, 1).is_some());
    }
}
