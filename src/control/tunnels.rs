//! The tunnels as the control plane sees them: which state each is in and since when, and where its peer is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, info, warn};

use super::places::Places;
use super::rates::Rate;
use super::resolve::Resolver;
use crate::config::{Endpoint, Startup};
use crate::tunnel::{Address, Peer, State};

/// A far end that was called for so long without an answer is worth a warning: two initiations got none.
const SILENCE: Duration = Duration::from_secs(12);

/// One tunnel.
pub(super) struct Watch {
    pub(super) peer: Arc<Peer>,
    pub(super) configured: Option<Endpoint>,
    pub(super) state: State,
    pub(super) since: (SystemTime, Instant),
    pub(super) sent: Rate,
    pub(super) received: Rate,
    resolver: Option<Resolver>,
    places: Places,
    /// We call the far end, it need not call us.
    calls: bool,
    silent: bool,
}

/// A name to be looked up for the tunnel at `place`.
pub(super) struct Question {
    pub(super) place: usize,
    pub(super) name: String,
    pub(super) port: u16,
}

impl Watch {
    pub(super) fn new(peer: Arc<Peer>, configured: Option<Endpoint>, startup: Startup) -> Self {
        let since = (SystemTime::now(), Instant::now());
        let calls = startup == Startup::Start;
        Self {
            peer,
            configured,
            state: State::Down,
            since,
            sent: Rate::new(since.1),
            received: Rate::new(since.1),
            resolver: None,
            places: Places::default(),
            calls,
            silent: false,
        }
    }

    /// The endpoint stands for `addresses`, if any is known.
    pub(super) fn set_endpoint(&mut self, addresses: Vec<SocketAddr>) {
        let at = self.at();
        // A peer that was heard elsewhere meanwhile is there.
        let up = self.peer.state(Instant::now()) == State::Up;
        if let Some(address) = self.places.set_endpoint(addresses, at).filter(|_| !up) {
            self.peer.set_address(Address::new(address));
        }
    }

    /// The endpoint is a name, to be looked up while the tunnel is dark.
    pub(super) fn resolve_with(&mut self, resolver: Resolver) {
        self.resolver = Some(resolver);
    }

    fn at(&self) -> Option<SocketAddr> {
        self.peer.address().map(|address| address.remote)
    }

    /// Seeks a peer that is silent at its next place.
    fn seek(&mut self, now: Instant) {
        let at = self.at();
        match (self.state, at) {
            (State::Up, Some(at)) => self.places.heard(at),
            (State::Up, None) => {}
            (State::Down, at) => {
                if let Some(place) = self.places.turn(now, at) {
                    debug!(tunnel = self.peer.name(), "trying {place}");
                    self.peer.set_address(Address::new(place));
                }
            }
        }
    }

    /// Notes rates and a change of state, with one line in the log, and tells once of a far end that does not answer.
    fn look(&mut self, now: Instant) {
        let state = self.peer.state(now);
        if state != self.state {
            self.change(state, now);
        } else if !self.silent
            && let Some(warning) = self.warning(now)
        {
            self.silent = true;
            warn!("{warning}");
        }
        self.sent.look(now, self.peer.counters.sent());
        self.received.look(now, self.peer.counters.received());
        self.seek(now);
    }

    /// That the far end was called in vain, and what may be the matter.
    fn warning(&self, now: Instant) -> Option<String> {
        let dark = self.calls && self.state == State::Down && now.saturating_duration_since(self.since.1) >= SILENCE;
        let address = self.peer.address().filter(|_| dark)?;
        Some(format!(
            "tunnel {}: no answer from {}: is the far end running, does it know this end's public key (and \
             preshared key, if any), and do the firewalls let that UDP port through?",
            self.peer.name(),
            address.remote
        ))
    }

    fn change(&mut self, state: State, now: Instant) {
        let lasted = now.saturating_duration_since(self.since.1).as_secs();
        self.state = state;
        self.since = (SystemTime::now(), now);
        self.silent = false;
        let endpoint = self.peer.address().map(|address| address.remote.to_string()).unwrap_or_default();
        match state {
            State::Up => info!(tunnel = self.peer.name(), endpoint, "tunnel is up"),
            State::Down => info!(tunnel = self.peer.name(), endpoint, was_up_s = lasted, "tunnel is down"),
        }
    }
}

/// All tunnels, in the order of the file.
pub(super) struct Tunnels(Vec<Watch>);

impl Tunnels {
    pub(super) const fn new(watches: Vec<Watch>) -> Self {
        Self(watches)
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Watch> {
        self.0.iter()
    }

    /// Looks at every tunnel's state.
    pub(super) fn look(&mut self, now: Instant) {
        for watch in &mut self.0 {
            watch.look(now);
        }
    }

    /// What an admin should know of them, one sentence each.
    pub(super) fn warnings(&self, now: Instant) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(move |watch| watch.warning(now))
    }

    /// Whether a tunnel is dark whose far end has a name.
    pub(super) fn seek_a_name(&self) -> bool {
        self.0.iter().any(|watch| watch.state == State::Down && watch.resolver.is_some())
    }

    /// Where all peers are, may be or call from, as far as that is known. The same while they are sought.
    pub(super) fn endpoints(&self) -> Vec<IpAddr> {
        let peers = || self.0.iter().map(|watch| &watch.peer);
        let addresses = peers().filter_map(|peer| Some(peer.address()?.remote.ip()));
        let callers = peers().filter_map(|peer| peer.caller(Instant::now()));
        let places = self.0.iter().flat_map(|watch| watch.places.iter()).map(|place| place.ip());
        let mut all: Vec<IpAddr> = addresses.chain(callers).chain(places).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Names that could not be resolved, one line each.
    pub(super) fn problems(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|watch| watch.resolver.as_ref()?.failure())
    }

    /// The names that are due to be looked up, because their tunnels are dark.
    pub(super) fn questions(&mut self, now: Instant) -> Vec<Question> {
        let mut questions = Vec::new();
        for (place, watch) in self.0.iter_mut().enumerate() {
            let dark = watch.state == State::Down;
            if let Some(resolver) = watch.resolver.as_mut()
                && resolver.due(now, dark)
            {
                questions.push(Question { place, name: resolver.name().to_owned(), port: resolver.port() });
            }
        }
        questions
    }

    /// The answer to a question.
    pub(super) fn answer(&mut self, place: usize, answer: std::io::Result<Vec<SocketAddr>>) {
        let Some(watch) = self.0.get_mut(place) else { return };
        if let Some(addresses) = watch.resolver.as_mut().and_then(|resolver| resolver.answer(Instant::now(), answer)) {
            watch.set_endpoint(addresses);
        }
    }

    /// Starts all handshakes over with the wall clock of now.
    pub(super) fn recreate(&self, now: Instant) {
        warn!("the clock stepped forward: all tunnels shake hands anew; traffic goes on meanwhile");
        for watch in &self.0 {
            watch.peer.recreate(now);
        }
    }
}
