//! Before anything is queued: does a handshake message know our key, and does its sender live where it says?
//!
//! mac1 is checked for each, on the data threads. Past a number a second, mac2 too (paper, section 5.4.7), and only
//! then a budget for each source applies: before, a source is whatever somebody wrote into a header. Even of the
//! proven ones no more pass than one thread can bear. Cookie replies prove nothing, so few of them pass.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::key::PublicKey;
use super::lane::engine::{Checked, Limiter};
use super::wire::{self, Kind};
use crate::packet::Reason;

/// Handshake messages a second from which on senders have to prove their address: 0.3 s of curve operations.
const LIMIT: u64 = 1000;
/// Messages a second from one source (a /64 for IPv6) while that is so.
const SOURCE_LIMIT: u32 = 20;
/// Messages a second from all of them.
const PROVEN_LIMIT: u32 = 1000;
/// Cookie replies a second to one of our sessions, and to all: we ask for a session once in 5 s.
const COOKIE_LIMIT: u32 = 4;
const COOKIES_LIMIT: u32 = 500;
/// Sources that are told apart, more or less: two may share a place.
const SOURCES: usize = 4096;

/// The handshake gate of one public key.
pub struct Gate {
    limiter: Limiter,
    sources: Budgets,
    proven: AtomicU32,
    sessions: Budgets,
    cookies: AtomicU32,
}

/// What becomes of a handshake message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It may be queued for the handshake thread.
    Pass,
    /// The same, and its sender has proven its address: it need not stand behind those who have not.
    Proven,
    /// A cookie reply of so many bytes was written: to be sent to the source instead.
    Cookie(usize),
    /// Drop it and count it.
    Drop(Reason),
}

impl Gate {
    /// The gate of `public`, which is our own key.
    #[must_use]
    pub fn new(public: &PublicKey) -> Self {
        Self {
            limiter: Limiter::new(public, LIMIT),
            sources: Budgets::new(),
            proven: AtomicU32::new(0),
            sessions: Budgets::new(),
            cookies: AtomicU32::new(0),
        }
    }

    /// Judges a handshake message (types 1, 2 and 3) from `source`. About 1 us.
    pub fn admit(&self, source: IpAddr, message: &[u8], cookie: &mut [u8; wire::COOKIE]) -> Verdict {
        match wire::kind(message) {
            Some(Kind::Initiation | Kind::Response) => self.admit_signed(source, message, cookie),
            // It carries no mac1; only the engine that asked for it can read it.
            Some(Kind::Cookie) if self.expects_cookie(message) => Verdict::Pass,
            Some(Kind::Cookie) => Verdict::Drop(Reason::InUnderLoad),
            Some(Kind::Transport) | None => Verdict::Drop(Reason::InMalformed),
        }
    }

    fn admit_signed(&self, source: IpAddr, message: &[u8], cookie: &mut [u8; wire::COOKIE]) -> Verdict {
        match self.limiter.check(None, message, cookie) {
            Checked::Sound => Verdict::Pass,
            Checked::UnderLoad => self.admit_proven(source, message, cookie),
            Checked::BadMac1 => Verdict::Drop(Reason::InBadMac1),
            Checked::Cookie | Checked::Malformed => Verdict::Drop(Reason::InMalformed),
        }
    }

    /// Under load.
    fn admit_proven(&self, source: IpAddr, message: &[u8], cookie: &mut [u8; wire::COOKIE]) -> Verdict {
        match self.limiter.check(Some(source), message, cookie) {
            Checked::Sound if self.within_budgets(source) => Verdict::Proven,
            Checked::Cookie => Verdict::Cookie(wire::COOKIE),
            Checked::Sound | Checked::UnderLoad | Checked::BadMac1 | Checked::Malformed => {
                Verdict::Drop(Reason::InUnderLoad)
            }
        }
    }

    fn within_budgets(&self, source: IpAddr) -> bool {
        let site = match source {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => u64::from_be_bytes(address.octets().first_chunk().copied().unwrap_or_default()),
        };
        // Its own first: whoever is beyond it takes nothing from the others.
        self.sources.take(site, SOURCE_LIMIT) && self.proven.fetch_add(1, Relaxed) < PROVEN_LIMIT
    }

    fn expects_cookie(&self, message: &[u8]) -> bool {
        let index = wire::receiver_index(message).map_or(0, |index| u64::from(index.value()));
        self.sessions.take(index, COOKIE_LIMIT) && self.cookies.fetch_add(1, Relaxed) < COOKIES_LIMIT
    }

    /// Starts a new second; to be called once a second.
    pub fn each_second(&self) {
        self.limiter.each_second();
        self.sources.refill();
        self.sessions.refill();
        self.proven.store(0, Relaxed);
        self.cookies.store(0, Relaxed);
    }
}

/// Counts in a table of fixed size, by whatever names somebody writes.
struct Budgets {
    counts: Box<[AtomicU32]>,
    hasher: RandomState,
}

impl Budgets {
    fn new() -> Self {
        let counts = std::iter::repeat_with(AtomicU32::default).take(SOURCES).collect();
        Self { counts, hasher: RandomState::new() }
    }

    /// Counts one for `name`: whether it had less than `limit`.
    fn take(&self, name: u64, limit: u32) -> bool {
        let place = usize::try_from(self.hasher.hash_one(name) % SOURCES as u64).unwrap_or_default();
        let before = self.counts.get(place).map(|count| count.fetch_add(1, Relaxed));
        before.is_some_and(|before| before < limit)
    }

    fn refill(&self) {
        for count in &self.counts {
            count.store(0, Relaxed);
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
