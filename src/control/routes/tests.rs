use std::net::IpAddr;
use std::path::PathBuf;

use super::*;
use crate::config::{Inside, Interface, RouteSource, Startup, Tunnel};
use crate::tunnel::key::PublicKey;

const TUN: Device = Device { index: 7, up: true };

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn connection(networks: &[&str]) -> Connection {
    Connection {
        name: "vpc".into(),
        networks: networks.iter().map(|n| net(n)).collect(),
        local_networks: vec![net("192.168.0.0/16"), net("fd00:1::/32")],
        routes: true,
        table: MAIN,
        metric: 50,
        route_source: RouteSource::Auto,
        when_down: FailClosed::Unreachable,
        startup: Startup::Start,
        tunnels: vec![Tunnel {
            name: "a".into(),
            public_key: PublicKey::new([1; 32]),
            endpoint: None,
            preshared_key_file: None,
            inside: Some(Inside { local: net("169.254.77.2/30"), remote: ip("169.254.77.1") }),
            keepalive: None,
        }],
    }
}

fn config(connections: Vec<Connection>) -> Config {
    let interface = Interface {
        name: "ls0".into(),
        private_key_file: PathBuf::new(),
        listen_port: 51820,
        addresses: vec![net("10.99.0.1/24")],
        mtu: None,
        fwmark: 0,
        offload: true,
        workers: 0,
        metrics: None,
    };
    Config { interface, connections }
}

fn host(address: &str, index: u32) -> HostAddress {
    HostAddress { loopback: index == 1, index, secondary: false, address: ip(address) }
}

fn running(config: &Config, endpoints: &[&str], host: &[HostAddress]) -> Desired {
    let endpoints: Vec<IpAddr> = endpoints.iter().map(|e| ip(e)).collect();
    Desired::new(config, &Facts { device: Some(TUN), endpoints: &endpoints, host, seeking: true })
}

fn device_routes(desired: &Desired) -> Vec<(IpNet, u32, Option<IpAddr>)> {
    let of = |route: &Route| match route.target {
        Target::Device { source, .. } => Some((route.prefix, route.table, source)),
        Target::Unreachable => None,
    };
    desired.routes.iter().filter_map(of).collect()
}

/// Those of the far networks. That of the inside network is always there.
fn last_resorts(desired: &Desired) -> Vec<(IpNet, u32)> {
    let all = desired.routes.iter().filter(|route| route.target == Target::Unreachable);
    all.map(|route| (route.prefix, route.table)).filter(|(prefix, _)| *prefix != net(INSIDE)).collect()
}

const INSIDE: &str = "169.254.77.0/30";

fn inside_is_closed(desired: &Desired) -> bool {
    let closes = |route: &Route| (route.prefix, route.table, route.target) == (net(INSIDE), MAIN, Target::Unreachable);
    desired.routes.iter().any(closes)
}

#[test]
fn the_inside_network_is_closed_like_those_of_the_far_site() {
    let there = connection(&["10.20.0.0/16"]);
    let before =
        Desired::new(&config(vec![there.clone()]), &Facts { device: None, endpoints: &[], host: &[], seeking: true });
    assert!(inside_is_closed(&before));
    assert!(inside_is_closed(&running(&config(vec![there.clone()]), &[], &[])));
    let withdraw = Connection { when_down: FailClosed::Withdraw, ..there.clone() };
    assert!(!inside_is_closed(&running(&config(vec![withdraw]), &[], &[])));
    let without = Connection { routes: false, ..there };
    assert!(!inside_is_closed(&running(&config(vec![without]), &[], &[])));
}

#[test]
fn every_network_has_a_route_and_an_unreachable_one_of_worst_metric() {
    let desired = running(&config(vec![connection(&["10.20.0.0/16", "fd00:2::/48"])]), &[], &[]);
    assert_eq!(device_routes(&desired), [(net("10.20.0.0/16"), MAIN, None), (net("fd00:2::/48"), MAIN, None)]);
    assert_eq!(last_resorts(&desired), [(net("10.20.0.0/16"), MAIN), (net("fd00:2::/48"), MAIN)]);
    assert!(desired.routes.iter().all(|r| (r.target == Target::Unreachable) == (r.metric >= 0xFFFF_0000)));
    assert!(desired.rules.is_empty());
}

#[test]
fn before_the_device_there_are_only_routes_of_last_resort() {
    let config = config(vec![connection(&["10.20.0.0/16"])]);
    let desired = Desired::new(&config, &Facts { device: None, endpoints: &[], host: &[], seeking: true });
    assert_eq!(last_resorts(&desired), [(net("10.20.0.0/16"), MAIN)]);
    assert_eq!((device_routes(&desired).len(), desired.addresses.len()), (0, 0));
}

#[test]
fn a_device_that_is_down_takes_no_route() {
    let config = config(vec![connection(&["10.20.0.0/16"])]);
    let down = Some(Device { index: 7, up: false });
    let desired = Desired::new(&config, &Facts { device: down, endpoints: &[], host: &[], seeking: true });
    assert!(device_routes(&desired).is_empty());
    assert_eq!(last_resorts(&desired).len(), 1);
}

#[test]
fn without_routes_nothing_is_installed() {
    let without = Connection { routes: false, ..connection(&["10.20.0.0/16"]) };
    let desired = running(&config(vec![without]), &["10.20.0.1"], &[]);
    assert!(desired.routes.is_empty() && desired.rules.is_empty());
    assert_eq!(desired.addresses.len(), 2);
}

#[test]
fn withdraw_leaves_no_route_of_last_resort() {
    let withdraw = Connection { when_down: FailClosed::Withdraw, ..connection(&["10.20.0.0/16"]) };
    assert!(last_resorts(&running(&config(vec![withdraw]), &[], &[])).is_empty());
}

#[test]
fn the_interface_has_its_addresses_and_this_end_of_each_inside_network() {
    let desired = running(&config(vec![connection(&[])]), &[], &[]);
    assert_eq!(desired.addresses.into_iter().collect::<Vec<_>>(), [net("10.99.0.1/24"), net("169.254.77.2/30")]);
}

#[test]
fn the_preferred_source_is_a_local_address_of_the_family_and_loopback_comes_last() {
    let config = config(vec![connection(&["10.20.0.0/16", "fd00:2::/48"])]);
    let all = [host("192.168.1.9", 1), host("192.168.1.1", 7), host("192.168.1.2", 3), host("8.8.8.8", 2)];
    assert_eq!(device_routes(&running(&config, &[], &all))[0].2, Some(ip("192.168.1.2")));
    assert_eq!(device_routes(&running(&config, &[], &all[..1]))[0].2, Some(ip("192.168.1.9")));
    assert_eq!(device_routes(&running(&config, &[], &all[1..2]))[0].2, None, "the TUN's own is none");
    assert_eq!(device_routes(&running(&config, &[], &[host("fd00:1::5", 3)]))[1].2, Some(ip("fd00:1::5")));
}

#[test]
fn a_configured_source_is_used_while_the_host_has_it() {
    let fixed = Connection { route_source: RouteSource::Address(ip("10.1.1.1")), ..connection(&["10.20.0.0/16"]) };
    let config = config(vec![fixed]);
    assert_eq!(device_routes(&running(&config, &[], &[host("10.1.1.1", 3)]))[0].2, Some(ip("10.1.1.1")));
    assert_eq!(device_routes(&running(&config, &[], &[]))[0].2, None);
    assert_eq!(absent_sources(&config, &[host("10.1.1.1", 3)]), [""; 0]);
    let said = absent_sources(&config, &[host("10.1.1.2", 3)]).concat();
    assert!(said.contains("route_source 10.1.1.1 is no address of this host"), "{said}");
}

#[test]
fn an_address_of_the_tunnel_may_be_the_configured_source() {
    let fixed = Connection { route_source: RouteSource::Address(ip("169.254.77.2")), ..connection(&["10.20.0.0/16"]) };
    let config = config(vec![fixed]);
    assert_eq!(device_routes(&running(&config, &[], &[]))[0].2, Some(ip("169.254.77.2")));
    assert_eq!(absent_sources(&config, &[]), [""; 0]);
}

#[test]
fn networks_that_cover_an_endpoint_move_to_tables_of_their_own_with_two_rules_each() {
    let config = config(vec![connection(&["10.0.0.0/8", "10.20.0.0/16", "10.30.0.0/16"])]);
    let desired = running(&config, &["10.20.0.5"], &[]);
    let instance = Instance::new("ls0");
    let expected = [
        (net("10.30.0.0/16"), MAIN, None),
        (net("10.0.0.0/8"), instance.table(8), None),
        (net("10.20.0.0/16"), instance.table(16), None),
    ];
    assert_eq!(device_routes(&desired), expected);
    assert_eq!(last_resorts(&desired), expected.map(|(prefix, table, _)| (prefix, table)));
    let rules: Vec<_> = desired.rules.iter().map(|rule| (rule.priority, rule.lookup)).collect();
    assert_eq!(
        rules,
        [
            (5424, Lookup::MainBeyond(16)),
            (5425, Lookup::Table(instance.table(16))),
            (5440, Lookup::MainBeyond(8)),
            (5441, Lookup::Table(instance.table(8))),
        ]
    );
    assert!(desired.rules.iter().all(|rule| rule.family == Family::V4 && rule.mark == instance.mark()));
    assert_eq!(mark(&config, &[ip("10.20.0.5")]), instance.mark());
}

#[test]
fn without_a_loop_there_is_no_mark_unless_configured() {
    let mut config = config(vec![connection(&["10.0.0.0/8"])]);
    assert_eq!(mark(&config, &[ip("192.0.2.1")]), 0);
    config.interface.fwmark = 99;
    assert_eq!(mark(&config, &[ip("192.0.2.1")]), 99);
    assert!(running(&config, &["10.0.0.1"], &[]).rules.iter().all(|rule| rule.mark == 99));
}

#[test]
fn another_table_than_main_is_left_to_the_admin() {
    let other = Connection { table: 100, ..connection(&["10.0.0.0/8"]) };
    let desired = running(&config(vec![other]), &["10.0.0.1"], &[]);
    assert_eq!(device_routes(&desired), [(net("10.0.0.0/8"), 100, None)]);
    assert!(desired.rules.is_empty());
}

#[test]
fn metric_0_is_what_linux_makes_of_it() {
    let zero = Connection { metric: 0, ..connection(&["10.0.0.0/8", "fd00:2::/48"]) };
    let desired = running(&config(vec![zero]), &[], &[]);
    let metrics: Vec<u32> =
        desired.routes.iter().filter(|r| r.target != Target::Unreachable).map(|r| r.metric).collect();
    assert_eq!(metrics, [0, 1024]);
}

#[test]
fn an_instance_knows_its_own_and_only_its_own() {
    let (ours, other) = (Instance::new("ls0"), Instance::new("ls1"));
    assert_ne!(ours, other);
    let desired = running(&config(vec![connection(&["10.0.0.0/8", "10.30.0.0/16"])]), &["10.0.0.1"], &[]);
    assert!(desired.routes.iter().all(|route| ours.owns(route, Some(7))));
    assert!(desired.routes.iter().all(|route| !other.owns(route, Some(8))));
    assert_eq!(ours.own_rules(&desired.rules), desired.rules);
    assert!(other.own_rules(&desired.rules).is_empty());
}

#[test]
fn rules_under_a_mark_of_an_earlier_configuration_are_found_again() {
    let mut config = config(vec![connection(&["10.0.0.0/8"])]);
    config.interface.fwmark = 1234;
    let leftover = running(&config, &["10.0.0.1"], &[]).rules;
    assert_eq!(leftover.len(), 2);
    assert_eq!(Instance::new("ls0").own_rules(&leftover), leftover);
}

#[test]
fn two_instances_with_the_same_configured_mark_leave_each_others_rules_alone() {
    let rules = |name: &str, network: &str| {
        let mut config = config(vec![connection(&[network])]);
        (config.interface.name, config.interface.fwmark) = (name.into(), 1234);
        running(&config, &["10.20.0.1"], &[]).rules
    };
    let (first, second) = (rules("ls0", "10.0.0.0/8"), rules("ls1", "10.20.0.0/16"));
    let all = first.union(&second).copied().collect();
    assert_eq!(Instance::new("ls0").own_rules(&all), first);
    assert_eq!(Instance::new("ls1").own_rules(&all), second);
}

#[test]
fn while_the_far_end_of_a_default_route_is_yet_to_be_learned_it_is_closed_and_our_datagrams_are_marked() {
    let config = config(vec![connection(&["0.0.0.0/0", "10.20.0.0/16"])]);
    let instance = Instance::new("ls0");
    let closed = Desired::new(&config, &Facts { device: None, endpoints: &[], host: &[], seeking: true });
    assert_eq!(last_resorts(&closed), [(net("10.20.0.0/16"), MAIN), (net("0.0.0.0/0"), instance.table(0))]);
    assert_eq!(closed.rules.len(), 2);
    assert_eq!(mark(&config, &[]), instance.mark());
}

#[test]
fn a_default_route_to_a_name_is_closed_from_the_start_but_for_the_questions_for_that_name() {
    let mut named = connection(&["0.0.0.0/0", "10.20.0.0/16"]);
    named.tunnels[0].endpoint = Some(Endpoint::Name("vpn.example.com".into(), 51820));
    let (config, instance) = (config(vec![named.clone()]), Instance::new("ls0"));
    let closed = Desired::new(&config, &Facts { device: None, endpoints: &[], host: &[], seeking: true });
    assert_eq!(last_resorts(&closed), [(net("10.20.0.0/16"), MAIN), (net("0.0.0.0/0"), instance.table(0))]);
    let rules: Vec<_> = closed.rules.iter().map(|rule| (rule.priority, rule.family, rule.lookup)).collect();
    let expected = [
        (5454, Family::V4, Lookup::Names(Transport::Tcp)),
        (5455, Family::V4, Lookup::Names(Transport::Udp)),
        (5458, Family::V4, Lookup::MainBeyond(0)),
        (5459, Family::V4, Lookup::Table(instance.table(0))),
    ];
    assert_eq!(rules, expected);
    assert_eq!(mark(&config, &[]), instance.mark());
    let resolved = running(&config, &["198.51.100.1"], &[]);
    assert_eq!(resolved.rules, closed.rules);
    let found = Facts { device: Some(TUN), endpoints: &[ip("198.51.100.1")], host: &[], seeking: false };
    assert_eq!(Desired::new(&config, &found).rules.len(), 2, "a tunnel that is up carries those questions, too");
    assert_eq!(instance.own_rules(&resolved.rules), resolved.rules);
    assert!(Instance::new("ls1").own_rules(&resolved.rules).is_empty());
    // A name server in a network that is no default route is behind the tunnel, its table comes first.
    let inside = running(&config, &["10.20.0.9"], &[]).rules;
    let place = |lookup| inside.iter().find(|rule| rule.lookup == lookup).unwrap().priority;
    assert!(place(Lookup::Table(instance.table(16))) < place(Lookup::Names(Transport::Tcp)));
    let halves = Connection { networks: vec![net("0.0.0.0/1"), net("128.0.0.0/1")], ..named.clone() };
    let halves = Config { connections: vec![halves], ..config.clone() };
    let closed = Desired::new(&halves, &Facts { device: None, endpoints: &[], host: &[], seeking: true });
    assert!(last_resorts(&closed).iter().all(|(_, table)| *table == instance.table(1)));
    assert_eq!(closed.rules.len(), 4);
    named.networks.remove(0);
    let narrow = Config { connections: vec![named], ..config };
    assert!(running(&narrow, &[], &[]).rules.is_empty());
}

#[test]
fn the_hash_of_a_name_never_changes() {
    assert_eq!(Instance::new("ls0").last_resort(), 0xFFFF_0000 | u32::from(EXPECTED_LS0));
}

/// FNV-1a of "ls0", folded; computed apart from the code.
const EXPECTED_LS0: u16 = 0xE98B;
