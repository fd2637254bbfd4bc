//! The harness itself, without a daemon.

use std::io::{Read as _, Write as _};

use crate::harness::host::{at, sweep};
use crate::harness::packets::{MARKER, noise, udp};
use crate::harness::traffic::{Echo, caller, ping, pings_pass, tcp_transfer, udp_echo};
use crate::harness::*;

/// Lets the LANs reach each other through the router, as without any tunnel.
fn route_in_clear(net: &Net) {
    for site in &net.sites {
        let n = site.number;
        let route = |to: &str, via: &str| format!("route add {to} via {via}\n");
        net.internet.ip(&route(&format!("10.{n}.0.0/16"), &format!("198.18.{n}.1")));
        net.internet.ip(&route(&format!("fd00:{n}::/48"), &format!("2001:db8:{n}::1")));
    }
}

#[test]
fn the_networks_carry_pings_tcp_and_udp_and_a_capture_sees_them() {
    let Some(net) = Net::two_sites() else { return };
    route_in_clear(&net);
    let (a, b) = (net.site(A), net.site(B));
    let capture = Capture::start(&a.gateway, "wan");
    for address in [b.lan4(), b.lan6()] {
        pings_pass(&a.lan, address, &["-i", "0.002", "-c", "100"]);
        tcp_transfer(&a.lan, &b.lan, address, &noise(1, 1 << 20), seconds(5));
        udp_echo(&a.lan, &b.lan, address, [0, 64, 1400, 9000, 65_000]);
    }
    let echo = Echo::start(&b.lan, b.lan4());
    caller(&a.lan, &echo).send(MARKER).unwrap();
    capture.wait("the marker passes in clear", |frame| frame.contains(MARKER).then_some(()));
    assert!(capture.stop().iter().any(|frame| frame.syn_mss() == Some(1460)));
}

#[test]
fn the_router_loses_what_it_is_told_to() {
    let Some(net) = Net::two_sites() else { return };
    let far = net.site(B).endpoint4().ip();
    let from = net.gateway(A);
    net.lose(20);
    // Until 300 are answered. One of each two legs is lost with 0.36: 469 sent, within five standard deviations.
    let (pings, _) = ping(from, far, &["-f", "-c", "300", "-w", "20"]);
    assert!(pings.received >= 300 && (388..550).contains(&pings.sent), "{pings:?}");
    net.lose(100);
    assert_eq!(ping(from, far, &["-c", "1", "-w", "1"]).0.received, 0);
    net.lose(0);
    pings_pass(from, far, &["-c", "1"]);
}

#[test]
fn a_nat_hides_the_site_and_lets_nothing_in_unasked() {
    let Some(net) = Net::two_sites() else { return };
    net.nat(A, 30);
    let (a, b) = (net.site(A), net.site(B));
    let outside = b.gateway.udp("0.0.0.0:5000");
    let inside = a.gateway.udp("0.0.0.0:5000");
    outside.set_read_timeout(Some(seconds(1))).unwrap();
    inside.set_read_timeout(Some(seconds(1))).unwrap();
    let mut buffer = [0; 16];
    outside.send_to(b"unasked", at(a.endpoint4().ip(), 5000)).unwrap();
    assert!(inside.recv(&mut buffer).is_err());
    inside.send_to(b"hello", at(b.endpoint4().ip(), 5000)).unwrap();
    let (_, from) = outside.recv_from(&mut buffer).unwrap();
    assert_eq!(from.ip().to_string(), "198.18.2.254");
    outside.send_to(b"answer", from).unwrap();
    assert_eq!(inside.recv(&mut buffer).unwrap(), 6);
}

#[test]
fn a_packet_made_by_hand_arrives() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = (net.site(A), net.site(B));
    let listener = b.gateway.udp("[::]:7001");
    let heard = Capture::start(&a.gateway, "wan");
    pings_pass(&a.gateway, b.endpoint4().ip(), &["-c", "1"]);
    let ethernet = heard.wait("a ping's frame", |frame| frame.ethernet_to(b.endpoint4().ip()));
    let port = Port::open(&a.gateway, "wan");
    port.send(&[ethernet, udp(a.endpoint4().ip(), b.endpoint4().ip(), MARKER)].concat());
    let mut buffer = [0; 64];
    let (length, from) = listener.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.port()), (MARKER, 7000));
}

#[test]
fn nothing_is_left_of_a_network() {
    if !root() {
        return;
    }
    let net = Net::two_sites().unwrap();
    let names: Vec<String> =
        net.sites.iter().flat_map(|s| [s.lan.name(), s.gateway.name()]).map(str::to_owned).collect();
    let directory = net.directory("x");
    net.gateway(A).etc_hosts("127.0.0.1 localhost\n");
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _net = net;
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panic.is_err());
    for name in names {
        assert!(!std::path::Path::new("/run/netns").join(&name).exists());
        assert!(!std::path::Path::new("/etc/netns").join(&name).exists());
    }
    assert!(!directory.exists());
}

#[test]
fn leftovers_of_killed_test_processes_are_swept() {
    if !root() {
        return;
    }
    // A process id that no longer lives.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let name = format!("lst{}-0-left", child.id());
    assert!(std::process::Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
    sweep();
    assert!(!std::path::Path::new("/run/netns").join(&name).exists());
}

#[test]
fn a_connection_in_a_namespace_stays_there() {
    let Some(net) = Net::two_sites() else { return };
    let b = net.site(B);
    let listener = net.internet.listen(at("198.18.2.254".parse().unwrap(), 0));
    let mut out = b.gateway.connect(listener.local_addr().unwrap(), seconds(2));
    let (mut stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), b.endpoint4().ip());
    out.write_all(b"x").unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
}

#[test]
fn two_stock_peers_talk_to_each_other() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = (net.site(A), net.site(B));
    let far = (b.endpoint4(), b.public());
    let mut answering = WgPeer::new(&b.gateway, b.endpoint4(), &b.key, (a.endpoint4(), a.public()));
    let packet = udp(a.lan4(), b.lan4(), MARKER);
    let expected = packet.clone();
    let heard = std::thread::spawn(move || answering.wait("the packet", |packet| packet == expected));
    let uplink = Capture::start(&net.internet, "u1");
    WgPeer::connect(&a.gateway, a.endpoint4(), &a.key, far).send(&packet);
    assert_eq!(heard.join().unwrap(), packet);
    assert!(uplink.stop().iter().all(|frame| !frame.contains(MARKER)));
}

#[test]
fn the_footprint_of_a_network_stands_still_and_shows_a_route() {
    let Some(net) = Net::two_sites() else { return };
    let gateway = net.gateway(A);
    let before = gateway.footprint();
    // What the kernel does by itself after a link comes up takes up to a second.
    std::thread::sleep(seconds(2));
    assert_eq!(gateway.footprint(), before);
    gateway.ip("route add unreachable 10.9.0.0/16 metric 9\n");
    assert_ne!(gateway.footprint(), before);
}

#[test]
fn the_files_of_the_harness_are_valid() {
    let Some(net) = Net::new(3, net::Links::default()) else { return };
    let far_away = net.file(B, &[A]).endpoint(Some(net.site(A).endpoint6())).with("mtu = 1280");
    for (site, file) in [(A, net.file(A, &[B, C])), (B, far_away), (C, net.file(C, &[A]).endpoint(None::<String>))] {
        let daemon = net.daemon(site, &file);
        let config = linkspan::config::load(daemon.file()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.connections.len(), file.connections.len());
    }
}
