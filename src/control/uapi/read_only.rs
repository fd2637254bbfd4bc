//! What `wg show` sees of a daemon whose file is the truth. `wg set` is refused.

use std::cell::RefCell;
use std::sync::Arc;

use ipnet::IpNet;
use tracing::warn;

use super::{Device, Handshakes, peer_answer};
use crate::config::uapi::{Change, DeviceAnswer, Refusal};
use crate::config::{Config, Connection, Tunnel};
use crate::control::tunnels::Tunnels;
use crate::sys::udp::Group;
use crate::tunnel::Identity;

/// A daemon that takes no changes.
pub(in crate::control) struct ReadOnly<'d> {
    config: &'d Config,
    identity: Arc<Identity>,
    sockets: Group,
    tunnels: &'d RefCell<Tunnels>,
    /// One a tunnel.
    handshakes: Vec<Handshakes>,
}

impl<'d> ReadOnly<'d> {
    pub(in crate::control) fn new(
        config: &'d Config,
        identity: Arc<Identity>,
        sockets: Group,
        tunnels: &'d RefCell<Tunnels>,
    ) -> Self {
        let handshakes = config.tunnels().map(|_| Handshakes::default()).collect();
        Self { config, identity, sockets, tunnels, handshakes }
    }
}

impl Device for ReadOnly<'_> {
    fn answer(&self) -> DeviceAnswer {
        let tunnels = self.tunnels.borrow();
        let watches = tunnels.iter().zip(&self.handshakes).zip(self.config.tunnels());
        let peers = watches.map(|((watch, handshakes), (connection, tunnel))| {
            peer_answer(&watch.peer, handshakes, allowed_ips(connection, tunnel))
        });
        DeviceAnswer {
            private_key: Some(self.identity.reveal_hex()),
            listen_port: self.sockets.port,
            fwmark: self.sockets.mark(),
            peers: peers.collect(),
        }
    }

    fn change(&self, _: Change) -> Result<(), Refusal> {
        let name = &self.config.interface.name;
        warn!("`wg set {name}` refused: the configuration file is the truth; edit it and restart the daemon");
        Err(Refusal::NotPermitted)
    }
}

/// The connection's networks, and the far inside address.
fn allowed_ips(connection: &Connection, tunnel: &Tunnel) -> Vec<IpNet> {
    let inside = tunnel.inside.map(|inside| IpNet::from(inside.remote));
    connection.networks.iter().copied().chain(inside).collect()
}
