//! Networks, interface addresses and the two inside addresses of a tunnel.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::model::{Inside, RouteSource};
use super::problem::Wrong;
use super::value::quoted;

/// An address and a prefix length; `example` is shown to whoever wrote something else.
fn cidr(text: &str, example: &str) -> Result<IpNet, Wrong> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(net);
    }
    let wrong = |remedy: String| Wrong::new(format!("{} is not an address with a prefix length", quoted(text)), remedy);
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(wrong(short_ipv4(address, length).unwrap_or_else(|| format!("write it as {example}"))));
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    if length.is_empty() {
        return Err(wrong(format!(
            "write \"{address}/{most}\" for that one address, or the prefix length of its network"
        )));
    }
    let mask = length.parse::<Ipv4Addr>().ok().and_then(|mask| ipnet::ipv4_mask_to_prefix(mask).ok());
    Err(wrong(match mask.filter(|_| address.is_ipv4()) {
        Some(length) => format!("write \"{address}/{length}\""),
        None => format!("the prefix length is a number from 0 to {most}"),
    }))
}

/// "10.20/16" as other programs understand it.
fn short_ipv4(address: &str, length: &str) -> Option<String> {
    let octets: Result<Vec<u8>, _> = address.trim_end_matches('.').split('.').map(str::parse).collect();
    let mut octets = octets.ok().filter(|octets| octets.len() < 4)?;
    octets.resize(4, 0);
    let length: u8 = length.parse().ok().filter(|length| *length <= 32)?;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?);
    Some(format!("write \"{}\"", Ipv4Net::new(address, length).ok()?))
}

/// Why no host or network may have such addresses; none if it may.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_loopback() => Some("is this host's own loopback"),
        IpAddr::V4(v4) if v4.is_multicast() => Some("is multicast, which is not tunnelled"),
        IpAddr::V4(v4) if v4.octets()[0] >= 240 => Some("is reserved"),
        IpAddr::V6(v6) if v6.is_loopback() => Some("is this host's own loopback"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("is multicast, which is not tunnelled"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("is link-local: it ends at the next router"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("is IPv4 in IPv6's clothes"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn not_special(address: IpAddr, shown: &str, remedy: &str) -> Result<(), Wrong> {
    special(address).map_or(Ok(()), |why| Err(Wrong::new(format!("{shown} {why}"), remedy)))
}

/// An entry of `networks` or `local_networks`.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let net = cidr(text, "\"10.20.0.0/16\" or \"fd00:20::/64\"")?;
    if net.trunc() != net {
        return Err(Wrong::new(
            format!("{net} has bits set behind its prefix"),
            format!("did you mean {}?", net.trunc()),
        ));
    }
    not_special(net.addr(), text, "write the networks of a site, as \"10.20.0.0/16\"")?;
    Ok(net)
}

/// An entry of `addresses`.
pub(super) fn interface_address(text: &str) -> Result<IpNet, Wrong> {
    let net = cidr(text, "\"10.0.0.1/24\" or \"fd00::1/64\"")?;
    let remedy = "write one address of this host, as \"10.0.0.1/24\"";
    not_special(net.addr(), text, remedy)?;
    let alone = net.prefix_len() + 1 >= net.max_prefix_len();
    if net.addr().is_unspecified() {
        Err(Wrong::new(format!("{net} is no address"), remedy))
    } else if !alone && net.addr() == net.network() {
        let mut remedy = remedy.to_owned();
        if let Some(first) = net.hosts().find(|host| *host != net.network()) {
            remedy.clear();
            let _ = write!(remedy, "did you mean {first}/{}?", net.prefix_len());
        }
        Err(Wrong::new(format!("{net} is a network, not an address in it"), remedy))
    } else if !alone && net.addr().is_ipv4() && net.addr() == net.broadcast() {
        Err(Wrong::new(format!("{net} is the broadcast address of its network"), remedy))
    } else {
        Ok(net)
    }
}

/// `inside_cidr`: a /30 of 169.254.0.0/16 or a /126, as at AWS.
pub(super) fn inside_cidr(text: &str) -> Result<IpNet, Wrong> {
    const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
    let remedy = "write a /30 of 169.254.0.0/16, as \"169.254.77.0/30\", or a /126, as \"fd00:77::/126\"";
    let net = cidr(text, "\"169.254.77.0/30\" or \"fd00:77::/126\"")?;
    if net.prefix_len() + 2 != net.max_prefix_len() {
        return Err(Wrong::new(format!("{net} is not a network of four addresses"), remedy));
    }
    if net.trunc() != net {
        return Err(Wrong::new(
            format!("{net} has bits set behind its prefix"),
            format!("did you mean {}?", net.trunc()),
        ));
    }
    match net {
        IpNet::V4(v4) if !v4.addr().is_link_local() => {
            Err(Wrong::new(format!("{net} is outside 169.254.0.0/16"), remedy))
        }
        IpNet::V4(v4) if v4.contains(&METADATA) => {
            Err(Wrong::new(format!("{net} holds the clouds' metadata service, {METADATA}"), remedy))
        }
        IpNet::V6(_) if net.addr().is_unspecified() => Err(Wrong::new(format!("{net} is reserved"), remedy)),
        IpNet::V4(_) | IpNet::V6(_) => not_special(net.addr(), text, remedy).map(|()| net),
    }
}

/// Both ends in an inside network: the AWS end is its first host, the customer's its second.
pub(super) fn inside(net: IpNet, this_end_is_aws: bool) -> Option<Inside> {
    let mut hosts = net.hosts().filter(|host| *host != net.network());
    let (aws, customer) = (hosts.next()?, hosts.next()?);
    let (local, remote) = if this_end_is_aws { (aws, customer) } else { (customer, aws) };
    Some(Inside { local: IpNet::new(local, net.prefix_len()).ok()?, remote })
}

/// `route_source`: "auto", "none" or an address.
pub(super) fn route_source(text: &str) -> Result<RouteSource, Wrong> {
    let remedy = "write \"auto\", \"none\", or one address of this host, as \"10.1.0.1\"";
    match text {
        "auto" => return Ok(RouteSource::Auto),
        "none" => return Ok(RouteSource::None),
        _ => {}
    }
    if let Ok(net) = text.parse::<IpNet>() {
        let what = format!("{net} has a prefix length");
        return Err(Wrong::new(what, format!("write \"{}\"", net.addr())));
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(Wrong::new(format!("{} is not an address", quoted(text)), remedy));
    };
    if address.is_unspecified() {
        return Err(Wrong::new(format!("{address} is no address"), remedy));
    }
    not_special(address, text, remedy).map(|()| RouteSource::Address(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_end_is_the_second_host_and_aws_the_first() {
        for (net, aws, customer) in [
            ("169.254.77.0/30", "169.254.77.1", "169.254.77.2"),
            ("169.254.77.4/30", "169.254.77.5", "169.254.77.6"),
            ("fd00:77::/126", "fd00:77::1", "fd00:77::2"),
            ("fd00:77::4/126", "fd00:77::5", "fd00:77::6"),
        ] {
            let net: IpNet = net.parse().unwrap();
            let (aws, customer): (IpAddr, IpAddr) = (aws.parse().unwrap(), customer.parse().unwrap());
            let here = inside(net, false).unwrap();
            assert_eq!((here.local.addr(), here.remote, here.local.prefix_len()), (customer, aws, net.prefix_len()));
            let there = inside(net, true).unwrap();
            assert_eq!((there.local.addr(), there.remote), (aws, customer));
        }
    }

    #[test]
    fn the_first_and_the_last_network_of_each_family_are_networks() {
        for text in ["0.0.0.0/0", "::/0", "10.20.0.0/16", "10.1.1.1/32", "fd00::/8", "2001:db8::1/128"] {
            assert!(network(text).is_ok(), "{text}");
        }
    }
}
