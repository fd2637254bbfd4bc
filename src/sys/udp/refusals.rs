//! Remembers to which destinations the kernel refuses to segment.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many destinations; the oldest makes room.
const CAPACITY: usize = 16;
/// How long one is believed before it is tried again.
const VALID: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Refusal {
    to: IpAddr,
    /// A device with a small MTU refuses the larger segments only.
    from_size: usize,
    until: Instant,
}

/// The refusals of one socket.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    known: [Option<Refusal>; CAPACITY],
}

impl Refusals {
    /// Whether segments of `size` bytes are known to be refused.
    pub(super) fn holds(&self, to: IpAddr, size: usize, now: Instant) -> bool {
        self.known.iter().flatten().any(|one| one.to == to && size >= one.from_size && now < one.until)
    }

    /// Notes a refusal.
    pub(super) fn note(&mut self, to: IpAddr, size: usize, now: Instant) {
        let from_size = self.smallest(to, now).map_or(size, |known| known.min(size));
        let refusal = Refusal { to, from_size, until: now + VALID };
        if let Some(place) = self.place(to) {
            *place = Some(refusal);
        }
    }

    /// Forgets what is over; true if anything is left.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        for place in &mut self.known {
            *place = place.filter(|one| now < one.until);
        }
        self.known.iter().any(Option::is_some)
    }

    fn smallest(&self, to: IpAddr, now: Instant) -> Option<usize> {
        self.known.iter().flatten().find(|one| one.to == to && now < one.until).map(|one| one.from_size)
    }

    /// Its own place, else the emptiest: a free one, or that of the oldest.
    fn place(&mut self, to: IpAddr) -> Option<&mut Option<Refusal>> {
        let rank = |one: &Option<Refusal>| one.map(|one| (one.to != to, Some(one.until))).unwrap_or((true, None));
        self.known.iter_mut().min_by_key(|one| rank(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn host(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    #[test]
    fn a_refusal_holds_for_its_destination_for_a_minute() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.note(host(1), 1400, now);
        assert!(refusals.holds(host(1), 1400, now + Duration::from_secs(59)));
        assert!(!refusals.holds(host(2), 1400, now));
        assert!(!refusals.holds(host(1), 1400, now + VALID));
        assert!(refusals.expire(now + Duration::from_secs(59)));
        assert!(!refusals.expire(now + VALID));
    }

    #[test]
    fn smaller_segments_are_still_tried() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.note(host(1), 1400, now);
        assert!(!refusals.holds(host(1), 1300, now));
        refusals.note(host(1), 1300, now);
        assert!(refusals.holds(host(1), 1400, now) && refusals.holds(host(1), 1300, now));
        refusals.note(host(1), 1350, now);
        assert!(refusals.holds(host(1), 1300, now));
        assert_eq!(refusals.known.iter().flatten().count(), 1);
    }

    #[test]
    fn a_full_table_forgets_the_oldest() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for n in 0..=16 {
            refusals.note(host(n), 1400, now + Duration::from_millis(n.into()));
        }
        assert!(!refusals.holds(host(0), 1400, now));
        assert!((1..=16).all(|n| refusals.holds(host(n), 1400, now)));
    }
}
