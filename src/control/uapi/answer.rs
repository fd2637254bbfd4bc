//! A peer's state, as `wg` wants it.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

use crate::config::uapi::PeerAnswer;
use crate::tunnel::Peer;

/// Remembers when a peer's last handshake was by the wall clock: computed anew from its age, it would flicker.
#[derive(Debug, Default)]
pub(in crate::control) struct Handshakes(Cell<Option<Duration>>);

impl Handshakes {
    /// When the last one was, `age` ago.
    fn at(&self, age: Option<Duration>) -> Option<Duration> {
        const FLICKER: Duration = Duration::from_secs(1);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Some(at) = age.map(|age| wall.saturating_sub(age))
            && self.0.get().is_none_or(|known| known.abs_diff(at) > FLICKER)
        {
            self.0.set(Some(at));
        }
        self.0.get()
    }
}

/// The state of `peer`, which may send from `allowed_ips`.
pub(in crate::control) fn peer_answer(peer: &Peer, handshakes: &Handshakes, allowed_ips: Vec<IpNet>) -> PeerAnswer {
    let (sent, received) = peer.counters.wire();
    let keepalive = peer.keepalive().unwrap_or_default().as_secs();
    PeerAnswer {
        public_key: *peer.key(),
        preshared_key: peer.reveal_psk_hex(),
        endpoint: peer.address().map(|address| address.remote),
        last_handshake: handshakes.at(peer.lane.view(Instant::now()).last_handshake),
        sent,
        received,
        keepalive: u16::try_from(keepalive).unwrap_or(u16::MAX),
        allowed_ips,
    }
}
