use std::time::Duration;

use super::*;

/// The six lines of DESIGN 7.
pub(super) const SMALLEST: &str = r#"
[[connection]]
name = "production-vpc"
networks = ["10.20.0.0/16"]
[[connection.tunnel]]
public_key = "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU="
endpoint = "vpn.example.com:51820"
"#;

fn office(text: &str) -> Config {
    parse(text, "office.toml", "office").unwrap_or_else(|problems| panic!("{problems}"))
}

/// The file with this line in its `[interface]` and this one in its tunnel.
fn with(interface: &str, tunnel: &str) -> String {
    format!("[interface]\n{interface}\n{SMALLEST}{tunnel}\n")
}

#[test]
fn the_smallest_file_has_every_default() {
    let config = office(SMALLEST);
    let interface = Interface {
        name: "office".to_owned(),
        private_key_file: "/etc/linkspan/office.key".into(),
        listen_port: 51820,
        addresses: Vec::new(),
        mtu: None,
        fwmark: 0,
        offload: true,
        workers: 0,
        metrics: None,
    };
    assert_eq!(config.interface, interface);
    let tunnel = Tunnel {
        name: "1".to_owned(),
        public_key: crate::tunnel::key::PublicKey::new([5; 32]),
        endpoint: Some(Endpoint::Name("vpn.example.com".to_owned(), 51820)),
        preshared_key_file: None,
        inside: None,
        keepalive: Some(Duration::from_secs(10)),
    };
    let connection = Connection {
        name: "production-vpc".to_owned(),
        networks: vec!["10.20.0.0/16".parse().unwrap()],
        local_networks: Vec::new(),
        routes: true,
        table: 254,
        metric: 50,
        route_source: RouteSource::Auto,
        when_down: FailClosed::Unreachable,
        startup: Startup::Start,
        tunnels: vec![tunnel],
    };
    assert_eq!(config.connections, [connection]);
}

#[test]
fn an_empty_interface_section_changes_nothing() {
    assert_eq!(office(&with("", "")), office(SMALLEST));
}

#[test]
fn the_example_that_problems_show_is_right_but_for_its_key() {
    let problems = parse(super::SMALLEST, "office.toml", "office").unwrap_err();
    assert_eq!(problems.len(), 1, "{problems}");
    assert!(problems.to_string().contains("public_key"), "{problems}");
}

#[test]
fn addresses_come_from_the_inside_network_unless_given() {
    let inside = "inside_cidr = \"169.254.77.0/30\"";
    assert_eq!(office(&with("", inside)).interface.addresses, ["169.254.77.2/30".parse().unwrap()]);
    let aws = format!("{inside}\ninside = \"aws\"");
    assert_eq!(office(&with("", &aws)).interface.addresses, ["169.254.77.1/30".parse().unwrap()]);
    let given = "addresses = [\"169.254.77.2/32\", \"fd00::1/64\"]";
    assert_eq!(office(&with(given, inside)).interface.addresses.len(), 2);
}

#[test]
fn keepalives_are_automatic_off_seconds_or_a_duration() {
    for (written, seconds) in [
        ("\"auto\"", Some(10)),
        ("\"off\"", None),
        ("25", Some(25)),
        ("\"25s\"", Some(25)),
        ("\"2min\"", Some(120)),
        ("\"3000ms\"", Some(3)),
        ("1", Some(1)),
        ("65_535", Some(65_535)),
    ] {
        let config = office(&with("", &format!("persistent_keepalive = {written}")));
        assert_eq!(config.connections[0].tunnels[0].keepalive, seconds.map(Duration::from_secs), "{written}");
    }
}

#[test]
fn round_and_hexadecimal_numbers_are_numbers() {
    let config = office(&with("listen_port = 50_000\nfwmark = 0xca6c\nmtu = 1280\nworkers = 64", ""));
    let Interface { listen_port, fwmark, mtu, workers, .. } = config.interface;
    assert_eq!((listen_port, fwmark, mtu.map(crate::packet::Mtu::bytes), workers), (50_000, 0xca6c, Some(1280), 64));
}

#[test]
fn metrics_have_a_loopback_address_or_none() {
    let of = |text: &str| office(&with(&format!("metrics = {text:?}"), "")).interface.metrics;
    assert_eq!(of(""), None);
    for address in ["127.0.0.1:9586", "127.0.0.2:1024", "[::1]:9586"] {
        assert_eq!(of(address), address.parse().ok(), "{address}");
    }
}

#[test]
fn every_key_of_a_connection_is_understood() {
    let keys = "local_networks = [\"10.1.0.0/24\"]\nroutes = false\ntable = 100\nmetric = 0\n\
                route_source = \"10.1.0.1\"\nwhen_down = \"withdraw\"\nstartup_action = \"add\"\n[[connection.tunnel]]";
    let connection = office(&SMALLEST.replace("[[connection.tunnel]]", keys)).connections.remove(0);
    assert_eq!(connection.local_networks, ["10.1.0.0/24".parse().unwrap()]);
    assert_eq!((connection.routes, connection.table, connection.metric), (false, 100, 0));
    assert_eq!(connection.route_source, RouteSource::Address("10.1.0.1".parse().unwrap()));
    assert_eq!((connection.when_down, connection.startup), (FailClosed::Withdraw, Startup::Add));
}

#[test]
fn two_connections_may_share_what_is_behind_this_end_and_nest_what_is_behind_the_others() {
    let local = "local_networks = [\"10.0.0.0/8\"]\n[[connection.tunnel]]";
    let first = SMALLEST.replace("[[connection.tunnel]]", local);
    let second = first.replace("production", "test").replace("10.20.0.0/16", "10.20.1.0/24").replace("BQUF", "AQUF");
    let config = office(&(first + &second));
    assert_eq!(config.connections.len(), 2);
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_do_no_harm() {
    let text = format!("\u{feff}{}", SMALLEST.replace('\n', "\r\n"));
    assert_eq!(office(&text), office(SMALLEST));
}
