//! What `wg show` sees of a daemon whose file is the truth. `wg set` is refused.

use std::cell::RefCell;

use ipnet::IpNet;
use tracing::warn;

use super::{Device, peer_answer};
use crate::config::uapi::{Change, DeviceAnswer, Refusal};
use crate::config::{Connection, Tunnel};
use crate::control::in_force::InForce;

/// A daemon that takes no changes.
pub(in crate::control) struct ReadOnly<'d>(pub(in crate::control) &'d RefCell<InForce>);

impl Device for ReadOnly<'_> {
    fn answer(&self) -> DeviceAnswer {
        let now = self.0.borrow();
        let peers = now.tunnels.iter().zip(now.config.tunnels()).map(|(watch, (connection, tunnel))| {
            peer_answer(&watch.peer, &watch.handshakes, allowed_ips(connection, tunnel))
        });
        DeviceAnswer {
            private_key: Some(now.identity.reveal_hex()),
            listen_port: now.sockets.port,
            fwmark: now.sockets.mark(),
            peers: peers.collect(),
        }
    }

    fn change(&self, _: Change) -> Result<(), Refusal> {
        let name = &self.0.borrow().config.interface.name;
        warn!("`wg set {name}` refused: the configuration file is the truth; edit it, then: linkspan reload {name}");
        Err(Refusal::NotPermitted)
    }
}

/// The connection's networks, and the far inside address.
fn allowed_ips(connection: &Connection, tunnel: &Tunnel) -> Vec<IpNet> {
    let inside = tunnel.inside.map(|inside| IpNet::from(inside.remote));
    connection.networks.iter().copied().chain(inside).collect()
}
