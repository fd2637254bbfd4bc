//! The tunnels as the control plane sees them: which state each is in and since when, and where its peer is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, info, warn};

use super::places::Places;
use super::rates::Rate;
use super::recall::Recall;
use super::resolve::{Families, Resolver};
use super::uapi::Handshakes;
use crate::config::{Config, Connection, Endpoint, Startup, Tunnel};
use crate::tunnel::{Address, Peer, PeerId, State};

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
    /// What `wg` was told of its handshakes.
    pub(super) handshakes: Handshakes,
    resolver: Option<Resolver>,
    places: Places,
    /// We call the far end, it need not call us.
    calls: bool,
    silent: bool,
}

/// A name to be looked up for the tunnel to `peer`.
pub(super) struct Question {
    pub(super) peer: PeerId,
    pub(super) name: String,
    pub(super) port: u16,
}

impl Watch {
    fn new(peer: Arc<Peer>) -> Self {
        let since = (SystemTime::now(), Instant::now());
        Self {
            peer,
            configured: None,
            state: State::Down,
            since,
            sent: Rate::new(since.1),
            received: Rate::new(since.1),
            handshakes: Handshakes::default(),
            resolver: None,
            places: Places::default(),
            calls: true,
            silent: false,
        }
    }

    /// The file says this of it; a name stood for `resolved` just now, if that is known. With another endpoint, the peer
    /// is there from now on.
    fn follow(&mut self, connection: &Connection, tunnel: &Tunnel, families: Families, resolved: Vec<SocketAddr>) {
        self.calls = connection.startup == Startup::Start;
        if self.configured == tunnel.endpoint {
            return;
        }
        self.configured.clone_from(&tunnel.endpoint);
        self.resolver = None;
        let addresses = match &tunnel.endpoint {
            Some(Endpoint::Address(address)) => Some(vec![*address]),
            Some(Endpoint::Name(name, port)) => {
                let resolver = self.resolver.insert(Resolver::new(name.clone(), *port, families));
                if resolved.is_empty() { None } else { resolver.answer(Instant::now(), Ok(resolved)) }
            }
            None => None,
        };
        self.places = Places::default();
        if let Some(first) = self.places.set_endpoint(addresses.unwrap_or_default(), None) {
            self.peer.set_address(Address::new(first));
        }
    }

    /// The endpoint stands for `addresses`, if any is known.
    fn set_endpoint(&mut self, addresses: Vec<SocketAddr>) {
        let at = self.at();
        // A peer that was heard elsewhere meanwhile is there.
        let up = self.peer.state(Instant::now()) == State::Up;
        if let Some(address) = self.places.set_endpoint(addresses, at).filter(|_| !up) {
            self.peer.set_address(Address::new(address));
        }
    }

    fn is_asked(&self, question: &Question) -> bool {
        let same = |resolver: &Resolver| resolver.name() == question.name && resolver.port() == question.port;
        self.peer.id() == question.peer && self.resolver.as_ref().is_some_and(same)
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
                    debug!(tunnel = self.peer.name().as_str(), "trying {place}");
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
            State::Up => info!(tunnel = self.peer.name().as_str(), endpoint, "tunnel is up"),
            State::Down => info!(tunnel = self.peer.name().as_str(), endpoint, was_up_s = lasted, "tunnel is down"),
        }
    }
}

/// All tunnels, in the order of the file.
#[derive(Default)]
pub(super) struct Tunnels(Vec<Watch>);

impl Tunnels {
    /// Follows `config` and its `peers`; what is known of those that were there before stays. `resolved` says what their
    /// endpoints' names stand for.
    pub(super) fn follow(
        &mut self,
        config: &Config,
        peers: &[Arc<Peer>],
        families: Families,
        resolved: Vec<Vec<SocketAddr>>,
    ) {
        let mut before = std::mem::take(&mut self.0);
        for (((connection, tunnel), peer), resolved) in config.tunnels().zip(peers).zip(resolved) {
            let known = before.iter().position(|watch| Arc::ptr_eq(&watch.peer, peer));
            let mut watch = known.map_or_else(|| Watch::new(peer.clone()), |place| before.swap_remove(place));
            watch.follow(connection, tunnel, families, resolved);
            self.0.push(watch);
        }
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Watch> {
        self.0.iter()
    }

    /// Remembers where far ends were last heard, as far as our sockets reach that. At a `restart` they are there still;
    /// else it is one place to look for them.
    pub(super) fn recall(&mut self, recall: &Recall, families: Families, restart: bool) {
        for watch in &mut self.0 {
            let Some(address) = recall.of(watch.peer.key()).filter(|address| families.reach(address)) else { continue };
            watch.places.heard(address);
            if restart {
                watch.peer.recall(Address::new(address), Instant::now());
            } else if watch.at().is_none() {
                watch.peer.set_address(Address::new(address));
            }
        }
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
        for watch in &mut self.0 {
            let dark = watch.state == State::Down;
            if let Some(resolver) = watch.resolver.as_mut()
                && resolver.due(now, dark)
            {
                questions.push(Question {
                    peer: watch.peer.id(),
                    name: resolver.name().to_owned(),
                    port: resolver.port(),
                });
            }
        }
        questions
    }

    /// The answer to a question. A reload may have made it useless.
    pub(super) fn answer(&mut self, question: &Question, answer: std::io::Result<Vec<SocketAddr>>) {
        let Some(watch) = self.0.iter_mut().find(|watch| watch.is_asked(question)) else { return };
        if let Some(addresses) = watch.resolver.as_mut().and_then(|resolver| resolver.answer(Instant::now(), answer)) {
            watch.set_endpoint(addresses);
        }
    }

    /// The next attempts need not wait.
    pub(super) fn hurry(&self) {
        self.0.iter().for_each(|watch| watch.peer.hurry());
    }

    /// Starts all handshakes over with the wall clock of now.
    pub(super) fn recreate(&self, now: Instant) {
        warn!("the clock stepped forward: all tunnels shake hands anew; traffic goes on meanwhile");
        for watch in &self.0 {
            watch.peer.recreate(now);
        }
    }
}
