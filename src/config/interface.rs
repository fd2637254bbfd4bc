//! `[interface]`

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::ledger::Ledger;
use super::model::Interface;
use super::problem::Wrong;
use super::report::Report;
use super::section::Section;
use super::{address, schema, value};

/// WireGuard's customary port.
const PORT: u16 = 51820;
/// What to write for `metrics`.
const METRICS: &str = "write \"127.0.0.1:9586\", or \"\" for none";
/// Below it, a port needs a privilege.
const UNPRIVILEGED: u16 = 1024;
/// Data threads wait on that many sockets at the most, and a slot names one of them in 8 bits.
const MOST_WORKERS: i64 = 64;

/// Whether Linux takes `name` for a network interface (`dev_valid_name` in its `net/core/dev.c`; a `%` is a template
/// there, and the two names are those of directories in `/proc/sys/net/*/conf`).
pub(super) fn check_name(name: &str) -> Result<(), Wrong> {
    const MOST: usize = 15;
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
    let wrong = match name {
        "" => "no name".to_owned(),
        "." | ".." | "all" | "default" => "a name that the kernel keeps for itself".to_owned(),
        _ if name.len() > MOST => format!("{} bytes long", name.len()),
        _ => match name.chars().find(|c| bad(*c)) {
            Some(c) => format!("{c:?} in it"),
            None => return Ok(()),
        },
    };
    Err(Wrong::new(
        format!("{} cannot be the name of the interface: {wrong}", value::quoted(name)),
        "rename the file to NAME.toml, NAME being 1 to 15 letters, digits, '-' or '_'",
    ))
}

/// The section, or its defaults.
pub(super) fn read(report: &mut Report<'_>, root: &Section<'_>, name: &str, ledger: &mut Ledger) -> Interface {
    let mut interface = default(name);
    let Some(section) = root.single(report, "interface", &schema::INTERFACE) else { return interface };
    if let Some(path) = section.text(report, "private_key_file", value::path) {
        interface.private_key_file = path.into_inner();
    }
    if let Some(port) = section.value(report, "listen_port", listen_port) {
        interface.listen_port = port.into_inner();
    }
    if let Some(mtu) = section.value(report, "mtu", value::mtu) {
        interface.mtu = mtu.into_inner();
    }
    if let Some(mark) = section.value(report, "fwmark", |found| value::number(found, 0..=u32::MAX)) {
        interface.fwmark = mark.into_inner();
    }
    if let Some(offload) = section.value(report, "offload", value::boolean) {
        interface.offload = offload.into_inner();
    }
    if let Some(workers) = section.value(report, "workers", workers) {
        interface.workers = workers.into_inner();
    }
    if let Some(metrics) = section.value(report, "metrics", metrics) {
        interface.metrics = metrics.into_inner();
    }
    let addresses = section.list(report, "addresses", address::interface_address);
    interface.addresses = addresses.iter().map(|address| *address.get_ref()).collect();
    ledger.interface_addresses(report, addresses);
    interface
}

fn default(name: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        private_key_file: PathBuf::from(format!("/etc/linkspan/{name}.key")),
        listen_port: PORT,
        addresses: Vec::new(),
        mtu: None,
        fwmark: 0,
        offload: true,
        workers: 0,
        metrics: None,
    }
}

fn listen_port(found: &DeValue<'_>) -> Result<u16, Wrong> {
    let remedy = "write a number from 1024 to 65535; 51820 is customary";
    let refused = |what: String| Err(Wrong::new(what, remedy));
    match value::number(found, 0..=u16::MAX.into()).map(u16::try_from) {
        Ok(Ok(0)) => refused("0 is a different port at every start, which the far end cannot know".to_owned()),
        Ok(Ok(port)) if port < UNPRIVILEGED => refused(format!("{port} needs a privilege that the daemon gives up")),
        Ok(Ok(port)) => Ok(port),
        Ok(Err(_)) => refused("out of range".to_owned()),
        Err(wrong) if found.is_str() => Err(wrong),
        Err(wrong) => refused(wrong.what),
    }
}

fn workers(found: &DeValue<'_>) -> Result<usize, Wrong> {
    value::integer(found, 0..=MOST_WORKERS).map(|number| usize::try_from(number).unwrap_or_default())
}

/// `metrics`: a loopback address and a port, or empty for none.
fn metrics(found: &DeValue<'_>) -> Result<Option<SocketAddr>, Wrong> {
    match value::text(found, metrics_address) {
        Err(wrong) if !found.is_str() => Err(Wrong::new(wrong.what, METRICS)),
        read => read,
    }
}

fn metrics_address(text: &str) -> Result<Option<SocketAddr>, Wrong> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |what: &str| Err(Wrong::new(format!("{} {what}", value::quoted(text)), METRICS));
    match text.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_loopback() => Err(Wrong::new(
            format!("{} is not a loopback address, so that others could ask there", address.ip()),
            format!(
                "write \"127.0.0.1:{}\", and let a Prometheus elsewhere come by a proxy that knows it",
                address.port()
            ),
        )),
        Ok(address) if address.port() == 0 => wrong("is a different port at every start, which Prometheus cannot know"),
        Ok(address) if address.port() < UNPRIVILEGED => wrong("needs a privilege that the daemon gives up"),
        Ok(address) => Ok(Some(address)),
        Err(_) if text.parse::<IpAddr>().is_ok() => wrong("has no port"),
        Err(_) => wrong("is not an address and a port"),
    }
}

/// The value without its place, or another.
pub(super) fn or<T>(value: Option<Spanned<T>>, default: T) -> T {
    value.map_or(default, Spanned::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_interfaces_are_the_kernels() {
        for name in ["office", "a", "wg0", "fifteen-bytes-x", "vpn_1.2", "büro"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "a:b", "tun%d", "sixteen-bytes-xx", "all", "default", "a\u{85}"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
