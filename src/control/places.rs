//! Where a far machine may be: at the addresses that its endpoint stands for, or where it was last heard. While its
//! tunnel is dark they take turns, so that none that is dead blocks the others. Pure.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// For how long one address is tried: as long as one handshake attempt waits for its answer.
const TURN: Duration = Duration::from_secs(5);

/// The addresses of one far machine.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// What the endpoint stands for, in the resolver's order.
    endpoint: Vec<SocketAddr>,
    /// Where the machine was last heard, if it is elsewhere.
    heard: Option<SocketAddr>,
    /// When the next one has its turn; none = the tunnel is not dark.
    next: Option<Instant>,
}

impl Places {
    /// The endpoint stands for `addresses` now. Gives the one to go to at once: the first, if where the peer is thought
    /// to be, `at`, is none of those that are known.
    pub(super) fn set_endpoint(&mut self, addresses: Vec<SocketAddr>, at: Option<SocketAddr>) -> Option<SocketAddr> {
        self.endpoint = addresses;
        let known = at.is_some_and(|at| self.endpoint.contains(&at) || self.heard == Some(at));
        self.endpoint.first().copied().filter(|_| !known)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.endpoint.iter().copied().chain(self.heard)
    }

    /// The tunnel is up, and its peer `at` this address.
    pub(super) fn heard(&mut self, at: SocketAddr) {
        self.next = None;
        self.heard = (!self.endpoint.contains(&at)).then_some(at);
    }

    /// The tunnel is dark, and its peer thought to be `at` this address. Gives another one to be tried, once its turn
    /// has come. The one that served last is the first to be tried.
    pub(super) fn turn(&mut self, now: Instant, at: Option<SocketAddr>) -> Option<SocketAddr> {
        let due = *self.next.get_or_insert(now + TURN);
        if now < due {
            return None;
        }
        self.next = Some(now + TURN);
        let after = self.iter().position(|place| Some(place) == at).map_or(0, |position| position + 1);
        let next = self.iter().chain(self.iter()).nth(after);
        next.filter(|place| Some(*place) != at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(endpoint: &[&str]) -> Places {
        let mut places = Places::default();
        places.set_endpoint(addresses(endpoint), None);
        places
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| address(text)).collect()
    }

    /// Where a dark tunnel's peer is sought, turn by turn.
    fn turns(places: &mut Places, mut at: Option<SocketAddr>, count: u32) -> Vec<SocketAddr> {
        let start = Instant::now();
        let turn = |number| {
            at = places.turn(start + TURN * number, at).or(at);
            at
        };
        (0..count).filter_map(turn).collect()
    }

    #[test]
    fn a_dead_address_among_several_blocks_nothing_and_the_one_that_served_last_is_the_first() {
        let mut places = places(&["192.0.2.1:1", "192.0.2.2:1"]);
        places.heard(address("192.0.2.2:1"));
        let expected = addresses(&["192.0.2.2:1", "192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:1"]);
        assert_eq!(turns(&mut places, Some(expected[0]), 4), expected);
    }

    #[test]
    fn a_peer_that_went_elsewhere_and_fell_silent_is_sought_there_and_at_its_endpoint() {
        let mut places = places(&["192.0.2.1:1"]);
        places.heard(address("198.51.100.9:7"));
        let expected = addresses(&["198.51.100.9:7", "192.0.2.1:1", "198.51.100.9:7"]);
        assert_eq!(turns(&mut places, Some(expected[0]), 3), expected);
    }

    #[test]
    fn a_peer_without_an_endpoint_is_sought_where_it_was_heard() {
        let mut places = Places::default();
        assert_eq!(turns(&mut places, None, 2), []);
        places.heard(address("198.51.100.9:7"));
        let there = address("198.51.100.9:7");
        assert_eq!(turns(&mut places, Some(there), 3), [there; 3]);
    }

    #[test]
    fn a_turn_lasts_five_seconds_and_starts_afresh_when_the_tunnel_is_dark_again() {
        let mut places = places(&["192.0.2.1:1", "192.0.2.2:1"]);
        let (first, now) = (address("192.0.2.1:1"), Instant::now());
        assert_eq!(places.turn(now, Some(first)), None);
        assert_eq!(places.turn(now + TURN - Duration::from_millis(1), Some(first)), None);
        places.heard(first);
        assert_eq!(places.turn(now + TURN, Some(first)), None);
        assert_eq!(places.turn(now + TURN * 2, Some(first)), Some(address("192.0.2.2:1")));
    }

    #[test]
    fn a_changed_record_is_taken_at_once_and_one_that_stays_is_no_news() {
        let mut places = Places::default();
        let (old, new) = (address("192.0.2.1:1"), address("192.0.2.9:1"));
        assert_eq!(places.set_endpoint(vec![old], None), Some(old));
        assert_eq!(places.set_endpoint(vec![old], Some(old)), None);
        assert_eq!(places.set_endpoint(vec![new], Some(old)), Some(new));
        places.heard(old);
        assert_eq!(places.set_endpoint(vec![new], Some(old)), None, "it was heard there");
    }
}
