mod problems;

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout;

use super::*;
use crate::config::{Connection, Endpoint, FailClosed, Inside, Interface, RouteSource, Startup, Tunnel};
use crate::control::netlink::Monitor;
use crate::control::routes::{MAIN, Target};
use crate::control::testing::{in_namespace, ip, veth};
use crate::tunnel::key::PublicKey;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn config(networks: &[&str]) -> Config {
    let tunnel = Tunnel {
        name: "a".into(),
        public_key: PublicKey::new([1; 32]),
        endpoint: None,
        preshared_key_file: None,
        inside: Some(Inside { local: net("169.254.77.2/30"), remote: "169.254.77.1".parse().unwrap() }),
        keepalive: None,
    };
    let connection = Connection {
        name: "vpc".into(),
        networks: networks.iter().map(|n| net(n)).collect(),
        local_networks: vec![net("192.168.0.0/16"), net("fd00:1::/32")],
        routes: true,
        table: MAIN,
        metric: 50,
        route_source: RouteSource::Auto,
        when_down: FailClosed::Unreachable,
        startup: Startup::Start,
        tunnels: vec![tunnel],
    };
    let interface = Interface {
        name: "ls0".into(),
        private_key_file: PathBuf::new(),
        listen_port: 51820,
        addresses: vec![net("fd77::1/64")],
        mtu: None,
        fwmark: 0,
        offload: true,
        workers: 0,
        metrics: None,
    };
    Config { interface, connections: vec![connection] }
}

fn reconciler() -> Reconciler {
    Reconciler::new(Netlink::open().unwrap(), "ls0")
}

/// Routes and rules with our protocol number, as iproute2 shows them.
fn ours() -> String {
    let all = ["route show table all", "rule show", "-6 rule show"].map(ip).concat();
    let lines: BTreeSet<&str> = all.lines().map(str::trim).filter(|line| line.contains("proto 76")).collect();
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

/// Which interface the kernel would use, or "unreachable".
fn way(arguments: &str) -> String {
    let output =
        std::process::Command::new("ip").args(["route", "get"]).args(arguments.split_whitespace()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.split_whitespace().skip_while(|word| *word != "dev").nth(1) {
        Some(device) if !text.contains("unreachable") => device.to_owned(),
        _ => "unreachable".to_owned(),
    }
}

#[test]
fn before_the_device_packets_are_refused_and_with_it_they_enter_it() {
    in_namespace(|| async {
        let wan = veth("wan");
        ip("addr add 192.0.2.2/24 dev wan");
        ip("route add default via 192.0.2.1");
        let config = config(&["10.20.0.0/16", "fd20::/32"]);
        let mut reconciler = reconciler();
        let outcome = reconciler.before_device(&config, &[]).await.unwrap();
        assert_eq!(outcome.complete().unwrap().len(), 3, "one of them for the inside network");
        assert_eq!(
            (way("10.20.0.1"), way("fd20::1"), way("10.9.0.1")),
            ("unreachable".into(), "unreachable".into(), "wan".into())
        );

        let tun = veth("tun");
        reconciler.running(&config, tun, &[]).await.unwrap().complete().unwrap();
        assert_eq!((way("10.20.0.1"), way("fd20::1")), ("tun".into(), "tun".into()));
        assert!(ip("addr show dev tun").contains("169.254.77.2/30"));
        assert_eq!(reconciler.running(&config, tun, &[]).await.unwrap(), Outcome::default(), "nothing left to do");

        ip("link del tun");
        assert_eq!(way("10.20.0.1"), "unreachable", "as after a crash");
        assert_eq!(reconciler.running(&config, tun, &[]).await, Err(Error::NoDevice));
        reconciler.clear(None).await.unwrap().complete().unwrap();
        assert_eq!(ours(), "");
        assert_ne!(wan, tun);
    });
}

#[test]
fn what_others_delete_is_put_back_within_a_second() {
    in_namespace(|| async {
        let tun = veth("tun");
        veth("lan");
        ip("addr add 192.168.7.1/24 dev lan");
        let config = config(&["10.0.0.0/8", "10.20.0.0/16", "fd20::/32"]);
        let endpoints = ["10.20.0.9".parse().unwrap()];
        let mut reconciler = reconciler();
        let mut monitor = Monitor::open().unwrap();
        reconciler.running(&config, tun, &endpoints).await.unwrap().complete().unwrap();
        let whole = ours();
        assert_eq!(whole.lines().count(), 11, "{whole}");
        let table = Instance::new("ls0").table(16);
        let deletions = [
            "route del 10.20.0.0/16 dev tun table TABLE".replace("TABLE", &table.to_string()),
            "route del unreachable 10.20.0.0/16 table TABLE".replace("TABLE", &table.to_string()),
            "-6 route del fd20::/32 dev tun".to_owned(),
            "-6 route flush proto 76".to_owned(),
            "rule del priority 5424".to_owned(),
            "rule del priority 5425".to_owned(),
            "addr del 169.254.77.2/30 dev tun".to_owned(),
            "addr del fd77::1/64 dev tun".to_owned(),
            "addr flush dev tun".to_owned(),
            "route flush table all proto 76".to_owned(),
            "route replace 10.0.0.0/8 dev lan metric 50 table TABLE8"
                .replace("TABLE8", &Instance::new("ls0").table(8).to_string()),
        ];
        for deletion in deletions {
            while timeout(Duration::from_millis(300), monitor.changed()).await.is_ok() {}
            ip(&deletion);
            if deletion.contains("replace") {
                // Somebody else's route in our own table: told, not fought over.
                timeout(Duration::from_secs(1), monitor.changed()).await.expect(&deletion).unwrap();
                let outcome = reconciler.running(&config, tun, &endpoints).await.unwrap();
                assert_eq!(outcome.problems.len(), 1, "{outcome:?}");
                continue;
            }
            timeout(Duration::from_secs(1), monitor.changed()).await.expect(&deletion).unwrap();
            reconciler.running(&config, tun, &endpoints).await.unwrap().complete().unwrap();
            assert_eq!(ours(), whole, "after {deletion}");
            let addresses = ip("addr show dev tun");
            assert!(addresses.contains("169.254.77.2/30") && addresses.contains("fd77::1/64"), "after {deletion}");
        }
    });
}

#[test]
fn a_route_follows_its_source_address() {
    in_namespace(|| async {
        let tun = veth("tun");
        veth("lan");
        ip("addr add 192.168.7.1/24 dev lan");
        ip("-6 addr add fd00:1::1/64 dev lan nodad");
        let config = config(&["10.20.0.0/16", "fd20::/32"]);
        let mut reconciler = reconciler();
        let mut monitor = Monitor::open().unwrap();
        reconciler.running(&config, tun, &[]).await.unwrap().complete().unwrap();
        assert!(ours().contains("src 192.168.7.1") && ours().contains("src fd00:1::1"), "{}", ours());
        while timeout(Duration::from_millis(300), monitor.changed()).await.is_ok() {}

        ip("addr del 192.168.7.1/24 dev lan");
        ip("-6 addr del fd00:1::1/64 dev lan");
        timeout(Duration::from_secs(1), monitor.changed()).await.expect("the address is gone").unwrap();
        reconciler.running(&config, tun, &[]).await.unwrap().complete().unwrap();
        assert!(!ours().contains("src"), "{}", ours());
        assert_eq!((way("10.20.0.1"), way("fd20::1")), ("tun".into(), "tun".into()));

        ip("addr add 192.168.7.2/24 dev lan");
        ip("-6 addr add fd00:1::2/64 dev lan nodad");
        timeout(Duration::from_secs(1), monitor.changed()).await.expect("another has come").unwrap();
        reconciler.running(&config, tun, &[]).await.unwrap().complete().unwrap();
        assert!(ours().contains("src 192.168.7.2") && ours().contains("src fd00:1::2"), "{}", ours());
    });
}

#[test]
fn our_datagrams_do_not_loop_and_all_else_enters_the_tunnel() {
    // wan -- 192.0.2.0/24 -- default route; 10.20.7.0/24 is a network of our own behind "lan".
    in_namespace(|| async {
        let tun = veth("tun");
        veth("wan");
        veth("lan");
        ip("addr add 192.0.2.2/24 dev wan");
        ip("route add default via 192.0.2.1");
        ip("-6 addr add 2001:db8::2/64 dev wan nodad");
        ip("-6 route add default via 2001:db8::1");
        ip("addr add 10.20.7.1/24 dev lan");
        let config = config(&["10.0.0.0/8", "10.20.0.0/16", "10.30.0.0/16", "fd20::/16"]);
        let endpoints = ["10.20.0.9".parse().unwrap(), "fd20::9".parse().unwrap()];
        let mark = crate::control::routes::mark(&config, &endpoints);
        let mut reconciler = reconciler();
        reconciler.running(&config, tun, &endpoints).await.unwrap().complete().unwrap();

        assert_eq!(way(&format!("10.20.0.9 mark {mark}")), "wan");
        assert_eq!(way(&format!("fd20::9 mark {mark}")), "wan");
        for inner in ["10.20.0.9", "10.20.1.1", "10.5.0.1", "10.30.0.1", "fd20::9", "fd20:5::1"] {
            assert_eq!(way(inner), "tun", "{inner}");
        }
        assert_eq!(way("10.20.7.5"), "lan", "a more specific route of main still wins");
        assert_eq!(way("192.0.2.9"), "wan");

        // A crash takes the TUN: nothing goes out in clear, though a default route is there.
        ip("link del tun");
        for inner in ["10.20.0.9", "10.5.0.1", "10.30.0.1", "fd20::9"] {
            assert_eq!(way(inner), "unreachable", "{inner}");
        }
        assert_eq!(way(&format!("10.20.0.9 mark {mark}")), "wan");

        // The next start finds all of it, and moves it back when the endpoint is elsewhere.
        let mut next = Reconciler::new(Netlink::open().unwrap(), "ls0");
        assert_eq!(next.before_device(&config, &endpoints).await.unwrap(), Outcome::default());
        let tun = veth("tun");
        next.running(&config, tun, &[]).await.unwrap().complete().unwrap();
        assert!(ours().lines().all(|line| !line.contains("table") && !line.contains("fwmark")), "{}", ours());
        assert_eq!(way("10.20.0.9"), "tun");
        next.clear(Some(tun)).await.unwrap().complete().unwrap();
        assert_eq!(ours(), "");
    });
}

#[test]
fn a_failed_start_leaves_what_it_found() {
    in_namespace(|| async {
        let first = config(&["10.20.0.0/16"]);
        reconciler().before_device(&first, &[]).await.unwrap().complete().unwrap();
        let leftover = ours();
        let tun = veth("tun");
        let mut second = reconciler();
        let more = config(&["10.20.0.0/16", "10.21.0.0/16", "10.0.0.0/8"]);
        second.before_device(&more, &["10.0.0.9".parse().unwrap()]).await.unwrap().complete().unwrap();
        second.running(&more, tun, &["10.0.0.9".parse().unwrap()]).await.unwrap().complete().unwrap();
        assert!(ours().lines().count() > 5, "{}", ours());
        assert_eq!(second.roll_back().await.problems, []);
        assert_eq!(ours(), leftover);
    });
}

#[test]
fn a_start_that_fails_before_names_are_resolved_opens_nothing_that_a_crash_left_closed() {
    in_namespace(|| async {
        veth("wan");
        ip("addr add 192.0.2.2/24 dev wan");
        ip("route add default via 192.0.2.1");
        let mut everything = config(&["0.0.0.0/0"]);
        everything.connections[0].tunnels[0].endpoint = Some(Endpoint::Name("vpn.example.com".into(), 51820));
        let tun = veth("tun");
        let resolved = ["198.51.100.7".parse().unwrap()];
        reconciler().running(&everything, tun, &resolved).await.unwrap().complete().unwrap();
        ip("link del tun");
        let leftover = ours();

        let mut second = reconciler();
        second.before_device(&everything, &[]).await.unwrap().complete().unwrap();
        assert_eq!(way("203.0.113.1"), "unreachable");
        assert_eq!(second.roll_back().await.problems, []);
        assert_eq!(ours(), leftover);
        assert_eq!(way("203.0.113.1"), "unreachable");
    });
}

#[test]
fn another_instance_and_the_admin_keep_what_is_theirs() {
    in_namespace(|| async {
        let (tun, other_tun) = (veth("tun"), veth("tun2"));
        let endpoints = ["10.20.0.9".parse().unwrap()];
        let mut other_config = config(&["10.20.0.0/16", "fd30::/32"]);
        other_config.interface.name = "ls1".into();
        other_config.connections[0].metric = 60;
        let mut other = Reconciler::new(Netlink::open().unwrap(), "ls1");
        other.running(&other_config, other_tun, &endpoints).await.unwrap().complete().unwrap();
        ip("route add 10.99.0.0/16 dev tun proto static");
        let before = ours();
        let mut reconciler = reconciler();
        let config = config(&["10.0.0.0/8", "10.20.0.0/16"]);
        reconciler.running(&config, tun, &endpoints).await.unwrap().complete().unwrap();
        assert_eq!(other.running(&other_config, other_tun, &endpoints).await.unwrap(), Outcome::default());
        reconciler.clear(Some(tun)).await.unwrap().complete().unwrap();
        assert_eq!(ours(), before);
        assert!(ip("route show").contains("10.99.0.0/16"));
    });
}

#[test]
fn while_the_interface_is_down_packets_are_refused() {
    in_namespace(|| async {
        let tun = veth("tun");
        veth("wan");
        ip("addr add 192.0.2.2/24 dev wan");
        ip("route add default via 192.0.2.1");
        let config = config(&["10.20.0.0/16"]);
        let mut reconciler = reconciler();
        reconciler.running(&config, tun, &[]).await.unwrap().complete().unwrap();
        ip("link set tun down");
        reconciler.running(&config, tun, &[]).await.unwrap().complete().unwrap();
        assert_eq!(way("10.20.0.1"), "unreachable");
        ip("link set tun up");
        reconciler.running(&config, tun, &[]).await.unwrap().complete().unwrap();
        assert_eq!(way("10.20.0.1"), "tun");
    });
}

#[test]
fn changes_add_before_they_delete() {
    let route = |table, target| Route { table, prefix: net("10.0.0.0/8"), metric: 50, target };
    let device = |source: Option<&str>| Target::Device { index: 7, source: source.map(|s| s.parse().unwrap()) };
    let desired = Desired {
        addresses: BTreeSet::from([net("10.9.0.1/24")]),
        routes: BTreeSet::from([route(100, Target::Unreachable), route(MAIN, device(Some("192.0.2.1")))]),
        rules: BTreeSet::new(),
    };
    let present = Present {
        addresses: BTreeSet::from([net("10.8.0.1/24")]),
        routes: BTreeSet::from([route(200, device(None)), route(MAIN, device(None))]),
        rules: BTreeSet::new(),
    };
    let expected = [
        Step::AddAddress(net("10.9.0.1/24")),
        Step::AddRoute(route(100, Target::Unreachable)),
        Step::ReplaceRoute(route(MAIN, device(Some("192.0.2.1")))),
        Step::DeleteRoute(route(200, device(None))),
    ];
    assert_eq!(plan(&desired, &present), expected);
}
