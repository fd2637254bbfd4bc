//! Between our routes and rules and the kernel's messages (rtnetlink(7), linux/rtnetlink.h, linux/fib_rules.h).

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::unspecified;
use crate::control::routes::{Family, Lookup, MAIN, PROTOCOL, Route, Rule, Target};

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
    message.header.flags = RuleFlags::Invert;
    let (table, suppress) = match rule.lookup {
        Lookup::MainBeyond(length) => (MAIN, Some(u32::from(length))),
        Lookup::Table(table) => (table, None),
    };
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message.attributes.extend(suppress.map(RuleAttribute::SuppressPrefixLen));
    message
}

/// A rule with our protocol number and shape; none if it is another's.
pub(super) fn rule(message: &RuleMessage, family: Family) -> Option<Rule> {
    let (mut protocol, mut priority, mut mark, mut suppress) = (None, 0, 0, NO_SUPPRESSION);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others do not matter")]
        match attribute {
            RuleAttribute::Protocol(number) => protocol = Some(*number),
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::FwMark(number) => mark = *number,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::SuppressPrefixLen(length) => suppress = *length,
            _ => {}
        }
    }
    let ours = protocol == Some(RouteProtocol::Other(PROTOCOL)) && message.header.flags.contains(RuleFlags::Invert);
    let lookup = match suppress {
        NO_SUPPRESSION => Lookup::Table(table),
        length => Lookup::MainBeyond(u8::try_from(length).ok()?),
    };
    ours.then_some(Rule { priority, family, mark, lookup })
}

const fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
