//! `get=1` and `set=1`, with what may follow.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use ipnet::IpNet;

use super::{AllowedIp, Change, PeerChange, Refusal, Request, Setting};
use crate::tunnel::key::{PresharedKey, PrivateKey, PublicKey};

/// Reads one request, without the empty line that ends it. `zone` gives the index of an interface by its name, for
/// link-local endpoints.
///
/// # Errors
/// [`Refusal::Protocol`] for what is not lines of `key=value` after `get=1` or `set=1`, [`Refusal::Invalid`] for
/// unknown keys and wrong values.
pub fn parse(text: &str, zone: impl Fn(&str) -> Option<u32>) -> Result<Request, Refusal> {
    let mut lines = text.lines();
    match lines.next() {
        Some("get=1") if lines.next().is_none() => Ok(Request::Get),
        Some("set=1") => change(lines, &zone).map(Request::Set),
        _ => Err(Refusal::Protocol),
    }
}

fn change<'t>(lines: impl Iterator<Item = &'t str>, zone: &dyn Fn(&str) -> Option<u32>) -> Result<Change, Refusal> {
    let mut change = Change::default();
    for line in lines {
        let (key, value) = line.split_once('=').ok_or(Refusal::Protocol)?;
        if key == "public_key" {
            let key = PublicKey::parse_hex(value).map_err(|_| Refusal::Invalid)?;
            change.peers.push(PeerChange::new(key));
        } else if let Some(peer) = change.peers.last_mut() {
            peer.take(key, value, zone)?;
        } else {
            change.take(key, value)?;
        }
    }
    Ok(change)
}

impl Change {
    fn take(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        match key {
            "private_key" => {
                let key = PrivateKey::parse_hex(value).map_err(|_| Refusal::Invalid)?;
                self.private_key = if key.is_zero() { Setting::Clear } else { Setting::Set(key) };
            }
            "listen_port" => self.listen_port = Some(number(value)?),
            "fwmark" => self.fwmark = Some(number(value)?),
            "replace_peers" => self.replace_peers = yes(value)?,
            _ => return Err(Refusal::Invalid),
        }
        Ok(())
    }
}

impl PeerChange {
    /// A change of nothing.
    #[must_use]
    pub const fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: Setting::Keep,
            endpoint: None,
            keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }

    fn take(&mut self, key: &str, value: &str, zone: &dyn Fn(&str) -> Option<u32>) -> Result<(), Refusal> {
        match key {
            "remove" => self.remove = yes(value)?,
            "update_only" => self.update_only = yes(value)?,
            "preshared_key" => {
                let key = PresharedKey::parse_hex(value).map_err(|_| Refusal::Invalid)?;
                self.preshared_key = if key.is_zero() { Setting::Clear } else { Setting::Set(key) };
            }
            "endpoint" => self.endpoint = Some(endpoint(value, zone).ok_or(Refusal::Invalid)?),
            "persistent_keepalive_interval" => self.keepalive = Some(number(value)?),
            "replace_allowed_ips" => {
                self.replace_allowed_ips = yes(value)?;
                // Those named before it are among what it replaces.
                self.allowed_ips.clear();
            }
            "allowed_ip" => self.allowed_ips.push(allowed_ip(value).ok_or(Refusal::Invalid)?),
            "protocol_version" if value == "1" => {}
            _ => return Err(Refusal::Invalid),
        }
        Ok(())
    }
}

/// Flags are set or not there.
fn yes(value: &str) -> Result<bool, Refusal> {
    if value == "true" { Ok(true) } else { Err(Refusal::Invalid) }
}

/// Decimal, without a sign.
fn number<T: FromStr>(value: &str) -> Result<T, Refusal> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or(Refusal::Invalid)
}

fn allowed_ip(value: &str) -> Option<AllowedIp> {
    let (network, make): (_, fn(IpNet) -> AllowedIp) = match value.strip_prefix('-') {
        Some(network) => (network, AllowedIp::Take),
        None => (value, AllowedIp::Give),
    };
    network.parse::<IpNet>().ok().map(|network| make(network.trunc()))
}

/// "192.0.2.1:51820", "[2001:db8::1]:51820" or "[fe80::1%eth0]:51820"; a datagram must be able to go there.
fn endpoint(value: &str, zone: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let address = value.parse::<SocketAddr>().ok().or_else(|| zoned(value, zone))?;
    (address.port() != 0 && !address.ip().is_unspecified()).then(|| unmapped(address))
}

fn zoned(value: &str, zone: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let (host, port) = value.strip_prefix('[')?.rsplit_once("]:")?;
    let (host, name) = host.split_once('%')?;
    let scope = zone(name)?;
    Some(SocketAddrV6::new(host.parse::<Ipv6Addr>().ok()?, number(port).ok()?, 0, scope).into())
}

/// The IPv6 sockets carry no IPv4.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, |v4| SocketAddr::new(IpAddr::V4(v4), address.port())),
        IpAddr::V4(_) => address,
    }
}
