//! Names of far machines: when to look them up, and what they stand for.
//!
//! The schedule is pure; only [`lookup`] asks the system's resolver, on a thread of its own, because that may take
//! half a minute and must hold up neither the control plane nor a stop.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{info, warn};

/// From one attempt to the next while a tunnel stays dark; the last one repeats.
const DELAYS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
    Duration::from_secs(60),
];

/// The families that our sockets have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Whether datagrams can go to `address`.
    #[must_use]
    pub const fn reach(self, address: &SocketAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// One tunnel's name, and what is known about it.
#[derive(Debug)]
pub struct Resolver {
    name: String,
    port: u16,
    families: Families,
    addresses: Vec<SocketAddr>,
    attempts: usize,
    next: Option<Instant>,
    asking: bool,
    failure: Option<String>,
}

impl Resolver {
    /// For `name` and `port`; the first lookup is due as soon as the tunnel is dark.
    #[must_use]
    pub const fn new(name: String, port: u16, families: Families) -> Self {
        let addresses = Vec::new();
        Self { name, port, families, addresses, attempts: 0, next: None, asking: false, failure: None }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether to begin a [`lookup`] now; its answer goes to [`Resolver::answer`]. While the tunnel is `dark`: at once,
    /// then after 5, 10, 20, 40 and each further 60 s. Never two at a time.
    pub fn due(&mut self, now: Instant, dark: bool) -> bool {
        if !dark {
            (self.attempts, self.next) = (0, None);
            return false;
        }
        let due = !self.asking && self.next.is_none_or(|next| now >= next);
        self.asking |= due;
        due
    }

    /// When [`Resolver::due`] is to be asked again while the tunnel is dark; none = at once, or after the answer.
    #[must_use]
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// What was wrong with the last lookup, in one line; none if nothing was.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Takes the answer of a lookup. Gives what the name stands for, as far as our sockets reach it; a name server that
    /// is away changes nothing.
    pub fn answer(&mut self, now: Instant, answer: io::Result<Vec<SocketAddr>>) -> Option<Vec<SocketAddr>> {
        self.asking = false;
        let last = DELAYS.len() - 1;
        self.next = DELAYS.get(self.attempts.min(last)).map(|delay| now + *delay);
        self.attempts += 1;
        let addresses = self.usable(answer)?;
        if self.addresses != addresses {
            info!("{} resolves to {}", self.name, list(&addresses));
            self.addresses.clone_from(&addresses);
        }
        Some(addresses)
    }

    /// The addresses that our sockets reach, in the resolver's order (RFC 6724).
    fn usable(&mut self, answer: io::Result<Vec<SocketAddr>>) -> Option<Vec<SocketAddr>> {
        let failure = match answer {
            Err(error) => error.to_string(),
            Ok(mut all) => {
                let mut seen = std::collections::HashSet::new();
                let Families { v4, v6 } = self.families;
                all.retain(|address| (if address.is_ipv4() { v4 } else { v6 }) && seen.insert(*address));
                if !all.is_empty() {
                    self.failure = None;
                    return Some(all);
                }
                format!("it has no {} address", if v4 { "IPv4" } else { "IPv6" })
            }
        };
        let failure = format!("cannot resolve {}: {failure}; trying again", self.name);
        if self.failure.is_none() {
            warn!("{failure}");
        }
        self.failure = Some(failure);
        None
    }
}

/// Asks the system's resolver for all addresses of `name`, with `port`, in its order.
///
/// # Errors
/// When the resolver gives none.
pub async fn lookup(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (sender, answer) = oneshot::channel();
    let name = name.to_owned();
    let ask = move || {
        // Nobody waits any more when the daemon stops.
        let _ = sender.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect));
    };
    std::thread::Builder::new().name("resolve".to_owned()).spawn(ask)?;
    answer.await.unwrap_or_else(|_| Err(io::Error::other("the resolver's thread ended")))
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Families = Families { v4: true, v6: true };

    fn resolver(families: Families) -> Resolver {
        Resolver::new("vpn.example.com".into(), 51820, families)
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn lookups_come_at_once_and_then_after_5_10_20_40_60_60_seconds() {
        let mut resolver = resolver(BOTH);
        let mut now = Instant::now();
        for seconds in [5, 10, 20, 40, 60, 60, 60] {
            assert!(resolver.due(now, true));
            assert!(!resolver.due(now, true), "one at a time");
            resolver.answer(now, Ok(addresses(&["192.0.2.1:1"])));
            let next = now + Duration::from_secs(seconds);
            assert_eq!(resolver.next(), Some(next));
            assert!(!resolver.due(next.checked_sub(Duration::from_millis(1)).unwrap(), true));
            now = next;
        }
    }

    #[test]
    fn a_tunnel_that_is_up_asks_nothing_and_starts_afresh_when_dark() {
        let mut resolver = resolver(BOTH);
        let now = Instant::now();
        assert!(!resolver.due(now, false));
        assert!(resolver.due(now, true));
        resolver.answer(now, Ok(addresses(&["192.0.2.1:1"])));
        assert!(!resolver.due(now, true));
        assert!(!resolver.due(now, false));
        assert!(resolver.due(now, true));
    }

    #[test]
    fn only_families_with_a_socket_are_tried() {
        let mut resolver = resolver(Families { v4: true, v6: false });
        let now = Instant::now();
        let both = addresses(&["[2001:db8::1]:1", "192.0.2.1:1"]);
        assert_eq!(resolver.answer(now, Ok(both.clone())), Some(vec![both[1]]));
        let mut none = self::resolver(Families { v4: true, v6: false });
        assert_eq!(none.answer(now, Ok(addresses(&["[2001:db8::1]:1"]))), None);
    }

    #[test]
    fn a_failure_is_told_until_the_name_resolves() {
        let (mut resolver, now) = (resolver(BOTH), Instant::now());
        assert_eq!(resolver.failure(), None);
        resolver.answer(now, Err(io::Error::other("no such name")));
        let told = "cannot resolve vpn.example.com: no such name; trying again";
        assert_eq!(resolver.failure(), Some(told));
        resolver.answer(now, Ok(addresses(&["192.0.2.1:1"])));
        assert_eq!(resolver.failure(), None);
    }

    #[test]
    fn an_address_that_comes_twice_counts_once() {
        let mut resolver = resolver(BOTH);
        let twice = addresses(&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:1"]);
        assert_eq!(resolver.answer(Instant::now(), Ok(twice.clone())), Some(twice[..2].to_vec()));
    }

    #[tokio::test]
    async fn the_system_knows_addresses_without_asking_anybody() {
        assert_eq!(lookup("192.0.2.7", 5).await.unwrap(), addresses(&["192.0.2.7:5"]));
        assert!(lookup("no such name", 5).await.is_err());
    }
}
