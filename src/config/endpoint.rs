//! `endpoint`: a name or an address, and a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::model::Endpoint;
use super::problem::Wrong;
use super::value::quoted;

const REMEDY: &str = "write \"vpn.example.com:51820\", \"192.0.2.1:51820\" or \"[2001:db8::1]:51820\"";

/// "host:port", "v4:port" or "[v6]:port".
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Wrong> {
    not_another_thing(text)?;
    if let Some(rest) = text.strip_prefix('[') {
        return bracketed(text, rest);
    }
    if text.matches(':').count() > 1 {
        return Err(bare_ipv6(text));
    }
    let Some((host, port)) = text.split_once(':') else {
        return Err(Wrong::new(
            format!("{} has no port", quoted(text)),
            format!("write {}", quoted(&format!("{text}:51820"))),
        ));
    };
    let port = parse_port(port)?;
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return reachable(IpAddr::V4(address)).map(|ip| Endpoint::Address(SocketAddr::new(ip, port)));
    }
    check_name(host)?;
    Ok(Endpoint::Name(host.to_owned(), port))
}

fn not_another_thing(text: &str) -> Result<(), Wrong> {
    if text.is_empty() {
        Err(Wrong::new("empty", "remove the line if the far end comes to us; else write its address and port"))
    } else if text.chars().any(char::is_whitespace) {
        Err(Wrong::new(format!("{} holds a blank", quoted(text)), REMEDY))
    } else if let Some((scheme, rest)) = text.split_once("://") {
        let remedy = if rest.contains('/') { REMEDY.to_owned() } else { format!("write {}", quoted(rest)) };
        Err(Wrong::new(format!("an endpoint does not begin with {}", quoted(&format!("{scheme}://"))), remedy))
    } else if text.contains('/') {
        Err(Wrong::new(format!("{} holds a slash", quoted(text)), REMEDY))
    } else {
        Ok(())
    }
}

fn bracketed(text: &str, rest: &str) -> Result<Endpoint, Wrong> {
    let (host, port) =
        rest.split_once(']').ok_or_else(|| Wrong::new(format!("{} lacks its ]", quoted(text)), REMEDY))?;
    let Ok(address) = host.parse::<Ipv6Addr>() else {
        return Err(Wrong::new(format!("{} is not an IPv6 address", quoted(host)), REMEDY));
    };
    let Some(port) = port.strip_prefix(':') else {
        return Err(Wrong::new(format!("{} has no port", quoted(text)), format!("write \"[{address}]:51820\"")));
    };
    let port = parse_port(port)?;
    reachable(IpAddr::V6(address)).map(|ip| Endpoint::Address(SocketAddr::new(ip, port)))
}

/// More than one colon and no brackets: where the address ends is anybody's guess.
fn bare_ipv6(text: &str) -> Wrong {
    let split = text.rsplit_once(':').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
    let remedy = match (text.parse::<Ipv6Addr>(), split) {
        (Ok(address), _) => format!("write \"[{address}]:51820\""),
        (Err(_), Some((host, port))) => format!("write {}", quoted(&format!("[{host}]:{port}"))),
        (Err(_), None) => REMEDY.to_owned(),
    };
    Wrong::new(format!("{} has colons without brackets", quoted(text)), remedy)
}

fn parse_port(text: &str) -> Result<u16, Wrong> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ => Err(Wrong::new(format!("{} is no port", quoted(text)), "write a number from 1 to 65535, as 51820")),
    }
}

/// An address to which a datagram can be sent.
fn reachable(address: IpAddr) -> Result<IpAddr, Wrong> {
    let why = match address {
        ip if ip.is_unspecified() => "is no far end's address",
        ip if ip.is_multicast() => "is multicast",
        IpAddr::V4(v4) if v4.is_broadcast() => "is broadcast",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "is link-local, and names no interface",
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => return Err(Wrong::new(format!("{v6} is IPv4 in IPv6's clothes"), format!("write {v4}"))),
            None => return Ok(address),
        },
        IpAddr::V4(_) => return Ok(address),
    };
    Err(Wrong::new(format!("{address} {why}"), "write the address at which the far end is reached"))
}

/// A DNS name (RFC 1123, section 2.1; underscores as DNS itself allows).
fn check_name(host: &str) -> Result<(), Wrong> {
    const LABEL: usize = 63;
    const NAME: usize = 253;
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        let dash = label.starts_with('-') || label.ends_with('-');
        let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        !label.is_empty() && label.len() <= LABEL && letters && !dash
    };
    if !host.is_ascii() {
        Err(Wrong::new(format!("{} has letters that DNS does not carry", quoted(host)), "write its xn-- form"))
    } else if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        Err(Wrong::new(format!("{} is not an IPv4 address", quoted(host)), "write four numbers from 0 to 255"))
    } else if name.len() > NAME || !name.split('.').all(label) {
        Err(Wrong::new(format!("{} is not a host name", quoted(host)), REMEDY))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_both_families_are_endpoints() {
        for text in ["vpn.example.com:51820", "gw_1:1", "192.0.2.1:65535", "[2001:db8::1]:51820", "example.com.:1"] {
            assert!(endpoint(text).is_ok(), "{text}");
        }
        assert_eq!(endpoint("[2001:db8::1]:7").unwrap().to_string(), "[2001:db8::1]:7");
    }

    #[test]
    fn what_cannot_be_reached_is_not_an_endpoint() {
        for text in
            ["", ":1", "a:", "a:0", "a:65536", "a:+1", "-a:1", "a..b:1", "1.2.3:1", "0.0.0.0:1", "[::]:1", "[::1"]
        {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }
}
