//! Puts the status together, from what never changes and what does.

use std::time::{Duration, Instant};

use tracing::info;

use super::status::{Connection, Drop, Handshakes, Interface, State, Status, Thread, Tunnel, Wire, rfc3339};
use super::tunnels::{Tunnels, Watch};
use crate::config::{self, Config};
use crate::data::Plane;
use crate::packet::Mtu;
use crate::sys::tun::{Device, Offloads};
use crate::tunnel::{self, Identity};

/// What changes only at a reload.
pub(super) struct Facts {
    interface: Interface,
    started: Instant,
    /// Name, networks and tunnel names of each connection.
    connections: Vec<(String, Vec<String>, Vec<String>)>,
}

impl Facts {
    pub(super) fn new(
        config: &Config,
        identity: &Identity,
        device: &Device,
        port: u16,
        workers: usize,
        mtu: Mtu,
    ) -> Self {
        let interface = Interface {
            name: device.name.clone(),
            index: device.index,
            mtu: u16::try_from(mtu.bytes()).unwrap_or(u16::MAX),
            port,
            offloads: words(device.offloads).to_owned(),
            public_key: identity.public().to_string(),
            workers: u32::try_from(workers).unwrap_or(u32::MAX),
        };
        Self { interface, started: Instant::now(), connections: connections(config) }
    }

    /// After a reload.
    pub(super) fn follow(&mut self, config: &Config, identity: &Identity, port: u16, mtu: Mtu) {
        self.interface.mtu = u16::try_from(mtu.bytes()).unwrap_or(u16::MAX);
        self.interface.port = port;
        self.interface.public_key = identity.public().to_string();
        self.connections = connections(config);
    }

    /// The first line of the log.
    pub(super) fn log(&self) {
        let Interface { name: interface, port, mtu, offloads, .. } = &self.interface;
        let tunnels: usize = self.connections.iter().map(|(_, _, tunnels)| tunnels.len()).sum();
        info!(interface, port, mtu, offloads, tunnels, "started");
    }

    /// The status of this moment.
    pub(super) fn status(
        &self,
        plane: &Plane,
        tunnels: &Tunnels,
        clock_behind: Duration,
        warnings: Vec<String>,
    ) -> Status {
        let now = Instant::now();
        let mut watches = tunnels.iter();
        let connections: Vec<_> = self
            .connections
            .iter()
            .map(|(name, networks, names)| {
                let tunnels: Vec<_> =
                    names.iter().zip(&mut watches).map(|(name, watch)| self.tunnel(name, watch, now)).collect();
                let state = State::of(tunnels.iter().map(|tunnel| tunnel.state));
                Connection { name: name.clone(), networks: networks.clone(), state, tunnels }
            })
            .collect();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interface: self.interface.clone(),
            uptime_s: self.started.elapsed().as_secs(),
            state: State::of(connections.iter().flat_map(|connection| &connection.tunnels).map(|tunnel| tunnel.state)),
            connections,
            drops: drops(plane),
            threads: threads(plane),
            clock_behind_s: clock_behind.as_secs(),
            warnings,
        }
    }

    fn tunnel(&self, name: &str, watch: &Watch, now: Instant) -> Tunnel {
        let view = watch.peer.lane.view(now);
        let (initiations, failed) = watch.peer.counters.initiations();
        let seconds = |age: Option<Duration>| age.map(|age| age.as_secs());
        Tunnel {
            name: name.to_owned(),
            public_key: watch.peer.key().to_string(),
            state: match watch.state {
                tunnel::State::Up => State::Up,
                tunnel::State::Down => State::Down,
            },
            since: rfc3339(watch.since.0),
            since_s: now.saturating_duration_since(watch.since.1).as_secs(),
            endpoint: watch.peer.address().map(|address| address.remote.to_string()),
            configured_endpoint: watch.configured.as_ref().map(ToString::to_string),
            last_handshake_s: seconds(view.last_handshake),
            last_receive_s: seconds(view.last_receive),
            mtu: self.interface.mtu,
            sent: watch.sent.traffic(watch.peer.counters.sent()),
            received: watch.received.traffic(watch.peer.counters.received()),
            wire: wire(watch),
            handshakes: Handshakes { completed: view.handshakes, initiations, failed },
        }
    }
}

/// Name, networks and tunnel names of each.
fn connections(config: &Config) -> Vec<(String, Vec<String>, Vec<String>)> {
    let connection = |connection: &config::Connection| {
        let networks = connection.networks.iter().map(ToString::to_string).collect();
        let tunnels = connection.tunnels.iter().map(|tunnel| tunnel.name.clone()).collect();
        (connection.name.clone(), networks, tunnels)
    };
    config.connections.iter().map(connection).collect()
}

/// What the kernel takes as super-packets, in words.
pub(super) const fn words(offloads: Offloads) -> &'static str {
    match (offloads.tcp, offloads.udp) {
        (true, true) => "tcp+udp",
        (true, false) => "tcp",
        (false, true) => "udp",
        (false, false) => "none",
    }
}

fn wire(watch: &Watch) -> Wire {
    let (sent_bytes, received_bytes) = watch.peer.counters.wire();
    Wire { sent_bytes, received_bytes }
}

fn threads(plane: &Plane) -> Vec<Thread> {
    let busy_ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    plane.busy().map(|(name, time)| Thread { name: name.to_owned(), busy_ms: busy_ms(time) }).collect()
}

fn drops(plane: &Plane) -> Vec<Drop> {
    let counted = plane.drops().filter(|(_, packets)| *packets > 0);
    counted
        .map(|(reason, packets)| Drop {
            reason: reason.key().to_owned(),
            packets,
            sentence: reason.sentence().to_owned(),
        })
        .collect()
}
