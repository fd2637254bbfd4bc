//! The kernel's links, addresses, routes and rules, by rtnetlink. All by interface index, never by name.
//!
//! Works in the network namespace of the thread that opens it, with CAP_NET_ADMIN alone. Lists only what carries
//! our protocol number; the kernel filters routes, so that a full Internet table costs no memory here.

mod convert;
mod elsewhere;
mod monitor;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use rtnetlink::sys::{AsyncSocket as _, TokioSocket};
use rtnetlink::{Handle, IpVersion, LinkGetRequest, LinkUnspec};

use super::routes::{Device, Family, HostAddress, PROTOCOL, Route, Rule};
use crate::packet::Mtu;

pub use monitor::Monitor;

/// Index of the loopback interface, the same in every namespace.
const LOOPBACK: u32 = 1;

/// A way to ask the kernel. Its task lives on the current tokio runtime until the last clone is gone.
#[derive(Debug, Clone)]
pub struct Netlink(Handle);

/// The kernel's refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// EEXIST.
    #[error("it is there already")]
    Exists,
    /// ENOENT, ESRCH or EADDRNOTAVAIL.
    #[error("it is not there")]
    Missing,
    /// ENODEV or ENXIO.
    #[error("the interface is gone")]
    NoDevice,
    /// EPERM.
    #[error("not permitted: CAP_NET_ADMIN is needed (run as root, or by the systemd unit)")]
    NotPermitted,
    /// EACCES, EAFNOSUPPORT or EOPNOTSUPP.
    #[error("this host has the address family switched off (IPv6: see sysctl net.ipv6.conf.all.disable_ipv6)")]
    FamilyOff,
    /// ENETUNREACH or EHOSTUNREACH.
    #[error("there is no route")]
    NoRoute,
    /// Another error number.
    #[error("the kernel refused: {0}")]
    Refused(String),
    /// The kernel gave no socket.
    #[error("cannot open a netlink socket, to set addresses and routes: {0} (a limit on open files? see ulimit -n)")]
    NoSocket(String),
    /// No answer, or one that makes no sense.
    #[error("netlink: {0}")]
    Protocol(String),
}

/// The TUN, as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name now; it may have been renamed.
    pub name: String,
    /// Index, and whether it is up.
    pub device: Device,
    /// In bytes.
    pub mtu: u32,
}

impl Netlink {
    /// In the network namespace of this thread, served by the current tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        let opened = rtnetlink::new_connection_with_socket::<TokioSocket>();
        let (mut connection, handle, _) = opened.map_err(|error| Error::NoSocket(error.to_string()))?;
        // Without it the kernel ignores the filter and dumps every route (Linux before 4.20 does); harmless.
        let _ = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true);
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Sets the MTU of the interface and brings it up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_up(&self, index: u32, mtu: Mtu) -> Result<(), Error> {
        let mtu = u32::try_from(mtu.bytes()).unwrap_or(u32::MAX);
        let message = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        Ok(self.0.link().set(message).execute().await?)
    }

    /// Sets the MTU of the interface.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_mtu(&self, index: u32, mtu: Mtu) -> Result<(), Error> {
        let mtu = u32::try_from(mtu.bytes()).unwrap_or(u32::MAX);
        Ok(self.0.link().set(LinkUnspec::new_with_index(index).mtu(mtu).build()).execute().await?)
    }

    /// The interface, or none if there is none with this index.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn link(&self, index: u32) -> Result<Option<Link>, Error> {
        first_link(self.0.link().get().match_index(index)).await
    }

    /// The addresses of this host that may be a source: neither link-local nor tentative.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn host_addresses(&self) -> Result<Vec<HostAddress>, Error> {
        let all = self.address_messages().await?;
        let usable = all.iter().filter_map(|message| {
            let address = convert::address(message)?.addr();
            let flags = message.header.flags;
            let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
            let less = AddressHeaderFlags::Secondary | AddressHeaderFlags::Deprecated;
            let index = message.header.index;
            (!flags.intersects(unusable) && !is_link_local(&address)).then(|| HostAddress {
                loopback: index == LOOPBACK,
                index,
                secondary: flags.intersects(less),
                address,
            })
        });
        Ok(usable.collect())
    }

    /// The addresses of the interface, with their prefix length.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn addresses(&self, index: u32) -> Result<BTreeSet<IpNet>, Error> {
        let all = self.address_messages().await?;
        Ok(all.iter().filter(|message| message.header.index == index).filter_map(convert::address).collect())
    }

    async fn address_messages(&self) -> Result<Vec<AddressMessage>, Error> {
        Ok(self.0.address().get().execute().try_collect().await?)
    }

    /// Gives the interface an address, usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// [`Error::Exists`], or when the kernel refuses otherwise.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<(), Error> {
        let mut request = self.0.address().add(index, address.addr(), address.prefix_len());
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        Ok(request.execute().await?)
    }

    /// Takes an address from the interface.
    ///
    /// # Errors
    /// When the kernel refuses; not if it has no such address.
    pub async fn delete_address(&self, index: u32, address: IpNet) -> Result<(), Error> {
        let is_it =
            |message: &AddressMessage| message.header.index == index && convert::address(message) == Some(address);
        match self.address_messages().await?.into_iter().find(is_it) {
            Some(message) => Ok(self.0.address().del(message).execute().await?),
            None => Ok(()),
        }
    }

    /// All routes with our protocol number, of every instance, in all tables.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn routes(&self) -> Result<BTreeSet<Route>, Error> {
        let mut routes = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.protocol = RouteProtocol::Other(PROTOCOL);
            let answer: Result<Vec<RouteMessage>, Error> =
                self.0.route().get(filter).execute().try_collect().await.map_err(Error::from);
            routes.extend(nothing_if_off(answer)?.iter().filter_map(convert::route));
        }
        Ok(routes)
    }

    /// Whether there is a route to `remote` from `local` by this interface, for packets with this mark.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub async fn reaches(&self, remote: IpAddr, local: IpAddr, interface: u32, mark: u32) -> Result<bool, Error> {
        let question = convert::route_question(remote, Some(local), Some(interface), mark);
        let route = self.route(question).await?;
        // IPv6 takes the interface as a wish, and may answer with another.
        Ok(route.is_some_and(|route| convert::interface(&route).is_none_or(|other| other == interface)))
    }

    /// By which interface packets with this mark go to `remote`, from `local` or wherever the kernel wants; none if there
    /// is no route, or by several.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub async fn chosen(&self, remote: IpAddr, local: Option<IpAddr>, mark: u32) -> Result<Option<u32>, Error> {
        let question = convert::route_question(remote, local, None, mark);
        Ok(self.route(question).await?.and_then(|route| convert::interface(&route)))
    }

    /// The route that is asked for; none if there is no such, or one that prohibits.
    async fn route(&self, question: RouteMessage) -> Result<Option<RouteMessage>, Error> {
        match self.0.route().get(question).execute().try_next().await.map_err(Error::from) {
            Ok(Some(route)) => Ok(Some(route)),
            Ok(None) => Err(Error::Protocol("no answer to a question for a route".into())),
            Err(Error::NoRoute | Error::FamilyOff) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a route; never replaces one.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one, whoever's, with this table, prefix and metric.
    pub async fn add_route(&self, route: &Route) -> Result<(), Error> {
        Ok(self.0.route().add(convert::route_message(route)).execute().await?)
    }

    /// Puts `route` in the place of the one with this table, prefix and metric, with no moment without.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn replace_route(&self, route: &Route) -> Result<(), Error> {
        Ok(self.0.route().add(convert::route_message(route)).replace().execute().await?)
    }

    /// Takes a route away.
    ///
    /// # Errors
    /// [`Error::Missing`], or when the kernel refuses.
    pub async fn delete_route(&self, route: &Route) -> Result<(), Error> {
        Ok(self.0.route().del(convert::route_message(route)).execute().await?)
    }

    /// All rules with our protocol number and of our shape, of every instance.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn rules(&self) -> Result<BTreeSet<Rule>, Error> {
        let mut rules = BTreeSet::new();
        for (version, family) in [(IpVersion::V4, Family::V4), (IpVersion::V6, Family::V6)] {
            let answer = self.0.rule().get(version).execute().try_collect().await.map_err(Error::from);
            let messages: Vec<_> = nothing_if_off(answer)?;
            rules.extend(messages.iter().filter_map(|message| convert::rule(message, family)));
        }
        Ok(rules)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// [`Error::Exists`], or when the kernel refuses.
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), Error> {
        let mut request = self.0.rule().add();
        *request.message_mut() = convert::rule_message(rule);
        Ok(request.execute().await?)
    }

    /// Takes a rule away.
    ///
    /// # Errors
    /// [`Error::Missing`], or when the kernel refuses.
    pub async fn delete_rule(&self, rule: &Rule) -> Result<(), Error> {
        Ok(self.0.rule().del(convert::rule_message(rule)).execute().await?)
    }
}

/// The one interface that is asked for, if it is there.
async fn first_link(request: LinkGetRequest) -> Result<Option<Link>, Error> {
    let message = match request.execute().try_next().await.map_err(Error::from) {
        Ok(Some(message)) => message,
        Ok(None) | Err(Error::NoDevice) => return Ok(None),
        Err(error) => return Err(error),
    };
    let device = Device { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up) };
    let mut link = Link { name: String::new(), device, mtu: 0 };
    for attribute in message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "dozens of attributes, two wanted")]
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            _ => {}
        }
    }
    Ok(Some(link))
}

/// A host without IPv6 has no IPv6 routes, which is no error.
fn nothing_if_off<T>(answer: Result<Vec<T>, Error>) -> Result<Vec<T>, Error> {
    match answer {
        Err(Error::FamilyOff) => Ok(Vec::new()),
        other => other,
    }
}

pub(super) const fn is_link_local(address: &IpAddr) -> bool {
    match address {
        // An inside address (169.254/16) is a source like any other.
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

impl From<rtnetlink::Error> for Error {
    fn from(error: rtnetlink::Error) -> Self {
        let rtnetlink::Error::NetlinkError(refusal) = error else {
            return Self::Protocol(error.to_string());
        };
        let error = refusal.to_io();
        match error.raw_os_error() {
            Some(libc::EEXIST) => Self::Exists,
            Some(libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL) => Self::Missing,
            Some(libc::ENODEV | libc::ENXIO) => Self::NoDevice,
            Some(libc::EPERM) => Self::NotPermitted,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => Self::NoRoute,
            Some(libc::EACCES | libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => Self::FamilyOff,
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// The address of the whole family, for a route message without one.
pub(super) const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests;
