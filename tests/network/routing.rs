//! Inside addresses, preferred sources, and endpoints inside the routed networks.

use std::net::IpAddr;

use crate::harness::daemon::LINKSPAN;
use crate::harness::file::File;
use crate::harness::packets::noise;
use crate::harness::traffic::{pings_pass, tcp_transfer};
use crate::harness::*;

const INSIDE_A: &str = "169.254.12.1";
const INSIDE_B: &str = "169.254.12.2";

/// No LAN host knows a way to 169.254.0.0/16.
#[test]
fn the_gateway_itself_reaches_far_lan_hosts() {
    let Some(net) = Net::two_sites() else { return };
    for site in &net.sites {
        site.lan.ip("route add unreachable 169.254.0.0/16\n");
    }
    let (_a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let (a, b) = (net.site(A), net.site(B));
    pings_pass(&a.gateway, b.lan4(), &["-c", "1", "-W", "2"]);
    pings_pass(&b.gateway, a.lan4(), &["-c", "1", "-W", "2"]);
    pings_pass(&a.gateway, b.lan6(), &["-c", "1", "-W", "2"]);
    tcp_transfer(&a.gateway, &b.lan, b.lan4(), &noise(5, 1 << 20), seconds(10));
}

#[test]
fn the_far_inside_address_answers() {
    let Some(net) = Net::two_sites() else { return };
    let (_a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    pings_pass(net.gateway(A), address(INSIDE_B), &["-c", "1", "-W", "2"]);
    pings_pass(net.gateway(B), address(INSIDE_A), &["-c", "1", "-W", "2"]);
}

#[test]
fn an_inside_network_of_ipv6_works_too() {
    let Some(net) = Net::two_sites() else { return };
    let inside = |mut file: File, end| {
        file.connections[0].inside = Some(("fd77::4/126".into(), end));
        file
    };
    let (_a, _b) = net.link(&inside(net.file(A, &[B]), "aws"), &inside(net.file(B, &[A]), "customer"));
    pings_pass(net.gateway(A), "fd77::6".parse().unwrap(), &["-c", "1", "-W", "2"]);
    pings_pass(net.gateway(A), net.site(B).lan6(), &["-c", "1", "-W", "2"]);
}

/// The whole world, or the very subnet of the endpoint, goes through the tunnel; its own datagrams do not.
fn the_endpoint_lies_inside(networks: &[&str], endpoint: impl Fn(&Site) -> std::net::SocketAddr) {
    let Some(net) = Net::two_sites() else { return };
    let before = net.gateway(A).footprint();
    let mut file = net.file(A, &[B]).endpoint(Some(endpoint(net.site(B))));
    file.connections[0].networks = networks.iter().map(|n| (*n).to_owned()).collect();
    let (mut a, _b) = net.link(&file, &net.file(B, &[A]).endpoint(None::<String>));
    let (here, far) = (net.site(A), net.site(B));
    let to = if networks[0].contains(':') { far.lan6() } else { far.lan4() };
    pings_pass(&here.lan, to, &["-c", "5", "-i", "0.1", "-W", "2"]);
    let received = a.state().received(0);
    assert!(received.packets >= 5);
    assert_eq!(a.state().dropped("out_loop"), 0, "the mark and its rule keep them apart");
    a.stop();
    assert_eq!(net.gateway(A).footprint(), before);
}

#[test]
fn an_endpoint_inside_a_default_route_does_not_loop() {
    the_endpoint_lies_inside(&["0.0.0.0/0"], Site::endpoint4);
}

#[test]
fn an_endpoint_inside_a_routed_subnet_does_not_loop() {
    the_endpoint_lies_inside(&["10.2.0.0/16", "198.18.2.0/24"], Site::endpoint4);
}

#[test]
fn an_endpoint_inside_an_ipv6_default_route_does_not_loop() {
    the_endpoint_lies_inside(&["::/0"], Site::endpoint6);
}

#[test]
fn what_a_crash_leaves_is_removed_by_forget() {
    let Some(net) = Net::two_sites() else { return };
    let before = net.gateway(A).footprint();
    let mut file = net.file(A, &[B]);
    file.connections[0].networks = ["0.0.0.0/0", "::/0", "10.2.0.0/16"].map(str::to_owned).to_vec();
    let (mut a, _b) = net.link(&file, &net.file(B, &[A]).endpoint(None::<String>));
    a.kill();
    let left = net.gateway(A).footprint();
    assert!(left.contains("unreachable 10.2.0.0/16") && left.contains("fwmark"), "{left}");
    net.gateway(A).ask(LINKSPAN, &["forget", &file.name]);
    assert_eq!(net.gateway(A).footprint(), before);
}

/// B calls from inside what is routed to it, and A learns that only from the call.
#[test]
fn a_caller_inside_a_routed_subnet_is_answered() {
    let Some(net) = Net::two_sites() else { return };
    let before = net.gateway(A).footprint();
    let mut file = net.file(A, &[B]).endpoint(None::<String>);
    file.connections[0].networks = vec!["10.2.0.0/16".into(), "198.18.2.0/24".into()];
    let mut a = net.start(A, &file);
    a.wait("it answers", |_| true);
    let _b = net.start(B, &net.file(B, &[A]));
    // The answer to its first call is lost; it calls again after 5 s.
    a.wait_up_within(seconds(20));
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "5", "-i", "0.1", "-W", "2"]);
    assert_eq!(a.state().dropped("out_loop"), 0);
    a.stop();
    assert_eq!(net.gateway(A).footprint(), before);
}

/// ```text
///   A ---- B, A ---- C: one interface at A, two connections
/// ```
#[test]
fn one_interface_serves_several_sites() {
    let Some(net) = Net::new(3, net::Links::default()) else { return };
    let a = net.start(A, &net.file(A, &[B, C]));
    let b = net.start(B, &net.file(B, &[A]));
    let c = net.start(C, &net.file(C, &[A]));
    for daemon in [&a, &b, &c] {
        daemon.wait_up();
    }
    for site in [B, C] {
        pings_pass(net.lan(A), net.site(site).lan4(), &["-c", "1", "-W", "2"]);
        pings_pass(net.lan(A), net.site(site).lan6(), &["-c", "1", "-W", "2"]);
    }
    assert_eq!((a.state().sent(0).packets, a.state().sent(1).packets), (2, 2));
}
