//! Who initiates, from where, and how the ends find each other.

use crate::harness::daemon::Daemon;
use crate::harness::file::File;
use crate::harness::net::PORT;
use crate::harness::stock::{Peering, Program};
use crate::harness::traffic::{pings_pass, reached};
use crate::harness::*;

/// Pings both ways between the LANs.
fn both_lans_reach_each_other(net: &Net) {
    let (a, b) = (net.site(A), net.site(B));
    pings_pass(&a.lan, b.lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    pings_pass(&b.lan, a.lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    pings_pass(&a.lan, b.lan6(), &["-c", "2", "-i", "0.2", "-W", "2"]);
}

/// Only one end knows the other. The sites' keys are in order, so the roles decide who has the smaller one.
fn one_end_without_endpoint(knowing: usize, waiting: usize) {
    let Some(net) = Net::two_sites() else { return };
    let waits = net.start(waiting, &net.file(waiting, &[knowing]).endpoint(None::<String>));
    let knows = net.start(knowing, &net.file(knowing, &[waiting]));
    knows.wait_up();
    waits.wait_up();
    assert_eq!(waits.state().endpoint(0), net.site(knowing).endpoint4().to_string());
    both_lans_reach_each_other(&net);
}

#[test]
fn the_end_with_the_smaller_key_initiates_to_one_without_an_endpoint() {
    one_end_without_endpoint(A, B);
}

#[test]
fn the_end_with_the_larger_key_initiates_to_one_without_an_endpoint() {
    one_end_without_endpoint(B, A);
}

#[test]
fn behind_a_nat_with_a_short_memory_the_tunnel_stays_reachable_from_outside() {
    let Some(net) = Net::two_sites() else { return };
    // The rule is a keepalive of 10 s against a NAT of 30 s; 12 s show the same sooner.
    net.nat(A, 12);
    let b = net.start(B, &net.file(B, &[A]).endpoint(None::<String>));
    let a = net.start(A, &net.file(A, &[B]));
    a.wait_up();
    b.wait_up();
    assert!(b.state().endpoint(0).starts_with("198.18.2.254:"), "the NAT's address");
    // The only sleep of its kind: what is tested is the passing of time without traffic.
    std::thread::sleep(seconds(if long() { 65 } else { 15 }));
    pings_pass(net.lan(B), net.site(A).lan4(), &["-c", "1", "-W", "2"]);
}

/// How often it has called its far end.
fn initiations(daemon: &Daemon<'_>) -> u64 {
    let status: serde_json::Value = serde_json::from_str(&daemon.ask_status(&["--json"]).stdout).unwrap();
    status["connections"][0]["tunnels"][0]["handshakes"]["initiations"].as_u64().unwrap()
}

/// One end starts while the other is down for longer than the first tries take.
fn cold_start(first: usize, second: usize) {
    let Some(net) = Net::two_sites() else { return };
    let early = net.start(first, &net.file(first, &[second]));
    early.wait("it answers, and is down", |status| !status.is_up());
    let late = net.start(second, &net.file(second, &[first]));
    late.wait_up_within(seconds(10));
    early.wait_up_within(seconds(10));
    // The late one initiates at once; nothing waited for the early one's next try.
    assert!(initiations(&early) <= 1);
    both_lans_reach_each_other(&net);
}

#[test]
fn either_end_may_start_first() {
    cold_start(A, B);
    cold_start(B, A);
}

#[test]
fn an_end_that_was_told_to_wait_does_not_initiate_but_answers() {
    let Some(net) = Net::two_sites() else { return };
    let waiting = |mut file: File| {
        file.connections[0].connection.push("startup_action = \"add\"".into());
        file
    };
    let b = net.start(B, &waiting(net.file(B, &[A])));
    b.wait("it answers", |_| true);
    let uplink = Capture::start(net.gateway(B), "wan");
    let from_b = |frame: &capture::Frame| frame.udp().is_some_and(|udp| udp.from == net.site(B).endpoint4());
    // Longer than anything that is wanted waits before it initiates.
    std::thread::sleep(seconds(2));
    assert!(!uplink.stop().iter().any(from_b));
    let a = net.start(A, &net.file(A, &[B]));
    a.wait_up();
    b.wait_up();
    both_lans_reach_each_other(&net);
}

#[test]
fn after_a_restart_of_one_end_the_other_follows_at_once() {
    let Some(net) = Net::two_sites() else { return };
    let (mut a, b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    a.kill();
    a.start();
    // At the first try: there is another after 5 s.
    a.wait_up_within(seconds(4));
    // Until it has opened A's first packet, B goes on with the session of before.
    reached(net.lan(B), net.site(A).lan4(), seconds(4));
    assert!(b.state().is_up());
}

#[test]
fn an_endpoint_may_be_a_name_that_appears_late() {
    let Some(net) = Net::two_sites() else { return };
    net.gateway(A).etc_hosts("127.0.0.1 localhost\n");
    // A name server of the machine's own may keep the daemon waiting.
    net.gateway(A).etc_file("resolv.conf", "nameserver 203.0.113.53\noptions timeout:1 attempts:1\n");
    let b = net.start(B, &net.file(B, &[A]).endpoint(None::<String>));
    let name = format!("vpn-b.example.com:{PORT}");
    let a = net.start(A, &net.file(A, &[B]).endpoint(Some(name)));
    a.wait("it runs, and is down", |status| !status.is_up());
    net.gateway(A).etc_hosts(&format!("{} vpn-b.example.com\n", net.site(B).endpoint4().ip()));
    a.wait_up_within(seconds(30));
    b.wait_up();
    both_lans_reach_each_other(&net);
}

#[test]
fn a_preshared_key_works_and_a_wrong_one_does_not() {
    let Some(net) = Net::two_sites() else { return };
    let psk = linkspan::tunnel::key::PresharedKey::generate().unwrap();
    let other = linkspan::tunnel::key::PresharedKey::generate().unwrap();
    let with_psk = |mut file: File, name: &str, text: &str| {
        let path = net.directory("psk").join(name);
        daemon::write_secret(&path, &format!("{text}\n"), 0o600);
        file.connections[0].tunnel.push(format!("preshared_key_file = {path:?}"));
        file
    };
    let (file_a, file_b) =
        (with_psk(net.file(A, &[B]), "a", &psk.reveal()), with_psk(net.file(B, &[A]), "b", &psk.reveal()));
    let (mut a, _b) = net.link(&file_a, &file_b);
    both_lans_reach_each_other(&net);
    a.stop();
    let a: Daemon<'_> = net.start(A, &with_psk(net.file(A, &[B]), "a", &other.reveal()));
    a.wait("the handshake is refused", |status| status.dropped("in_handshake_refused") > 0);
    assert!(!a.state().is_up());
}

/// B's gateway has a second address on its uplink; A knows only that one.
fn answers_come_from(asked: &str, by_linkspan_wg: bool) {
    let Some(net) = Net::two_sites() else { return };
    let gateway = net.gateway(B);
    gateway.ip("address add 198.18.2.77/24 dev wan\naddress add 2001:db8:2::77/64 dev wan nodad\n");
    let uplink = Capture::start(net.gateway(A), "wan");
    let mut file = net.file(A, &[B]).endpoint(Some(asked));
    let (b, _stock) = if by_linkspan_wg {
        file.connections[0].inside = None;
        (None, Some(net.stock(Program::LinkspanWg, B, A, &Peering::default())))
    } else {
        (Some(net.start(B, &net.file(B, &[A]).endpoint(None::<String>))), None)
    };
    let a = net.start(A, &file);
    a.wait_up();
    b.iter().for_each(|b| drop(b.wait_up()));
    both_lans_reach_each_other(&net);
    let heard: Vec<_> = uplink.stop().iter().filter_map(capture::Frame::udp).collect();
    let (from_a, from_b): (Vec<_>, Vec<_>) = heard.iter().partition(|udp| udp.to.to_string() == asked);
    // Many a frame holds several datagrams.
    assert!(!from_a.is_empty() && !from_b.is_empty());
    let others: Vec<_> = from_b.into_iter().filter(|udp| udp.from.to_string() != asked).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    // Networks of their own: who is started again remembers where the far end was.
    for asked in ["198.18.2.77:51820", "[2001:db8:2::77]:51820"] {
        answers_come_from(asked, false);
        answers_come_from(asked, true);
    }
}

/// ```text
///   A ---- internet ==== B    B has two uplinks; its default route prefers the first, A knows the second
/// ```
#[test]
fn answers_leave_by_the_interface_that_was_asked() {
    let Some(net) = Net::two_sites() else { return };
    let gateway = net.gateway(B);
    gateway.ip(&format!(
        "link add name wan2 type veth peer name u2b netns {}\n\
         link set wan2 up\n\
         address add 198.19.2.1/24 dev wan2\n",
        net.internet.name()
    ));
    net.internet.ip("link set u2b up\naddress add 198.19.2.254/24 dev u2b\n");
    gateway.ip("route add default via 198.19.2.254 dev wan2 metric 500\n");
    let first = Capture::start(gateway, "wan");
    let b = net.start(B, &net.file(B, &[A]).endpoint(None::<String>));
    let a = net.start(A, &net.file(A, &[B]).endpoint(Some(format!("198.19.2.1:{PORT}"))));
    a.wait_up();
    b.wait_up();
    both_lans_reach_each_other(&net);
    let by_the_first: Vec<_> = first.stop().iter().filter_map(capture::Frame::udp).collect();
    assert!(by_the_first.is_empty(), "{by_the_first:?}");
}

/// A's address changes under a running tunnel: B follows as soon as A says anything.
#[test]
fn the_far_end_follows_a_change_of_address() {
    let Some(net) = Net::two_sites() else { return };
    let (_a, b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    net.gateway(A).ip("address del 198.18.1.1/24 dev wan\n\
         address add 198.18.1.99/24 dev wan\n\
         route add default via 198.18.1.254\n");
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "3", "-i", "0.2", "-W", "2"]);
    b.wait("the new address", |status| status.endpoint(0) == format!("198.18.1.99:{PORT}"));
}
