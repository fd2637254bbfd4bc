//! The text protocol of WireGuard's userspace implementations, which `wg` speaks over a Unix socket
//! (wireguard.com/xplatform): requests in, valid changes out; the device's state in, text out.
//!
//! Pure. A refusal is an error number, because that is all the protocol can say.

mod answer;
mod request;

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::tunnel::key::{PresharedKey, PrivateKey, PublicKey};

pub use answer::{DeviceAnswer, PeerAnswer};
pub use request::parse;

/// What is asked.
#[derive(Debug)]
pub enum Request {
    /// `get=1`: the state of everything.
    Get,
    /// `set=1`: to be done whole or not at all.
    Set(Change),
}

/// What becomes of a value.
#[derive(PartialEq, Eq, Default)]
pub enum Setting<T> {
    /// It was not named.
    #[default]
    Keep,
    /// There is to be none.
    Clear,
    /// It is to be this.
    Set(T),
}

/// A change of the device. Its parts are to be applied in the order of the fields.
#[derive(Debug, Default)]
pub struct Change {
    /// `private_key`; all zeros clear it.
    pub private_key: Setting<PrivateKey>,
    /// `listen_port`; 0 = any.
    pub listen_port: Option<u16>,
    /// `fwmark`; 0 = none.
    pub fwmark: Option<u32>,
    /// `replace_peers`: all peers that are not named go.
    pub replace_peers: bool,
    /// In the order of the request; the same peer may come twice.
    pub peers: Vec<PeerChange>,
}

/// A change of one peer.
#[derive(Debug)]
pub struct PeerChange {
    /// Which one.
    pub public_key: PublicKey,
    /// `remove`: it goes, and nothing else counts.
    pub remove: bool,
    /// `update_only`: nothing happens unless it is there.
    pub update_only: bool,
    /// `preshared_key`; all zeros clear it.
    pub preshared_key: Setting<PresharedKey>,
    /// `endpoint`.
    pub endpoint: Option<SocketAddr>,
    /// `persistent_keepalive_interval` in seconds; 0 = off.
    pub keepalive: Option<u16>,
    /// `replace_allowed_ips`: all that are not named go.
    pub replace_allowed_ips: bool,
    /// `allowed_ip`, in the order of the request.
    pub allowed_ips: Vec<AllowedIp>,
}

/// One `allowed_ip`, without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedIp {
    /// The peer gets it, whoever had it.
    Give(IpNet),
    /// The peer no longer has it (a leading `-`).
    Take(IpNet),
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// EPROTO: that is not how one speaks.
    #[error("the request is no request")]
    Protocol,
    /// EINVAL: a key that does not exist, or a value that is none.
    #[error("a key or a value is invalid")]
    Invalid,
    /// EADDRINUSE: another program has the listening port.
    #[error("the listening port is in use")]
    PortInUse,
    /// EPERM: this device takes no changes, or not from this process.
    #[error("not permitted")]
    NotPermitted,
    /// EIO: the kernel refused something.
    #[error("the kernel refused")]
    Io,
}

impl Refusal {
    /// Linux's number of the error.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Protocol => 71,
            Self::Invalid => 22,
            Self::PortInUse => 98,
            Self::NotPermitted => 1,
            Self::Io => 5,
        }
    }
}

/// The end of every answer. As wireguard-go has it, a failure is a negative number: `wg set` reads it so.
#[must_use]
pub fn outcome(result: Result<(), Refusal>) -> String {
    let errno = result.map_or_else(|refusal| -refusal.errno(), |()| 0);
    format!("errno={errno}\n\n")
}

/// Never the value, which may be a key.
impl<T> fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "Keep",
            Self::Clear => "Clear",
            Self::Set(_) => "Set",
        })
    }
}

#[cfg(test)]
mod tests;
