//! What a valid configuration says, with every default filled in.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::packet::Mtu;
use crate::tunnel::key::PublicKey;

/// One interface and all that goes through it: one file, one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The interface itself.
    pub interface: Interface,
    /// The remote sites. At least one.
    pub connections: Vec<Connection>,
}

impl Config {
    /// Every tunnel with its connection, in the order of the file.
    pub fn tunnels(&self) -> impl Iterator<Item = (&Connection, &Tunnel)> {
        self.connections.iter().flat_map(|connection| connection.tunnels.iter().map(move |tunnel| (connection, tunnel)))
    }
}

/// `[interface]`
#[derive(Debug, Clone, PartialEq)]
pub struct Interface {
    /// Name of the file and of the network interface; 1 to 15 bytes.
    pub name: String,
    /// Where the private key is; read when the daemon starts, and at a reload.
    pub private_key_file: PathBuf,
    /// UDP port on which datagrams arrive and from which they leave; 1,024 or above.
    pub listen_port: u16,
    /// Addresses of the interface, with their prefix length.
    pub addresses: Vec<IpNet>,
    /// What `mtu` fixes; none = "auto".
    pub mtu: Option<Mtu>,
    /// Firewall mark of our own datagrams; 0 = chosen when needed.
    pub fwmark: u32,
    /// Whether the kernel may hand over and take super-packets.
    pub offload: bool,
    /// Worker pairs; 0 = one per core.
    pub workers: usize,
    /// Where Prometheus may ask; a loopback address. None = by the status socket only.
    pub metrics: Option<SocketAddr>,
}

/// `[[connection]]`: a remote site.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// Unique in the file.
    pub name: String,
    /// What is behind the far end; truncated to network addresses, never overlapping exactly.
    pub networks: Vec<IpNet>,
    /// What is behind this end; empty = unchecked.
    pub local_networks: Vec<IpNet>,
    /// Whether Linkspan installs routes to `networks`.
    pub routes: bool,
    /// Routing table of those routes; 254 = main.
    pub table: u32,
    /// Metric of those routes.
    pub metric: u32,
    /// Preferred source of those routes.
    pub route_source: RouteSource,
    /// What happens to packets for `networks` while no tunnel is up.
    pub when_down: FailClosed,
    /// Who starts.
    pub startup: Startup,
    /// The tunnels; exactly one for now.
    pub tunnels: Vec<Tunnel>,
}

/// `route_source`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteSource {
    /// This host's address in `local_networks`, if it has one; followed when it changes.
    Auto,
    /// None: the kernel chooses.
    None,
    /// This address.
    Address(IpAddr),
}

/// `when_down`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailClosed {
    /// An unreachable route of last resort stands from before the first session until a clean stop.
    Unreachable,
    /// No such route: packets may leave by another route.
    Withdraw,
}

/// `startup_action`, AWS's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// Initiate at start, and keep trying.
    Start,
    /// Wait for the peer.
    Add,
}

/// `[[connection.tunnel]]`: a far machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnel {
    /// Unique within its connection.
    pub name: String,
    /// The far machine's key, unique in the file.
    pub public_key: PublicKey,
    /// Where the far machine is; none = it comes to us.
    pub endpoint: Option<Endpoint>,
    /// Where the preshared key is.
    pub preshared_key_file: Option<PathBuf>,
    /// Addresses of both ends inside the tunnel.
    pub inside: Option<Inside>,
    /// How often to be heard at least; none = off.
    pub keepalive: Option<Duration>,
}

/// `inside_cidr` and `inside`: both ends' addresses, and the network (a /30 or /126) they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// This end, with the prefix length.
    pub local: IpNet,
    /// The far end.
    pub remote: IpAddr,
}

/// Whether `network` is the default route or a half of it (0.0.0.0/1, 128.0.0.0/1), as some write it.
#[must_use]
pub fn is_default(network: &IpNet) -> bool {
    network.prefix_len() <= 1
}

/// `endpoint`: a name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address, taken as it is.
    Address(SocketAddr),
    /// A name, resolved while the tunnel is dark.
    Name(String, u16),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}
