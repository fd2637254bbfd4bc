//! Where far ends were last heard, over a restart: who has no endpoint would have to call first, and may take 15 s to
//! notice; a name would have to be looked up. Only public keys and addresses; a wrong place costs one attempt.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::state::State;
use super::tunnels::Tunnels;
use crate::tunnel::key::PublicKey;

/// How often it is written while the daemon runs, if anything has changed.
const WRITE: Duration = Duration::from_secs(60);

type Places = BTreeMap<String, SocketAddr>;

/// One interface's file.
pub(super) struct Recall {
    state: State,
    places: Places,
    looked: Option<Instant>,
}

impl Recall {
    pub(super) fn read(directory: Option<&Path>, name: &str) -> Self {
        let state = State::new(directory, name);
        let places = state.peers().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self { state, places, looked: None }
    }

    /// Where the far machine with this key was heard.
    pub(super) fn of(&self, key: &PublicKey) -> Option<SocketAddr> {
        self.places.get(&key.to_string()).copied()
    }

    /// While the daemon runs.
    pub(super) fn write_at_times(&mut self, tunnels: &Tunnels, now: Instant) {
        if self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= WRITE) {
            self.looked = Some(now);
            self.write(tunnels);
        }
    }

    /// At a stop. Who was not heard since the start is where it was before.
    pub(super) fn write(&mut self, tunnels: &Tunnels) {
        let now = Instant::now();
        let place = |watch: &super::tunnels::Watch| {
            let key = watch.peer.key();
            let heard =
                watch.peer.lane.view(now).last_receive.and_then(|_| watch.peer.address()).map(|address| address.remote);
            Some((key.to_string(), heard.or_else(|| self.of(key))?))
        };
        let places: Places = tunnels.iter().filter_map(place).collect();
        if places == self.places {
            return;
        }
        if let Ok(text) = serde_json::to_string_pretty(&places) {
            self.state.set_peers(&text);
        }
        self.places = places;
    }
}
