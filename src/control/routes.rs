//! What ought to be in the kernel's routing for a configuration. Pure: facts in, a set out.
//!
//! * Every network of a connection is routed into the TUN, and has an `unreachable` route of last resort under it.
//! * A network that covers an endpoint (our datagrams would come back into the tunnel) moves with both its routes
//!   into a table of its own, one for each prefix length L, which two rules consult before the main table, longest
//!   L first: main's routes longer than L still win, then the table takes everything but marked datagrams, which are
//!   our own. Done for connections in table main only; who names another table steers by rules of his own.
//! * A default route counts as covering the endpoint until that is known. If it is a name, this host's own questions
//!   to name servers take the main table while the tunnel is dark: it could not come up again otherwise.
//! * The inside network of a tunnel is the TUN's while that is there; an `unreachable` route lies under it, too.

mod instance;
mod rule;
mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Config, Connection, Endpoint, FailClosed, Tunnel, is_default};

pub use instance::Instance;
pub use rule::{DNS, Family, Lookup, Rule, Transport};
pub use source::HostAddress;

/// What all our routes and rules carry as their origin ("L"), `proto 76` in `ip route`.
pub const PROTOCOL: u8 = 76;

/// The kernel's main table, RT_TABLE_MAIN.
pub const MAIN: u32 = 254;

/// What Linux makes of metric 0 in IPv6 (IP6_RT_PRIO_USER).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// A route of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Table number; 254 = main.
    pub table: u32,
    /// Destination.
    pub prefix: IpNet,
    /// The kernel's priority; lower wins.
    pub metric: u32,
    /// What happens to packets for it.
    pub target: Target,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Refused with ICMP: the route of last resort.
    Unreachable,
    /// Into an interface.
    Device {
        /// Interface index.
        index: u32,
        /// Preferred source of packets that this host makes.
        source: Option<IpAddr>,
    },
}

/// The TUN as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Interface index.
    pub index: u32,
    /// Whether it is administratively up: the kernel takes no route into one that is down.
    pub up: bool,
}

/// What the desired state depends on beside the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The TUN; none = not yet there, so only the routes of last resort.
    pub device: Option<Device>,
    /// Addresses of far machines, as configured, resolved or learned.
    pub endpoints: &'a [IpAddr],
    /// All addresses of this host.
    pub host: &'a [HostAddress],
    /// A far end with a name is yet to be found.
    pub seeking: bool,
}

/// What ought to be there. The default, nothing at all, is what a clean stop wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Addresses of the TUN, with their prefix length.
    pub addresses: BTreeSet<IpNet>,
    /// Routes, in all tables.
    pub routes: BTreeSet<Route>,
    /// Rules of both families.
    pub rules: BTreeSet<Rule>,
}

impl Desired {
    /// For `config` under `facts`.
    #[must_use]
    pub fn new(config: &Config, facts: &Facts<'_>) -> Self {
        let instance = Instance::new(&config.interface.name);
        let routed = config.connections.iter().filter(|connection| connection.routes);
        let routes: BTreeSet<Route> =
            routed.flat_map(|connection| routes_of(connection, instance, facts, config)).collect();
        let mut rules = rule::for_routes(&routes, instance, mark(config, facts.endpoints));
        let sought = config.connections.iter().filter(|connection| connection.routes && facts.seeking);
        let named = sought.flat_map(default_behind_a_name);
        rules.extend(named.flat_map(|family| rule::for_names(family, instance)));
        let addresses = if facts.device.is_some_and(|device| device.up) { addresses(config) } else { BTreeSet::new() };
        Self { addresses, routes, rules }
    }
}

/// The firewall mark that our datagrams must carry: as configured, or one of our own where an endpoint lies inside
/// the routed networks; 0 = none. To be set on the sockets before the rules are made.
#[must_use]
pub fn mark(config: &Config, endpoints: &[IpAddr]) -> u32 {
    match config.interface.fwmark {
        0 if marks(config, endpoints) => Instance::new(&config.interface.name).mark(),
        mark => mark,
    }
}

/// Whether one of `endpoints` lies inside the routed networks, so that rules tell our datagrams by their mark.
#[must_use]
pub fn marks(config: &Config, endpoints: &[IpAddr]) -> bool {
    let mut routed = config.connections.iter().filter(|connection| connection.routes);
    routed.any(|connection| connection.networks.iter().any(|network| loops(connection, network, endpoints)))
}

/// What is the matter with the `route_source` of connections; one sentence each.
#[must_use]
pub fn absent_sources(config: &Config, host: &[HostAddress]) -> Vec<String> {
    source::absent(&config.connections, host, &addresses(config))
}

/// Those of the interface, and this end of each tunnel's inside network.
pub(super) fn addresses(config: &Config) -> BTreeSet<IpNet> {
    let tunnels = config.connections.iter().flat_map(|connection| &connection.tunnels);
    let inside = tunnels.filter_map(|tunnel| tunnel.inside.map(|inside| inside.local));
    config.interface.addresses.iter().copied().chain(inside).collect()
}

fn routes_of(connection: &Connection, instance: Instance, facts: &Facts<'_>, config: &Config) -> Vec<Route> {
    let own = addresses(config);
    let device = facts.device.filter(|device| device.up);
    let closed = connection.when_down == FailClosed::Unreachable;
    let last_resort =
        |table, prefix| Route { table, prefix, metric: instance.last_resort(), target: Target::Unreachable };
    let inside = connection.tunnels.iter().filter_map(|tunnel| tunnel.inside).filter(|_| closed);
    let mut routes: Vec<Route> = inside.map(|inside| last_resort(MAIN, inside.local.trunc())).collect();
    for &prefix in &connection.networks {
        let table = if loops(connection, &prefix, facts.endpoints) {
            instance.table(prefix.prefix_len())
        } else {
            connection.table
        };
        if let Some(Device { index, .. }) = device {
            let source = source::preferred(connection, &prefix, index, facts.host, &own);
            let target = Target::Device { index, source };
            routes.push(Route { table, prefix, metric: metric(&prefix, connection.metric), target });
        }
        if closed {
            routes.push(last_resort(table, prefix));
        }
    }
    routes
}

/// The families whose default route leads to a far end with a name.
fn default_behind_a_name(connection: &Connection) -> impl Iterator<Item = Family> {
    let named = |tunnel: &Tunnel| matches!(tunnel.endpoint, Some(Endpoint::Name(..)));
    let named = connection.table == MAIN && connection.tunnels.iter().any(named);
    connection.networks.iter().filter(move |network| named && is_default(network)).map(Family::of)
}

/// Whether datagrams to one of `endpoints` would be routed back into the tunnel by the route to `network`. A far end
/// that is yet to be learned or looked up may be anywhere; until then nothing may leave by the host's own default route.
fn loops(connection: &Connection, network: &IpNet, endpoints: &[IpAddr]) -> bool {
    let unsettled = |tunnel: &Tunnel| !matches!(tunnel.endpoint, Some(Endpoint::Address(_)));
    let anywhere = is_default(network) && connection.tunnels.iter().any(unsettled);
    connection.table == MAIN && (anywhere || endpoints.iter().any(|endpoint| network.contains(endpoint)))
}

const fn metric(prefix: &IpNet, configured: u32) -> u32 {
    match (prefix, configured) {
        (IpNet::V6(_), 0) => IPV6_DEFAULT_METRIC,
        _ => configured,
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, prefix, metric, target } = self;
        match target {
            Target::Unreachable => write!(f, "unreachable route {prefix} metric {metric}")?,
            Target::Device { index, source: None } => write!(f, "route {prefix} dev #{index} metric {metric}")?,
            Target::Device { index, source: Some(source) } => {
                write!(f, "route {prefix} dev #{index} src {source} metric {metric}")?;
            }
        }
        if *table == MAIN { Ok(()) } else { write!(f, " table {table}") }
    }
}

#[cfg(test)]
mod tests;
