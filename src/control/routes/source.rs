//! The preferred source of a route: which of this host's addresses its own packets carry.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Connection, RouteSource};

/// An address of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress {
    /// Whether it is on the loopback interface, and so the last choice.
    pub loopback: bool,
    /// Index of the interface that has it.
    pub index: u32,
    /// Whether the kernel prefers others to it: secondary, or deprecated.
    pub secondary: bool,
    /// The address.
    pub address: IpAddr,
}

/// The sources that the configuration names and this host lacks; one sentence each.
pub(super) fn absent(connections: &[Connection], host: &[HostAddress], own: &BTreeSet<IpNet>) -> Vec<String> {
    let absent = connections.iter().filter_map(|connection| match connection.route_source {
        RouteSource::Address(wanted) if !is_here(wanted, host, own) => Some(format!(
            "connection {}: route_source {wanted} is no address of this host: its own packets to the far site carry \
             another (add the address, or change route_source)",
            connection.name
        )),
        RouteSource::Address(_) | RouteSource::Auto | RouteSource::None => None,
    });
    absent.collect()
}

fn is_here(wanted: IpAddr, host: &[HostAddress], own: &BTreeSet<IpNet>) -> bool {
    host.iter().any(|a| a.address == wanted) || own.iter().any(|net| net.addr() == wanted)
}

/// The source for the route to `prefix` into the TUN `device`, as far as the kernel would take it: an address that
/// this host has (or is about to have: `own`, the TUN's).
pub(super) fn preferred(
    connection: &Connection,
    prefix: &IpNet,
    device: u32,
    host: &[HostAddress],
    own: &BTreeSet<IpNet>,
) -> Option<IpAddr> {
    let same_family = |address: &IpAddr| address.is_ipv4() == prefix.addr().is_ipv4();
    match connection.route_source {
        RouteSource::None => None,
        RouteSource::Address(wanted) => {
            Some(wanted).filter(|wanted| is_here(*wanted, host, own) && same_family(wanted))
        }
        RouteSource::Auto => {
            let is_local = |address: &IpAddr| connection.local_networks.iter().any(|net| net.contains(address));
            let eligible = host.iter().filter(|a| a.index != device && same_family(&a.address) && is_local(&a.address));
            eligible.min().map(|a| a.address)
        }
    }
}
