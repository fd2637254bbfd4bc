//! A stock WireGuard peer in a few lines: boringtun's `Tunn` behind a UDP socket, driven by the test.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::{Tunn, TunnResult};
use linkspan::tunnel::key::{PrivateKey, PublicKey};
use socket2::SockRef;
use x25519_dalek::StaticSecret;

use super::eventually;
use super::host::Host;

/// A peer at an address of a host.
pub struct WgPeer {
    tunn: Tunn,
    socket: UdpSocket,
    buffer: Vec<u8>,
}

/// Handshake initiations to the holder of `remote`, sound but for their senders, whom nobody knows.
pub fn initiations(remote: &PublicKey, count: usize) -> Vec<Vec<u8>> {
    let remote = x25519_dalek::PublicKey::from(*remote.as_bytes());
    let initiation = |n: usize| {
        let secret = StaticSecret::from(std::array::from_fn(|at| n.to_le_bytes()[at % 8] ^ 0x5a));
        let (mut tunn, mut out) = (Tunn::new(secret, remote, None, None, 7, None), [0; 256]);
        let TunnResult::WriteToNetwork(message) = tunn.format_handshake_initiation(&mut out, true) else {
            panic!("an initiation")
        };
        message.to_vec()
    };
    (0..count).map(initiation).collect()
}

impl WgPeer {
    /// At `local`, an address of `host`, for the far end at `remote`. Says nothing yet.
    pub fn new(host: &Host, local: SocketAddr, key: &PrivateKey, remote: (SocketAddr, PublicKey)) -> Self {
        let secret = <[u8; 32]>::try_from(STANDARD.decode(key.reveal().as_bytes()).unwrap()).unwrap();
        let public = x25519_dalek::PublicKey::from(*remote.1.as_bytes());
        let tunn = Tunn::new(StaticSecret::from(secret), public, None, None, 7, None);
        let socket = host.udp(&local.to_string());
        socket.connect(remote.0).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self { tunn, socket, buffer: vec![0; 1 << 16] }
    }

    /// The same, with a session that it has initiated.
    pub fn connect(host: &Host, local: SocketAddr, key: &PrivateKey, remote: (SocketAddr, PublicKey)) -> Self {
        let mut peer = Self::new(host, local, key, remote);
        peer.shake_hands();
        peer
    }

    fn shake_hands(&mut self) {
        let mut out = [0; 256];
        eventually(Duration::from_secs(10), "a handshake", || {
            if let TunnResult::WriteToNetwork(initiation) = self.tunn.format_handshake_initiation(&mut out, true) {
                let _ = self.socket.send(initiation);
            }
            // Half a second for the answer, then another initiation.
            (0..25).find_map(|_| {
                self.receive();
                self.tunn.time_since_last_handshake()
            })
        });
        // The far end may send only once it has heard transport data: an empty packet.
        self.send(&[]);
    }

    /// Seals `inner`, whatever it is, and sends it. Never padded.
    pub fn send(&mut self, inner: &[u8]) {
        let mut out = vec![0; inner.len().max(148) + 32];
        let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(inner, &mut out) else {
            panic!("the session is gone")
        };
        self.socket.send(datagram).unwrap();
    }

    /// The next inner packet that arrives, unless nothing comes for 20 ms; answers handshakes on the way.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut out = vec![0; 1 << 16];
        let length = self.socket.recv(&mut self.buffer).ok()?;
        let mut result = self.tunn.decapsulate(None, &self.buffer[..length], &mut out);
        while let TunnResult::WriteToNetwork(datagram) = result {
            let _ = self.socket.send(datagram);
            result = self.tunn.decapsulate(None, &[], &mut out);
        }
        match result {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => Some(packet.to_vec()),
            TunnResult::Done | TunnResult::Err(_) | TunnResult::WriteToNetwork(_) => None,
        }
    }

    /// Waits for an inner packet that `wanted` accepts.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        eventually(Duration::from_secs(10), what, || self.receive().filter(|packet| wanted(packet)))
    }

    /// The ECN bits of its datagrams from now on.
    pub fn set_ecn(&self, ecn: u8) {
        let socket = SockRef::from(&self.socket);
        if self.socket.local_addr().unwrap().is_ipv4() {
            socket.set_tos_v4(ecn.into()).unwrap();
        } else {
            socket.set_tclass_v6(ecn.into()).unwrap();
        }
    }
}
