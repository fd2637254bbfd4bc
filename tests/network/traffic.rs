//! Whole traffic through the tunnel, whatever the families, the MTU and the sizes.

use std::net::{IpAddr, SocketAddr};

use crate::harness::daemon::Daemon;
use crate::harness::file::File;
use crate::harness::net::Links;
use crate::harness::packets::noise;
use crate::harness::status::Traffic;
use crate::harness::traffic::{learn_path_mtu, pings_pass, tcp_transfer, udp_echo};
use crate::harness::*;

/// Which family the outer datagrams have.
#[derive(Clone, Copy)]
enum Outer {
    V4,
    V6,
}

impl Outer {
    fn endpoint(self, site: &Site) -> SocketAddr {
        match self {
            Self::V4 => site.endpoint4(),
            Self::V6 => site.endpoint6(),
        }
    }
}

/// Both ends' files for this MTU over this family.
fn files(net: &Net, outer: Outer, mtu: u16) -> (File, File) {
    let file = |here, far| {
        let endpoint = outer.endpoint(net.site(far));
        net.file(here, &[far]).endpoint(Some(endpoint)).with(&format!("mtu = {mtu}"))
    };
    (file(A, B), file(B, A))
}

/// Both inner families over one outer family at one MTU: quick pings, TCP both ways, UDP, exact counters.
fn everything_passes(outer: Outer, mtu: u16) {
    let (uplink_mtu, lan_mtu) = (mtu + 80, 1500.max(mtu + 80));
    let Some(net) = Net::new(2, Links { uplink_mtu, lan_mtu, ..Links::default() }) else { return };
    let (file_a, file_b) = files(&net, outer, mtu);
    let (a, b) = net.link(&file_a, &file_b);
    let (here, far) = (net.site(A), net.site(B));
    for (from, to) in [(here.lan4(), far.lan4()), (here.lan6(), far.lan6())] {
        learn_path_mtu(&here.lan, to, lan_mtu);
        learn_path_mtu(&far.lan, from, lan_mtu);
        pings_pass(&here.lan, to, &["-i", "0.002", "-c", "1000"]);
        pings_pass(&far.lan, from, &["-i", "0.002", "-c", "100", "-s", "1200"]);
        let content = noise(u64::from(mtu), 4 << 20);
        tcp_transfer(&here.lan, &far.lan, to, &content, seconds(20));
        tcp_transfer(&far.lan, &here.lan, from, &content, seconds(20));
        udp_echo(&here.lan, &far.lan, to, (0..200).map(|n| n * 7));
        counters_are_exact(&net, &a, &b, to);
    }
    assert_eq!((a.log().matches("ERROR").count(), b.log().matches("ERROR").count()), (0, 0));
}

/// What one end counts as sent the other counts as received, and a known exchange moves both by its exact size.
fn counters_are_exact(net: &Net, a: &Daemon<'_>, b: &Daemon<'_>, to: IpAddr) {
    let counts = || {
        let (a, b) = (a.state(), b.state());
        [(a.sent(0), b.received(0)), (b.sent(0), a.received(0))]
    };
    let settled = || Some(counts()).filter(|both| both.iter().all(|(sent, received)| sent == received));
    let before = eventually(seconds(5), "both ends count the same", settled);
    udp_echo(net.lan(A), net.lan(B), to, [1000; 50]);
    let header = if to.is_ipv4() { 28 } else { 48 };
    let more = |t: Traffic| Traffic { packets: t.packets + 50, bytes: t.bytes + 50 * (1000 + header) };
    let expected = before.map(|(sent, received)| (more(sent), more(received)));
    assert_eq!(counts(), expected);
}

#[test]
fn everything_passes_over_ipv4_at_1280() {
    everything_passes(Outer::V4, 1280);
}

#[test]
fn everything_passes_over_ipv4_at_1420() {
    everything_passes(Outer::V4, 1420);
}

#[test]
fn everything_passes_over_ipv4_at_8920() {
    everything_passes(Outer::V4, 8920);
}

#[test]
fn everything_passes_over_ipv6_at_1280() {
    everything_passes(Outer::V6, 1280);
}

#[test]
fn everything_passes_over_ipv6_at_1420() {
    everything_passes(Outer::V6, 1420);
}

#[test]
fn everything_passes_over_ipv6_at_8920() {
    everything_passes(Outer::V6, 8920);
}

/// 200 sizes of ping payload from 0 to 65,000, the edges of MTU 1420 and of fragments among them.
fn ping_sizes() -> Vec<usize> {
    let edges =
        [0, 1, 15, 16, 17, 1371, 1372, 1373, 1391, 1392, 1393, 1419, 1420, 1421, 1471, 1472, 1473, 2800, 65_000];
    let spread = (0..200 - edges.len()).map(|n| n * 359);
    edges.into_iter().chain(spread).collect()
}

fn every_size_passes(offload: bool) {
    let Some(net) = Net::two_sites() else { return };
    let line = format!("offload = {offload}");
    let (_a, _b) = net.link(&net.file(A, &[B]).with(&line), &net.file(B, &[A]).with(&line));
    let (here, far) = (net.site(A), net.site(B));
    for to in [far.lan4(), far.lan6()] {
        let from = if to.is_ipv4() { here.lan4() } else { here.lan6() };
        learn_path_mtu(&here.lan, to, 1500);
        learn_path_mtu(&far.lan, from, 1500);
        for size in ping_sizes() {
            pings_pass(&here.lan, to, &["-c", "1", "-W", "5", "-s", &size.to_string()]);
        }
        udp_echo(
            &here.lan,
            &far.lan,
            to,
            [64, 100, 1000, 1392, 1393, 1500, 4000, 9000, 20_000, 40_000, 65_000, 65_507],
        );
        tcp_transfer(&here.lan, &far.lan, to, &noise(3, 4 << 20), seconds(20));
    }
}

#[test]
fn pings_and_datagrams_of_every_size_pass() {
    every_size_passes(true);
}

#[test]
fn everything_works_without_offloads() {
    every_size_passes(false);
}
