//! The topology of the harness, and what can go wrong in its middle.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use linkspan::tunnel::key::{PrivateKey, PublicKey};

use super::host::{Host, sweep};
use super::root;

/// The sites, as indices.
pub const A: usize = 0;
pub const B: usize = 1;
pub const C: usize = 2;
/// Port of every daemon.
pub const PORT: u16 = 51820;

/// Sites around one router. Drawn at the head of the harness.
pub struct Net {
    pub sites: Vec<Site>,
    pub internet: Host,
    directory: tempfile::TempDir,
}

/// A LAN host behind a gateway.
pub struct Site {
    pub number: u8,
    pub lan: Host,
    pub gateway: Host,
    pub key: PrivateKey,
}

/// Sizes of links. Everything else is changed after the building.
#[derive(Clone, Copy)]
pub struct Links {
    /// MTU of the uplinks, in bytes.
    pub uplink_mtu: u16,
    /// MTU of the LANs, in bytes.
    pub lan_mtu: u16,
    /// Whether an uplink carries single datagrams, as a wire does, rather than the kernel's super-packets.
    pub single_datagrams: bool,
}

impl Default for Links {
    fn default() -> Self {
        Self { uplink_mtu: 1500, lan_mtu: 1500, single_datagrams: false }
    }
}

impl Net {
    /// `sites` sites; none without root (see [`root`]). The key of the first site is the smallest, and so on.
    pub fn new(sites: u8, links: Links) -> Option<Self> {
        if !root() {
            return None;
        }
        sweep();
        folder_for_wg();
        let internet = Host::new("internet");
        forward(&internet);
        let mut keys: Vec<PrivateKey> = (0..sites).map(|_| PrivateKey::generate().unwrap()).collect();
        keys.sort_by_key(PrivateKey::public);
        let sites = (1..=sites).zip(keys).map(|(number, key)| Site::new(number, key, &internet, links)).collect();
        let directory = tempfile::Builder::new().prefix("linkspan-test-").tempdir().unwrap();
        open_to_all(directory.path());
        Some(Self { sites, internet, directory })
    }

    /// Two sites on ordinary links.
    pub fn two_sites() -> Option<Self> {
        Self::new(2, Links::default())
    }

    pub fn site(&self, site: usize) -> &Site {
        &self.sites[site]
    }

    pub fn lan(&self, site: usize) -> &Host {
        &self.sites[site].lan
    }

    pub fn gateway(&self, site: usize) -> &Host {
        &self.sites[site].gateway
    }

    /// A directory for `name`, removed with the network. Readable by all, so that only a file's own mode protects it.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        open_to_all(&path);
        path
    }

    /// The router loses this many of 100 datagrams; 0 = none, 100 = a black hole.
    pub fn lose(&self, percent: u8) {
        let rule = match percent {
            0 => return self.internet.nft("faults", &[]),
            100.. => "drop".to_owned(),
            _ => format!("numgen random mod 100 < {percent} drop"),
        };
        self.internet.nft("faults", &[chain("forward", "filter", &[rule])]);
    }

    /// Puts a site behind a NAT that forgets a silent UDP flow after `timeout` seconds and lets nothing in unasked.
    pub fn nat(&self, site: usize, timeout: u16) {
        let number = self.site(site).number;
        let masquerade = [
            format!("ip saddr 198.18.{number}.0/24 masquerade"),
            format!("ip6 saddr 2001:db8:{number}::/64 masquerade"),
        ];
        let unasked = format!("oifname \"u{number}\" ct state new drop");
        let lines = [chain("postrouting", "nat", &masquerade), chain("forward", "filter", &[unasked])];
        // It is this that loads the module whose settings they are.
        self.internet.nft("nat", &lines);
        for key in ["udp_timeout", "udp_timeout_stream"] {
            self.internet.sysctl(&format!("net/netfilter/nf_conntrack_{key}"), &timeout.to_string());
        }
    }
}

impl Site {
    fn new(number: u8, key: PrivateKey, internet: &Host, links: Links) -> Self {
        let (lan, gateway) = (Host::new(&format!("lan{number}")), Host::new(&format!("gateway{number}")));
        let site = Self { number, lan, gateway, key };
        forward(&site.gateway);
        site.wire(internet, links);
        site
    }

    fn wire(&self, internet: &Host, links: Links) {
        let n = self.number;
        let Links { uplink_mtu, lan_mtu, single_datagrams } = links;
        let segments = if single_datagrams { "gso_max_segs 1" } else { "" };
        self.gateway.ip(&format!(
            "link add name lan mtu {lan_mtu} type veth peer name lan mtu {lan_mtu} netns {lan}\n\
             link add name wan mtu {uplink_mtu} type veth peer name u{n} mtu {uplink_mtu} netns {internet}\n\
             link set wan {segments} up\n\
             link set lan up\n\
             address add 10.{n}.0.1/24 dev lan\n\
             address add fd00:{n}::1/64 dev lan nodad\n\
             address add 198.18.{n}.1/24 dev wan\n\
             address add 2001:db8:{n}::1/64 dev wan nodad\n",
            lan = self.lan.name(),
            internet = internet.name(),
        ));
        internet.ip(&format!(
            "link set u{n} {segments} up\n\
             address add 198.18.{n}.254/24 dev u{n}\n\
             address add 2001:db8:{n}::fe/64 dev u{n} nodad\n"
        ));
        self.lan.ip(&format!(
            "link set lan up\n\
             address add 10.{n}.0.2/24 dev lan\n\
             address add fd00:{n}::2/64 dev lan nodad\n\
             route add default via 10.{n}.0.1\n\
             route add default via fd00:{n}::1\n"
        ));
        self.gateway.ip(&format!("route add default via 198.18.{n}.254\nroute add default via 2001:db8:{n}::fe\n"));
    }

    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// The LAN host.
    pub fn lan4(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, self.number, 0, 2))
    }

    pub fn lan6(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0xfd00, self.number.into(), 0, 0, 0, 0, 0, 2))
    }

    /// The gateway's uplink, with the daemon's port.
    pub fn endpoint4(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, self.number, 1)), PORT)
    }

    pub fn endpoint6(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, self.number.into(), 0, 0, 0, 0, 1)), PORT)
    }

    /// What is behind the gateway.
    pub fn networks(&self) -> Vec<String> {
        vec![format!("10.{}.0.0/16", self.number), format!("fd00:{}::/48", self.number)]
    }
}

fn chain(hook: &str, kind: &str, rules: &[String]) -> String {
    let priority = if kind == "nat" { "srcnat" } else { "filter" };
    format!("chain {hook} {{ type {kind} hook {hook} priority {priority}\n{}\n}}", rules.join("\n"))
}

fn forward(host: &Host) {
    host.sysctl("net/ipv4/ip_forward", "1");
    host.sysctl("net/ipv6/conf/all/forwarding", "1");
}

/// Where `wg` looks for sockets. Whoever makes it takes it away, perhaps while a program of another test counts on it:
/// so nobody else makes it, and it stays.
fn folder_for_wg() {
    let folder = Path::new("/var/run/wireguard");
    if std::fs::create_dir(folder).is_ok() {
        open_to_all(folder);
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
