//! What is in force: the configuration that was last applied, and what was made of it. A reload changes it whole.

use std::rc::Rc;
use std::sync::Arc;

use super::report::Facts;
use super::roster::Roster;
use super::tunnels::Tunnels;
use crate::config::{Config, Tunnel};
use crate::sys::udp::Group;
use crate::tunnel::key::PublicKey;
use crate::tunnel::{Gate, Identity, Peer};

pub(super) struct InForce {
    pub(super) config: Rc<Config>,
    pub(super) identity: Arc<Identity>,
    pub(super) gate: Arc<Gate>,
    pub(super) sockets: Group,
    pub(super) roster: Roster,
    /// In the order of the file.
    pub(super) tunnels: Tunnels,
    pub(super) facts: Facts,
}

impl InForce {
    /// The tunnel to the far machine with this key.
    pub(super) fn tunnel(&self, key: &PublicKey) -> Option<(&Tunnel, &Arc<Peer>)> {
        let mut all = self.config.tunnels().zip(self.tunnels.iter());
        all.find_map(|((_, tunnel), watch)| (tunnel.public_key == *key).then_some((tunnel, &watch.peer)))
    }

    /// All peers, in the order of the file.
    pub(super) fn peers(&self) -> Vec<Arc<Peer>> {
        self.tunnels.iter().map(|watch| watch.peer.clone()).collect()
    }
}
