//! The answer to `get=1`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::tunnel::key::PublicKey;

/// The state of a device.
#[derive(Default)]
pub struct DeviceAnswer {
    /// In hexadecimal digits.
    pub private_key: Option<Zeroizing<String>>,
    /// The port in use; 0 = none.
    pub listen_port: u16,
    /// 0 = none.
    pub fwmark: u32,
    /// All peers.
    pub peers: Vec<PeerAnswer>,
}

/// The state of a peer.
pub struct PeerAnswer {
    /// Who it is.
    pub public_key: PublicKey,
    /// In hexadecimal digits.
    pub preshared_key: Option<Zeroizing<String>>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake was, since the epoch.
    pub last_handshake: Option<Duration>,
    /// Bytes of datagrams to it.
    pub sent: u64,
    /// Bytes of datagrams from it.
    pub received: u64,
    /// In seconds; 0 = off.
    pub keepalive: u16,
    /// What it may send from.
    pub allowed_ips: Vec<IpNet>,
}

/// More than the longest answer about a peer has without its allowed IPs, and than one allowed IP has, in bytes.
const PEER_BYTES: usize = 512;
const ALLOWED_IP_BYTES: usize = 56;

impl DeviceAnswer {
    /// The text, up to but without the outcome; with keys only if `keys`. Wiped on drop.
    #[must_use]
    pub fn text(&self, keys: bool) -> Zeroizing<String> {
        let peers = self.peers.iter().map(|peer| PEER_BYTES + peer.allowed_ips.len() * ALLOWED_IP_BYTES);
        // As large as it gets: growing would leave copies of the keys behind.
        let mut text = Zeroizing::new(String::with_capacity(PEER_BYTES + peers.sum::<usize>()));
        if let Some(key) = self.private_key.as_ref().filter(|_| keys) {
            let _ = writeln!(text, "private_key={}", **key);
        }
        if self.listen_port != 0 {
            let _ = writeln!(text, "listen_port={}", self.listen_port);
        }
        if self.fwmark != 0 {
            let _ = writeln!(text, "fwmark={}", self.fwmark);
        }
        for peer in &self.peers {
            // Writing into a string does not fail.
            let _ = peer.write(&mut text, keys);
        }
        text
    }
}

impl PeerAnswer {
    fn write(&self, text: &mut String, keys: bool) -> std::fmt::Result {
        writeln!(text, "public_key={}", self.public_key.to_hex())?;
        if let Some(key) = self.preshared_key.as_ref().filter(|_| keys) {
            writeln!(text, "preshared_key={}", **key)?;
        }
        writeln!(text, "protocol_version=1")?;
        if let Some(endpoint) = self.endpoint {
            writeln!(text, "endpoint={endpoint}")?;
        }
        let handshake = self.last_handshake.unwrap_or_default();
        writeln!(text, "last_handshake_time_sec={}", handshake.as_secs())?;
        writeln!(text, "last_handshake_time_nsec={}", handshake.subsec_nanos())?;
        writeln!(text, "tx_bytes={}\nrx_bytes={}", self.sent, self.received)?;
        writeln!(text, "persistent_keepalive_interval={}", self.keepalive)?;
        self.allowed_ips.iter().try_for_each(|network| writeln!(text, "allowed_ip={network}"))
    }
}
