//! Between our routes and rules and the kernel's messages (rtnetlink(7), linux/rtnetlink.h, linux/fib_rules.h).

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol};

use super::unspecified;
use crate::control::routes::{DNS, Family, Lookup, MAIN, PROTOCOL, Route, Rule, Target, Transport};

/// FRA_SUPPRESS_PREFIXLEN of a rule that suppresses nothing.
const NO_SUPPRESSION: u32 = u32::MAX;

/// The local address in `message`, with its prefix length.
pub(super) fn address(message: &AddressMessage) -> Option<IpNet> {
    // On a point-to-point address, Local is this end and Address the other.
    let mut found = None;
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others do not matter")]
        match attribute {
            AddressAttribute::Local(local) => found = Some(*local),
            AddressAttribute::Address(address) => found = found.or(Some(*address)),
            _ => {}
        }
    }
    IpNet::new(found?, message.header.prefix_len).ok()
}

/// As the kernel takes it, to add, replace or delete.
pub(super) fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(Family::of(&route.prefix)),
        destination_prefix_length: route.prefix.prefix_len(),
        table: u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: RouteProtocol::Other(PROTOCOL),
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(route.prefix.addr().into()),
        RouteAttribute::Table(route.table),
        RouteAttribute::Priority(route.metric),
    ];
    match route.target {
        Target::Unreachable => message.header.kind = RouteType::Unreachable,
        Target::Device { index, source } => {
            if route.prefix.addr().is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
            message.attributes.push(RouteAttribute::Oif(index));
            message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
        }
    }
    message
}

/// Asks for the route that the tables have. Without FIB_MATCH the kernel invents one: the destination on the link.
pub(super) fn route_question(remote: IpAddr, local: Option<IpAddr>, interface: Option<u32>, mark: u32) -> RouteMessage {
    let (of, length) = if remote.is_ipv4() { (Family::V4, 32) } else { (Family::V6, 128) };
    let mut message = RouteMessage::default();
    message.header.address_family = family(of);
    message.header.destination_prefix_length = length;
    message.header.flags = RouteFlags::FibMatch;
    message.attributes = vec![RouteAttribute::Destination(remote.into()), RouteAttribute::Mark(mark)];
    if let Some(local) = local {
        message.header.source_prefix_length = length;
        message.attributes.push(RouteAttribute::Source(local.into()));
    }
    message.attributes.extend(interface.map(RouteAttribute::Oif));
    message
}

/// The interface that a route leads to; none if there are several.
pub(super) fn interface(route: &RouteMessage) -> Option<u32> {
    let oif = |attribute: &RouteAttribute| if let RouteAttribute::Oif(oif) = attribute { Some(*oif) } else { None };
    route.attributes.iter().find_map(oif)
}

/// A route with our protocol number; none if it is another's.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    if message.header.protocol != RouteProtocol::Other(PROTOCOL) {
        return None;
    }
    let of = if message.header.address_family == AddressFamily::Inet { Family::V4 } else { Family::V6 };
    let (mut destination, mut source, mut index) = (unspecified(of), None, None);
    let (mut table, mut metric) = (u32::from(message.header.table), 0);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others do not matter")]
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let target = match (message.header.kind, index) {
        // In IPv6, an unreachable route names the loopback interface.
        (RouteType::Unreachable, _) => Target::Unreachable,
        (RouteType::Unicast, Some(index)) => Target::Device { index, source },
        _ => return None,
    };
    let prefix = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some(Route { table, prefix, metric, target })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
    }
}

/// As the kernel takes it, to add or delete.
pub(super) fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.family);
    message.header.action = RuleAction::ToTable;
    let (table, mask, more) = match rule.lookup {
        Lookup::MainBeyond(length) => (MAIN, u32::MAX, vec![RuleAttribute::SuppressPrefixLen(length.into())]),
        Lookup::Table(table) => (table, u32::MAX, vec![]),
        // A mark of which no bit counts: it tells whose rule it is.
        Lookup::Names(transport) => (MAIN, 0, questions(transport)),
    };
    if mask != 0 {
        message.header.flags = RuleFlags::Invert;
    }
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(mask),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message.attributes.extend(more);
    message
}

/// What this host itself sends to name servers.
fn questions(transport: Transport) -> Vec<RuleAttribute> {
    let protocol = match transport {
        Transport::Udp => IpProtocol::Udp,
        Transport::Tcp => IpProtocol::Tcp,
    };
    vec![
        RuleAttribute::Iifname("lo".to_owned()),
        RuleAttribute::IpProtocol(protocol),
        RuleAttribute::DestinationPortRange(RulePortRange { start: DNS, end: DNS }),
    ]
}

/// A rule with our protocol number and shape; none if it is another's.
pub(super) fn rule(message: &RuleMessage, family: Family) -> Option<Rule> {
    let (mut protocol, mut priority, mut mark, mut suppress) = (None, 0, 0, NO_SUPPRESSION);
    let (mut table, mut asks) = (u32::from(message.header.table), None);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others do not matter")]
        match attribute {
            RuleAttribute::Protocol(number) => protocol = Some(*number),
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::FwMark(number) => mark = *number,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::SuppressPrefixLen(length) => suppress = *length,
            RuleAttribute::IpProtocol(IpProtocol::Udp) => asks = Some(Transport::Udp),
            RuleAttribute::IpProtocol(IpProtocol::Tcp) => asks = Some(Transport::Tcp),
            _ => {}
        }
    }
    let lookup = match (asks, suppress) {
        (Some(transport), _) => Lookup::Names(transport),
        (None, NO_SUPPRESSION) => Lookup::Table(table),
        (None, length) => Lookup::MainBeyond(u8::try_from(length).ok()?),
    };
    let inverted = message.header.flags.contains(RuleFlags::Invert);
    let ours = protocol == Some(RouteProtocol::Other(PROTOCOL)) && inverted == asks.is_none();
    ours.then_some(Rule { priority, family, mark, lookup })
}

const fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
