//! With WireGuards that others wrote, in userspace: either side initiates, with and without a preshared key, over both
//! families, either end moves, and keys are renewed under traffic. `linkspan run` meets all of them, `linkspan-wg` some.

use std::net::SocketAddr;

use linkspan::tunnel::key::PresharedKey;

use crate::harness::daemon::{Daemon, write_secret};
use crate::harness::file::File;
use crate::harness::paced::Paced;
use crate::harness::packets::noise;
use crate::harness::stock::{Peering, Program, Stock, installed};
use crate::harness::stream::{PACED, Stream};
use crate::harness::traffic::{none_is_lost, pings_pass, reached, tcp_transfer, udp_echo};
use crate::harness::*;

const WHOLE: usize = 10 << 20;

/// A's file for a stock peer at B, which knows no inside addresses.
fn file(net: &Net, endpoint: Option<SocketAddr>, preshared_key: Option<&str>) -> File {
    let mut file = net.file(A, &[B]).endpoint(endpoint);
    file.connections[0].inside = None;
    if let Some(key) = preshared_key {
        let path = net.directory("preshared").join("key");
        write_secret(&path, &format!("{key}\n"), 0o600);
        file.connections[0].tunnel.push(format!("preshared_key_file = {path:?}"));
    }
    file
}

/// Datagrams of many sizes and 10 MB both ways, over both families; the 10 MB over the first of them.
fn everything_passes(net: &Net, ipv4: bool) {
    let (a, b) = (net.site(A), net.site(B));
    for (here, far) in [(a.lan4(), b.lan4()), (a.lan6(), b.lan6())] {
        udp_echo(&a.lan, &b.lan, far, (0..1372).step_by(49));
        udp_echo(&b.lan, &a.lan, here, [1, 1000, 1372]);
    }
    let (here, far) = if ipv4 { (a.lan4(), b.lan4()) } else { (a.lan6(), b.lan6()) };
    let content = noise(8, WHOLE);
    tcp_transfer(&a.lan, &b.lan, far, &content, seconds(30));
    tcp_transfer(&b.lan, &a.lan, here, &content, seconds(30));
}

/// A's address changes, and B follows its datagrams.
fn we_move(net: &Net, b: &Stock<'_>) {
    let (here, far) = (net.site(A), net.site(B));
    here.gateway.ip(
        "address del 198.18.1.1/24 dev wan\naddress add 198.18.1.99/24 dev wan\nroute add default via 198.18.1.254\n",
    );
    pings_pass(&here.lan, far.lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    eventually(seconds(5), "B follows A", || (b.endpoint() == "198.18.1.99:51820").then_some(()));
    pings_pass(&far.lan, here.lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
}

/// B's port changes, and A follows its datagrams. `endpoint` says where A's go.
fn they_move(net: &Net, endpoint: impl Fn() -> String, b: &Stock<'_>) {
    let (here, far) = (net.site(A), net.site(B));
    let finished = b.wg(&["set", &b.name, "listen-port", "51899"]);
    assert!(finished.status.success(), "{finished:?}");
    // A new socket takes some of them a moment.
    eventually(seconds(10), "A follows B", || {
        let _ = traffic::ping(&far.lan, here.lan4(), &["-c", "1", "-W", "1"]);
        (endpoint() == "198.18.2.1:51899").then_some(())
    });
    pings_pass(&far.lan, here.lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    pings_pass(&here.lan, far.lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
}

/// We initiate, over IPv4, with a preshared key; then the ends move.
fn we_initiate(program: Program) {
    if !installed(&program.path()) {
        return;
    }
    let Some(net) = Net::two_sites() else { return };
    let key = PresharedKey::generate().unwrap().reveal();
    let b = net.stock(program, B, A, &Peering { preshared_key: Some(&key), ..Peering::default() });
    let a = net.start(A, &file(&net, Some(net.site(B).endpoint4()), Some(&key)));
    a.wait_up();
    everything_passes(&net, true);
    we_move(&net, &b);
    // gotatun 0.10.2 now and then stops reading its interface when its port changes ("channel closed").
    if !matches!(program, Program::Gotatun) {
        they_move(&net, || endpoint_of(&a), &b);
    }
}

fn endpoint_of(a: &Daemon<'_>) -> String {
    a.status().map(|status| status.endpoint(0).to_owned()).unwrap_or_default()
}

/// The same with `linkspan-wg`, which waits for something to send.
fn linkspan_wg_initiates(program: Program) {
    if !installed(&program.path()) {
        return;
    }
    let Some(net) = Net::two_sites() else { return };
    let key = PresharedKey::generate().unwrap().reveal();
    let b = net.stock(program, B, A, &Peering { preshared_key: Some(&key), ..Peering::default() });
    let endpoint = Some(net.site(B).endpoint4());
    let a = net.stock(Program::LinkspanWg, A, B, &Peering { endpoint, preshared_key: Some(&key), keepalive: None });
    // The first packet waits for a session no longer than a second.
    reached(net.lan(A), net.site(B).lan4(), seconds(20));
    everything_passes(&net, true);
    we_move(&net, &b);
    they_move(&net, || a.endpoint(), &b);
}

/// They initiate to `linkspan-wg`, over that family, with a preshared key or not.
fn they_initiate_to_linkspan_wg(program: Program, over: fn(&Site) -> SocketAddr, preshared: bool) {
    if !installed(&program.path()) {
        return;
    }
    let Some(net) = Net::two_sites() else { return };
    let key = preshared.then(|| PresharedKey::generate().unwrap().reveal());
    let preshared_key = key.as_deref().map(String::as_str);
    let a = net.stock(Program::LinkspanWg, A, B, &Peering { preshared_key, ..Peering::default() });
    let peering = Peering { endpoint: Some(over(net.site(A))), keepalive: Some(5), preshared_key };
    let _b = net.stock(program, B, A, &peering);
    let there = || (a.endpoint() == over(net.site(B)).to_string()).then_some(());
    eventually(seconds(10), "A hears B", there);
    everything_passes(&net, false);
}

/// They initiate, over that family, with a preshared key or not.
fn they_initiate(program: Program, over: fn(&Site) -> SocketAddr, preshared: bool) {
    if !installed(&program.path()) {
        return;
    }
    let Some(net) = Net::two_sites() else { return };
    let key = preshared.then(|| PresharedKey::generate().unwrap().reveal());
    let preshared_key = key.as_deref().map(String::as_str);
    let a = net.start(A, &file(&net, None, preshared_key));
    a.wait("it answers", |_| true);
    let peering = Peering { endpoint: Some(over(net.site(A))), keepalive: Some(5), preshared_key };
    let _b = net.stock(program, B, A, &peering);
    a.wait_up();
    assert_eq!(a.state().endpoint(0), over(net.site(B)).to_string());
    everything_passes(&net, false);
}

/// 140 s of pings, and of TCP and UDP both ways, slow enough for anybody's buffers: the rekey at 120 s is in it. Nothing may
/// be lost, and every byte of TCP must be right.
fn a_rekey_loses_nothing(program: Program) {
    if !installed(&program.path()) {
        return;
    }
    let Some(net) = Net::two_sites() else { return };
    let _b = net.stock(program, B, A, &Peering { endpoint: Some(net.site(A).endpoint4()), ..Peering::default() });
    let a = net.start(A, &file(&net, Some(net.site(B).endpoint4()), None));
    a.wait_up();
    let to = net.site(B).lan4().to_string();
    let pinging = net.lan(A).command("ping", &["-n", "-i", "0.05", "-c", "2800", "-w", "200", &to]);
    let pings = std::thread::spawn(move || host::finish(pinging, seconds(300)));
    let ways = [(A, B), (B, A)].map(|(from, to)| (net.lan(from), net.lan(to), net.site(to).lan4()));
    let datagrams = ways.map(|(from, to, address)| Paced::start(from, to, address, 1, 1000));
    let connections = ways.map(|(from, to, address)| Stream::start(from, to, address, PACED / 4));
    none_is_lost(&pings.join().unwrap(), 2800, "140 s");
    connections.into_iter().for_each(Stream::finish);
    for outcome in datagrams.map(Paced::finish) {
        assert!(outcome.sent > 100_000 && outcome.received == outcome.sent, "{outcome:?}");
    }
}

/// ```text
///   A, linkspan run ---- B, wireguard-go;  C, boringtun-cli;  D, gotatun
///   E, linkspan-wg ----- F, wireguard-go
/// ```
/// Pings for so long that every session is renewed once, and none is lost.
#[test]
fn all_of_them_renew_their_keys_while_pings_pass() {
    const RENEWED: u32 = 130;
    const RESPONSE: u8 = 2;
    let programs = [Program::WireguardGo, Program::Boringtun, Program::Gotatun];
    if !programs.iter().all(|program| installed(&program.path())) {
        return;
    }
    let Some(net) = Net::new(6, net::Links::default()) else { return };
    let [d, e, f] = [3, 4, 5];
    let knows = |site: usize| Peering { endpoint: Some(net.site(site).endpoint4()), ..Peering::default() };
    let _far: Vec<_> = [B, C, d].iter().zip(programs).map(|(far, it)| net.stock(it, *far, A, &knows(A))).collect();
    let mut file = net.file(A, &[B, C, d]);
    file.connections.iter_mut().for_each(|connection| connection.inside = None);
    let a = net.start(A, &file);
    let _f = net.stock(Program::WireguardGo, f, e, &Peering::default());
    let _e = net.stock(Program::LinkspanWg, e, f, &knows(f));
    a.wait_up();
    reached(net.lan(e), net.site(f).lan4(), seconds(20));
    let pairs = [(A, B), (A, C), (A, d), (e, f)];
    let (count, last) = ((RENEWED * 10).to_string(), (RENEWED + 40).to_string());
    let all = pairs.map(|(from, to)| {
        let to = net.site(to).lan4().to_string();
        let command = net.lan(from).command("ping", &["-n", "-i", "0.1", "-c", &count, "-w", &last, &to]);
        std::thread::spawn(move || host::finish(command, seconds(u64::from(RENEWED) + 60)))
    });
    // Long after the first handshakes, and before the next.
    std::thread::sleep(seconds(u64::from(RENEWED) / 2));
    let renewals = pairs.map(|(here, _)| Capture::start(net.gateway(here), "wan"));
    for (pings, pair) in all.into_iter().zip(pairs) {
        none_is_lost(&pings.join().unwrap(), RENEWED * 10, &format!("{pair:?}"));
    }
    for (heard, pair) in renewals.into_iter().zip(pairs) {
        let (here, far) = (net.site(pair.0).endpoint4(), net.site(pair.1).endpoint4());
        let datagrams = heard.stop();
        let between = datagrams.iter().filter_map(capture::Frame::udp).filter(|udp| [udp.from, udp.to].contains(&far));
        let responses = between.filter(|udp| [udp.from, udp.to].contains(&here) && udp.payload[0] == RESPONSE);
        assert!(responses.count() > 0, "{pair:?} have not renewed their keys");
    }
}

#[test]
fn wireguard_go_and_linkspan_wg_meet_when_linkspan_wg_initiates() {
    linkspan_wg_initiates(Program::WireguardGo);
}

#[test]
fn wireguard_go_and_linkspan_wg_meet_when_wireguard_go_initiates() {
    they_initiate_to_linkspan_wg(Program::WireguardGo, Site::endpoint4, true);
}

#[test]
fn boringtun_cli_and_linkspan_wg_meet_when_linkspan_wg_initiates() {
    linkspan_wg_initiates(Program::Boringtun);
}

#[test]
fn boringtun_cli_and_linkspan_wg_meet_when_boringtun_cli_initiates() {
    they_initiate_to_linkspan_wg(Program::Boringtun, Site::endpoint6, false);
}

#[test]
fn gotatun_and_linkspan_wg_meet_when_gotatun_initiates() {
    they_initiate_to_linkspan_wg(Program::Gotatun, Site::endpoint6, true);
}

#[test]
fn wireguard_go_answers() {
    we_initiate(Program::WireguardGo);
}

#[test]
fn wireguard_go_initiates() {
    they_initiate(Program::WireguardGo, Site::endpoint6, true);
}

#[test]
#[ignore = "long: LINKSPAN_LONG=1 tests/run"]
fn wireguard_go_renews_its_keys_under_traffic() {
    a_rekey_loses_nothing(Program::WireguardGo);
}

#[test]
fn boringtun_cli_answers() {
    we_initiate(Program::Boringtun);
}

#[test]
fn boringtun_cli_initiates() {
    they_initiate(Program::Boringtun, Site::endpoint4, true);
}

#[test]
#[ignore = "long: LINKSPAN_LONG=1 tests/run"]
fn boringtun_cli_renews_its_keys_under_traffic() {
    a_rekey_loses_nothing(Program::Boringtun);
}

#[test]
fn gotatun_answers() {
    we_initiate(Program::Gotatun);
}

#[test]
fn gotatun_initiates() {
    they_initiate(Program::Gotatun, Site::endpoint6, false);
}

#[test]
#[ignore = "long: LINKSPAN_LONG=1 tests/run"]
fn gotatun_renews_its_keys_under_traffic() {
    a_rekey_loses_nothing(Program::Gotatun);
}
