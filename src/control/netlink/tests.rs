use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::control::routes::{Lookup, MAIN, Target, Transport};
use crate::control::testing::{in_namespace, ip, veth};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn device_route(prefix: &str, index: u32, source: Option<&str>) -> Route {
    let source = source.map(|source| source.parse().unwrap());
    Route { table: MAIN, prefix: net(prefix), metric: 50, target: Target::Device { index, source } }
}

#[test]
fn an_interface_gets_its_mtu_and_comes_up() {
    in_namespace(|| async {
        let index = veth("tun");
        ip("link set tun down");
        let netlink = Netlink::open().unwrap();
        assert!(!netlink.link(index).await.unwrap().unwrap().device.up);
        netlink.set_up(index, Mtu::new(1420).unwrap()).await.unwrap();
        let expected = Link { name: "tun".into(), device: Device { index, up: true }, mtu: 1420 };
        assert_eq!(netlink.link(index).await.unwrap(), Some(expected));
        assert_eq!(netlink.link(4711).await.unwrap(), None);
        assert_eq!(netlink.set_up(4711, Mtu::DEFAULT).await, Err(Error::NoDevice));
    });
}

#[test]
fn an_ipv6_address_is_usable_at_once() {
    in_namespace(|| async {
        let index = veth("tun");
        let netlink = Netlink::open().unwrap();
        for address in ["10.1.0.1/24", "169.254.7.1/30", "fd00::1/64"] {
            netlink.add_address(index, net(address)).await.unwrap();
            assert_eq!(netlink.add_address(index, net(address)).await, Err(Error::Exists));
        }
        let found = netlink.addresses(index).await.unwrap();
        assert!(["10.1.0.1/24", "169.254.7.1/30", "fd00::1/64"].iter().all(|a| found.contains(&net(a))), "{found:?}");
        let host = netlink.host_addresses().await.unwrap();
        let v6: Vec<_> = host.iter().filter(|a| a.address.is_ipv6() && a.index == index).collect();
        assert_eq!(v6.len(), 1, "not tentative, and no link-local one: {host:?}");
        assert!(host.iter().any(|a| a.loopback && a.address.to_string() == "127.0.0.1"), "{host:?}");
    });
}

#[test]
fn routes_come_back_as_they_were_added_and_those_of_others_do_not() {
    in_namespace(|| async {
        let index = veth("tun");
        let netlink = Netlink::open().unwrap();
        netlink.add_address(index, net("10.1.0.1/24")).await.unwrap();
        netlink.add_address(index, net("fd00::1/64")).await.unwrap();
        ip("route add 10.50.0.0/16 dev tun");
        ip("-6 route add fd50::/32 dev tun");
        let unreachable = |prefix: &str, table| Route {
            table,
            prefix: net(prefix),
            metric: 0xFFFF_FFFF,
            target: Target::Unreachable,
        };
        let routes = BTreeSet::from([
            device_route("10.20.0.0/16", index, Some("10.1.0.1")),
            device_route("10.21.0.0/16", index, None),
            device_route("0.0.0.0/0", index, None),
            device_route("fd20::/32", index, Some("fd00::1")),
            device_route("::/0", index, None),
            unreachable("10.20.0.0/16", MAIN),
            unreachable("10.20.0.0/16", 0x4C12_3410),
            unreachable("fd20::/32", MAIN),
            unreachable("::/0", 0x4C12_3400),
        ]);
        for route in &routes {
            netlink.add_route(route).await.unwrap_or_else(|error| panic!("{route}: {error}"));
            assert_eq!(netlink.add_route(route).await, Err(Error::Exists), "{route}");
        }
        assert_eq!(netlink.routes().await.unwrap(), routes);
        let shown = ip("route show 10.20.0.0/16");
        assert!(shown.contains("dev tun proto 76 scope link src 10.1.0.1 metric 50"), "{shown}");
        for route in &routes {
            netlink.delete_route(route).await.unwrap_or_else(|error| panic!("{route}: {error}"));
            assert_eq!(netlink.delete_route(route).await, Err(Error::Missing), "{route}");
        }
        assert_eq!(netlink.routes().await.unwrap(), BTreeSet::new());
        assert!(ip("route show").contains("10.50.0.0/16"));
    });
}

#[test]
fn a_replaced_route_has_the_new_source() {
    in_namespace(|| async {
        let index = veth("tun");
        let netlink = Netlink::open().unwrap();
        netlink.add_address(index, net("10.1.0.1/24")).await.unwrap();
        netlink.add_address(index, net("fd00::1/64")).await.unwrap();
        for (prefix, source) in [("10.20.0.0/16", "10.1.0.1"), ("fd20::/32", "fd00::1")] {
            netlink.add_route(&device_route(prefix, index, None)).await.unwrap();
            let with_source = device_route(prefix, index, Some(source));
            netlink.replace_route(&with_source).await.unwrap();
            assert!(netlink.routes().await.unwrap().contains(&with_source));
        }
        assert_eq!(netlink.routes().await.unwrap().len(), 2);
    });
}

#[test]
fn rules_come_back_as_they_were_added_and_those_of_others_do_not() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        ip("rule add priority 77 lookup 123");
        ip("rule add priority 78 protocol 76 lookup 123");
        let rule = |family, priority, lookup| Rule { priority, family, mark: 0x4C53_0001, lookup };
        let rules = BTreeSet::from([
            rule(Family::V4, 5200, Lookup::MainBeyond(0)),
            rule(Family::V4, 5201, Lookup::Table(0x4C12_3400)),
            rule(Family::V6, 5200, Lookup::MainBeyond(48)),
            rule(Family::V6, 5201, Lookup::Table(0x4C12_3430)),
            rule(Family::V4, 5198, Lookup::Names(Transport::Tcp)),
            rule(Family::V6, 5199, Lookup::Names(Transport::Udp)),
        ]);
        for rule in &rules {
            netlink.add_rule(rule).await.unwrap();
            assert_eq!(netlink.add_rule(rule).await, Err(Error::Exists));
        }
        assert_eq!(netlink.rules().await.unwrap(), rules);
        let shown = ip("rule show");
        assert!(shown.contains("not from all fwmark 0x4c530001 lookup main suppress_prefixlength 0"), "{shown}");
        assert!(shown.contains("from all fwmark 0x4c530001/0 iif lo ipproto tcp dport 53 lookup main"), "{shown}");
        for rule in &rules {
            netlink.delete_rule(rule).await.unwrap();
            assert_eq!(netlink.delete_rule(rule).await, Err(Error::Missing));
        }
        assert_eq!(netlink.rules().await.unwrap(), BTreeSet::new());
    });
}

#[test]
fn a_route_by_one_interface_is_none_by_another() {
    in_namespace(|| async {
        let (one, two) = (veth("one"), veth("two"));
        ip("addr add 198.18.1.1/24 dev one");
        ip("addr add 198.18.2.1/24 dev two");
        ip("addr add 2001:db8:1::1/64 dev one nodad");
        ip("addr add 2001:db8:2::1/64 dev two nodad");
        let netlink = Netlink::open().unwrap();
        let near = [(one, ["198.18.1.1", "2001:db8:1::1"]), (two, ["198.18.2.1", "2001:db8:2::1"])];
        for (name, number, default) in [("one", 1, one), ("two", 2, two)] {
            ip(&format!("route replace default via 198.18.{number}.254 dev {name}"));
            ip(&format!("-6 route replace default via 2001:db8:{number}::fe dev {name}"));
            for far in ["203.0.113.5", "2001:db8:9::5"] {
                assert_eq!(netlink.chosen(far.parse().unwrap(), None, 0).await, Ok(Some(default)), "{far}");
            }
            for (index, addresses) in near {
                for (local, far) in addresses.into_iter().zip(["203.0.113.5", "2001:db8:9::5"]) {
                    let reached = netlink.reaches(far.parse().unwrap(), local.parse().unwrap(), index, 0).await;
                    assert_eq!(reached, Ok(index == default), "{far} from {local}");
                }
            }
        }
        // One address has a rule of its own.
        ip("route add default via 198.18.1.254 dev one table 9");
        ip("rule add from 198.18.1.1 lookup 9");
        let far = "203.0.113.5".parse().unwrap();
        for (local, interface) in [(None, two), (Some("198.18.1.1"), one), (Some("198.18.2.1"), two)] {
            let local = local.map(|local| local.parse().unwrap());
            assert_eq!(netlink.chosen(far, local, 0).await, Ok(Some(interface)), "{local:?}");
        }
        let neighbour = netlink.reaches("198.18.1.9".parse().unwrap(), "198.18.1.1".parse().unwrap(), one, 0).await;
        assert_eq!(neighbour, Ok(true));
    });
}

#[test]
fn a_host_without_ipv6_has_no_ipv6_routes_and_says_so_when_asked_for_one() {
    in_namespace(|| async {
        let index = veth("tun");
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let netlink = Netlink::open().unwrap();
        assert_eq!(netlink.routes().await.unwrap(), BTreeSet::new());
        assert_eq!(netlink.rules().await.unwrap(), BTreeSet::new());
        assert_eq!(netlink.add_address(index, net("fd00::1/64")).await, Err(Error::FamilyOff));
    });
}

#[test]
fn the_monitor_tells_once_of_a_burst_and_stays_silent_otherwise() {
    in_namespace(|| async {
        let index = veth("tun");
        let netlink = Netlink::open().unwrap();
        let mut monitor = Monitor::open().unwrap();
        let quiet = Duration::from_millis(400);
        // IPv6 still makes itself comfortable on the fresh interface.
        while timeout(Duration::from_secs(3), monitor.changed()).await.is_ok() {}
        for number in 0..20 {
            netlink.add_route(&device_route(&format!("10.{number}.0.0/16"), index, None)).await.unwrap();
        }
        ip("route add 10.200.0.0/16 dev tun");
        assert!(timeout(quiet, monitor.changed()).await.is_err(), "additions do not matter");
        for number in 0..20 {
            ip(&format!("route del 10.{number}.0.0/16"));
        }
        timeout(Duration::from_secs(1), monitor.changed()).await.expect("deletions do").unwrap();
        while timeout(quiet, monitor.changed()).await.is_ok() {}
        ip("addr add 10.77.0.1/24 dev tun");
        timeout(Duration::from_secs(1), monitor.changed()).await.expect("an address does").unwrap();
    });
}
