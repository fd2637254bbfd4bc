//! Policy rules that keep our own datagrams, and the questions for our peers' names, out of the tunnel.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;

use super::{Instance, Route};

/// Priority of the first rule of prefix length 128. All others come after it, and before main's 32,766.
const FIRST_PRIORITY: u32 = 5200;

/// DNS (RFC 1035, section 4.2).
pub const DNS: u16 = 53;

/// A rule for every packet whose mark is not `mark`; of [`Lookup::Names`], `mark` only tells whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Its place in the order; lower comes first.
    pub priority: u32,
    /// IPv4 and IPv6 have separate rules.
    pub family: Family,
    /// Packets with this mark, our own datagrams, pass it by. Otherwise, whose rule it is.
    pub mark: u32,
    /// What to consult.
    pub lookup: Lookup,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which routes a rule consults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lookup {
    /// Those of the main table longer than this prefix length.
    MainBeyond(u8),
    /// All of a table of ours.
    Table(u32),
    /// The main table, for what this host itself asks name servers.
    Names(Transport),
}

/// What carries a question to a name server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// As most do.
    Udp,
    /// For long answers.
    Tcp,
}

/// The rules that `routes` need: two for each family and own table.
pub(super) fn for_routes(routes: &BTreeSet<Route>, instance: Instance, mark: u32) -> BTreeSet<Rule> {
    let own = routes.iter().filter_map(|route| Some((route, instance.length_of(route.table)?)));
    own.flat_map(|(route, length)| pair(Family::of(&route.prefix), route.table, length, mark)).collect()
}

/// The first of a prefix length. Between those of real networks and those of default routes there is room for the
/// questions for names: a network that is no default route takes those, too.
const fn priority(length: u8) -> u32 {
    let before = FIRST_PRIORITY + 2 * 128_u32.saturating_sub(length as u32);
    if length > LONGEST_DEFAULT { before } else { before + 2 }
}

/// The prefix length of half a default route.
const LONGEST_DEFAULT: u8 = 1;

/// The rules without which the name of a far end could not be looked up where all that is not main's goes into its
/// tunnel: it might be dark until the name is known.
pub(super) fn for_names(family: Family, instance: Instance) -> [Rule; 2] {
    [(2, Transport::Tcp), (1, Transport::Udp)].map(|(before, transport)| Rule {
        priority: priority(LONGEST_DEFAULT) - before,
        family,
        mark: instance.mark(),
        lookup: Lookup::Names(transport),
    })
}

fn pair(family: Family, table: u32, length: u8, mark: u32) -> [Rule; 2] {
    let priority = priority(length);
    // The mark in the first rule changes no way that a packet takes; it tells our rule from another instance's.
    [
        Rule { priority, family, mark, lookup: Lookup::MainBeyond(length) },
        Rule { priority: priority + 1, family, mark, lookup: Lookup::Table(table) },
    ]
}

impl Family {
    /// That of `prefix`.
    #[must_use]
    pub const fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let Self { priority, mark, .. } = self;
        write!(f, "{family} rule {priority}: ")?;
        match self.lookup {
            Lookup::MainBeyond(length) => write!(f, "not fwmark {mark:#x} lookup main suppress_prefixlength {length}"),
            Lookup::Table(table) => write!(f, "not fwmark {mark:#x} lookup {table}"),
            Lookup::Names(Transport::Udp) => write!(f, "from this host to udp port {DNS} lookup main"),
            Lookup::Names(Transport::Tcp) => write!(f, "from this host to tcp port {DNS} lookup main"),
        }
    }
}
