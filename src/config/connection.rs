//! `[[connection]]`

use ipnet::IpNet;
use toml::Spanned;

use super::interface::or;
use super::ledger::Ledger;
use super::model::{Connection, FailClosed, RouteSource, Startup};
use super::problem::Wrong;
use super::report::Report;
use super::section::Section;
use super::{SMALLEST, address, schema, tunnel, value};

/// Better than the kernel's and DHCP clients' routes, worse than a route somebody set by hand.
const METRIC: u32 = 50;
/// The metrics above are those of the unreachable routes of last resort.
const WORST_METRIC: u32 = 0xFFFE_FFFF;
const MAIN: u32 = 254;

/// All connections of the file.
pub(super) fn read_all(report: &mut Report<'_>, root: &Section<'_>, ledger: &mut Ledger) -> Vec<Connection> {
    let sections = root.many(report, "connection", &schema::CONNECTION);
    if root.lacks("connection") {
        let wrong = Wrong::new("there is none", "add one; the smallest file is below").with_example(SMALLEST);
        report.shape(0..0, "connection", &wrong);
    }
    sections.iter().map(|section| read(report, section, ledger)).collect()
}

fn read(report: &mut Report<'_>, section: &Section<'_>, ledger: &mut Ledger) -> Connection {
    section.need(report, "name", "\"production-vpc\"");
    let name = section.text(report, "name", value::name);
    if let Some(name) = &name {
        ledger.connection_name(report, name);
    }
    section.need(report, "networks", "[\"10.20.0.0/16\"], what is behind the far end");
    let networks = section.list(report, "networks", address::network);
    section.not_empty(report, "networks", "write what is behind the far end, as [\"10.20.0.0/16\"]");
    ledger.networks(report, &networks);
    let local_networks = section.list(report, "local_networks", address::network);
    ledger.local_networks(report, &local_networks);
    let name = or(name, String::new());
    let tunnels = tunnel::read_all(report, section, ledger);
    let networks: Vec<IpNet> = networks.into_iter().map(Spanned::into_inner).collect();
    Connection {
        name,
        local_networks: local_networks.into_iter().map(Spanned::into_inner).collect(),
        routes: or(section.value(report, "routes", value::boolean), true),
        table: or(section.value(report, "table", value::table), MAIN),
        metric: or(section.value(report, "metric", |found| value::number(found, 0..=WORST_METRIC)), METRIC),
        route_source: route_source(report, section, &networks),
        when_down: or(section.text(report, "when_down", value::one_of(&WHEN_DOWN)), FailClosed::Unreachable),
        startup: or(section.text(report, "startup_action", value::one_of(&STARTUP)), Startup::Start),
        networks,
        tunnels,
    }
}

const WHEN_DOWN: [(&str, FailClosed); 2] =
    [("unreachable", FailClosed::Unreachable), ("withdraw", FailClosed::Withdraw)];
const STARTUP: [(&str, Startup); 2] = [("start", Startup::Start), ("add", Startup::Add)];

/// `route_source`, which is of no use where no network is of its family.
fn route_source(report: &mut Report<'_>, section: &Section<'_>, networks: &[IpNet]) -> RouteSource {
    let Some(source) = section.text(report, "route_source", address::route_source) else { return RouteSource::Auto };
    if let RouteSource::Address(ip) = source.get_ref()
        && !networks.is_empty()
        && networks.iter().all(|net| net.addr().is_ipv4() != ip.is_ipv4())
    {
        let (own, other) = if ip.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        let what = format!("{ip} is {own}, and every network of the connection is {other}");
        report.value(
            source.span(),
            "route_source",
            &Wrong::new(what, format!("write an {other} address, or \"auto\"")),
        );
    }
    source.into_inner()
}
