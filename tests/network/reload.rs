//! Reload: what the file says now is in force, whole or not at all, and what it leaves as it was does not notice.

use std::fs;
use std::time::Instant;

use linkspan::tunnel::key::{PresharedKey, PrivateKey};
use nix::sys::signal::Signal;

use crate::harness::daemon::{Daemon, LINKSPAN, write_secret};
use crate::harness::file::File;
use crate::harness::host::{Finished, Host, finish};
use crate::harness::net::Links;
use crate::harness::paced::Paced;
use crate::harness::traffic::pings_pass;
use crate::harness::*;

/// 300 Mbit/s are 29 of these a millisecond.
const SIZE: usize = 1300;
const EACH_TURN: u32 = 29;

fn applied(daemon: &Daemon<'_>, file: &File) -> String {
    daemon.write(file);
    let finished = daemon.reload();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    assert!(finished.stdout.ends_with(": reloaded\n"), "{finished:?}");
    finished.stdout
}

/// The file is refused with this exit code, and nothing has changed.
fn refused(net: &Net, daemon: &Daemon<'_>, file: &File, code: i32) -> Finished {
    let before = net.gateway(A).footprint();
    daemon.write(file);
    let finished = daemon.reload();
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
    assert_eq!(net.gateway(A).footprint(), before);
    finished
}

fn passes(net: &Net) {
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "3", "-i", "0.1", "-W", "2"]);
    pings_pass(net.lan(A), net.site(B).lan6(), &["-c", "3", "-i", "0.1", "-W", "2"]);
}

/// Packets that a full queue has swallowed: on the way into the TUN, on the way out of A's socket, between two
/// namespaces, or before a socket's reader.
fn swallowed(net: &Net, a: &Daemon<'_>) -> u64 {
    let tun = net.gateway(A).ask("cat", &["/sys/class/net/ls0/statistics/tx_dropped"]).trim().parse::<u64>().unwrap();
    let sockets = [net.gateway(B), net.lan(B)].map(Host::full_sockets).iter().sum::<u64>();
    tun + a.state().dropped("out_send_busy") + full_processors() + sockets
}

/// Packets that came to a full queue of a processor, in hexadecimal, a line for each.
fn full_processors() -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let dropped = text.lines().map(|line| line.split_whitespace().nth(1).unwrap());
    dropped.map(|count| u64::from_str_radix(count, 16).unwrap()).sum()
}

/// What a daemon dropped of the traffic: not of its host's own looking around, nor of what the newcomer says before it is
/// known, or when it no longer is. What met a full queue is counted by [`swallowed`].
fn lost_inside(daemon: &Daemon<'_>) -> u64 {
    let full = ["out_send_busy", "in_socket_full"];
    let others = ["out_multicast", "in_handshake_refused", "in_unknown_index", "in_no_session"];
    daemon.state().dropped_but(&[&full[..], &others].concat())
}

/// TESTS.md, 20.
#[test]
fn peers_come_and_go_under_traffic_and_the_untouched_one_loses_nothing() {
    let Some(net) = Net::new(3, Links::default()) else { return };
    let (alone, both) = (net.file(A, &[B]), net.file(A, &[B, C]));
    let (a, b) = net.link(&alone, &net.file(B, &[A]));
    let linked = Instant::now();
    let mut c = net.daemon(C, &net.file(C, &[A]));
    c.start();
    // The longest turn of a full queue passes before the count begins.
    passes(&net);
    let drops = [&a, &b].map(lost_inside);
    let before = swallowed(&net, &a);
    let stream = Paced::start(net.lan(A), net.lan(B), net.site(B).lan4(), EACH_TURN, SIZE);
    eventually(seconds(10), "the stream runs", || (stream.received() > 1000).then_some(()));
    for _ in 0..if long() { 200 } else { 20 } / 2 {
        // A reload takes some milliseconds: enough of the stream comes before the next.
        let arrived = stream.received();
        eventually(seconds(5), "the stream goes on", || (stream.received() > arrived + 1000).then_some(()));
        assert!(applied(&a, &both).contains("+ connection site-3: 10.3.0.0/16"));
        assert!(applied(&a, &alone).contains("- connection site-3: 10.3.0.0/16"));
    }
    eventually(seconds(20), "two seconds of it arrive", || {
        (stream.received() > 2000 * u64::from(EACH_TURN)).then_some(())
    });
    let bad = alone.clone().with("mtu = 7");
    assert!(refused(&net, &a, &bad, 2).stderr.contains("mtu"));
    let outcome = stream.finish();
    let (lost, swallowed) = (outcome.sent - outcome.received, swallowed(&net, &a) - before);
    eprintln!("{outcome:?}, {swallowed} of it in full queues");
    assert!(lost <= swallowed, "{outcome:?}");
    assert_eq!([&a, &b].map(lost_inside), drops, "{}", a.state().drops());
    let least = linked.elapsed().as_secs();
    let age = b.state().last_handshake(0).unwrap();
    assert!(age + 2 >= least, "no other session was needed: {age} s");
    applied(&a, &both);
    a.wait("the newcomer is up", |status| status.connection_is_up(1));
    pings_pass(net.lan(C), net.site(A).lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
}

#[test]
fn everything_around_a_session_changes_and_the_session_stays() {
    let Some(net) = Net::two_sites() else { return };
    let first = net.file(A, &[B]);
    let (a, b) = net.link(&first, &net.file(B, &[A]));
    let linked = Instant::now();
    let gateway = net.gateway(A);
    let before = gateway.footprint();

    let mut file =
        first.clone().with("mtu = 1380").with("fwmark = 77").with("addresses = [\"169.254.12.1/30\", \"10.9.9.1/24\"]");
    file.listen_port = 51999;
    file.connections[0].name = "renamed".into();
    file.connections[0].networks.push("10.77.0.0/16".into());
    file.connections[0].connection.push("metric = 60".into());
    file.connections[0].tunnel.push("persistent_keepalive = \"5s\"".into());
    let said = applied(&a, &file);
    for line in ["listen_port 51820 -> 51999", "networks + 10.77.0.0/16", "name site-2 -> renamed", "metric 50 -> 60"] {
        assert!(said.contains(line), "{line} in {said}");
    }
    let now = gateway.footprint();
    assert!(gateway.ask("ip", &["link", "show", "ls0"]).contains("mtu 1380"));
    assert!(now.contains("10.77.0.0/16 dev ls0") && now.contains("unreachable 10.77.0.0/16"), "{now}");
    assert!(now.contains("10.9.9.1/24") && now.contains("metric 60") && !now.contains("metric 50 "), "{now}");
    passes(&net);
    b.wait("it has followed to the new port", |status| status.endpoint(0).ends_with(":51999"));
    passes(&net);

    applied(&a, &first);
    eventually(seconds(5), "all is as it was", || (gateway.footprint() == before).then_some(()));
    b.wait("it has followed back", |status| status.endpoint(0).ends_with(":51820"));
    passes(&net);
    for daemon in [&a, &b] {
        let least = linked.elapsed().as_secs();
        let age = daemon.state().last_handshake(0).unwrap();
        assert!(age + 2 >= least, "the session is the first one: {age} s");
    }
}

#[test]
fn another_endpoint_is_where_the_far_end_is_from_then_on() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    for endpoint in [net.site(B).endpoint6(), net.site(B).endpoint4()] {
        applied(&a, &net.file(A, &[B]).endpoint(Some(endpoint)));
        a.wait("it is there", |status| status.endpoint(0) == endpoint.to_string());
        passes(&net);
        b.wait("B answers there", |status| status.is_up());
    }
    net.gateway(A).etc_hosts("127.0.0.1 localhost\n");
    let said = applied(&a, &net.file(A, &[B]).endpoint(Some("nowhere.invalid:51820")));
    assert!(said.contains("-> nowhere.invalid:51820"), "{said}");
    // The name stands for nothing, and the peer is where it is heard.
    passes(&net);
}

#[test]
fn another_preshared_key_makes_a_new_session_before_the_old_one_goes() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let psk = net.directory("psk").join("shared.psk");
    let with_psk = |file: File| {
        let mut file = file;
        file.connections[0].tunnel.push(format!("preshared_key_file = {psk:?}"));
        file
    };
    for round in ["a first one", "another one"] {
        write_secret(&psk, &PresharedKey::generate().unwrap().reveal(), 0o600);
        applied(&a, &with_psk(net.file(A, &[B])));
        // Only one end has it: the old session carries on.
        passes(&net);
        let at = Instant::now();
        applied(&b, &with_psk(net.file(B, &[A])));
        let renewed =
            |status: &status::Status| status.last_handshake(0).is_some_and(|age| age <= at.elapsed().as_secs());
        for daemon in [&a, &b] {
            eventually(seconds(15), round, || daemon.status().filter(renewed));
        }
        passes(&net);
    }
}

#[test]
fn another_private_key_serves_as_soon_as_the_far_end_knows_it() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let key = PrivateKey::generate().unwrap();
    write_secret(&a.key_file(), &key.reveal(), 0o600);
    let said = a.reload();
    assert!(said.status.success() && said.stdout.contains(&key.public().to_string()), "{said:?}");
    // The far end does not know it yet: the old session carries on.
    passes(&net);
    let mut file = net.file(B, &[A]);
    file.connections[0].public_key = key.public().to_string();
    applied(&b, &file);
    b.wait_up();
    a.wait_up();
    passes(&net);
    let unreadable = fs::remove_file(a.key_file()).map(|()| a.reload()).unwrap();
    assert_eq!(unreadable.status.code(), Some(1));
    assert!(unreadable.stderr.contains("there is no such key file"), "{unreadable:?}");
}

#[test]
fn a_wrong_file_is_refused_in_the_words_of_check() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let bad = net.file(A, &[B]).with("mtu = 7").with("no_such_key = 1");
    let finished = refused(&net, &a, &bad, 2);
    let mut check = std::process::Command::new(LINKSPAN);
    check.arg("check").arg(a.file());
    assert_eq!(finished.stderr, finish(check, seconds(10)).stderr);
    assert_eq!(a.compare().stderr, finished.stderr);
    fs::remove_file(a.file()).unwrap();
    assert_eq!(a.reload().status.code(), Some(2));
    passes(&net);
}

#[test]
fn what_needs_a_restart_is_named_and_nothing_else_is_applied_either() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let finished = refused(&net, &a, &net.file(A, &[B]).with("offload = false").with("mtu = 1380"), 1);
    assert!(finished.stderr.contains("needs a restart") && finished.stderr.contains("offload true -> false"));
    assert_eq!(a.compare().status.code(), Some(1));
    passes(&net);
}

#[test]
fn what_the_kernel_refuses_is_undone_whole() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let gateway = net.gateway(A);
    // Another program's port, and another program's route.
    let taken = gateway.udp("0.0.0.0:51999");
    let mut file = net.file(A, &[B]).with("mtu = 1380");
    file.listen_port = 51999;
    let finished = refused(&net, &a, &file, 1);
    assert!(finished.stderr.contains("51999") && finished.stderr.contains("in use"), "{finished:?}");
    drop(taken);
    gateway.ip("route add 10.88.0.0/16 via 198.18.1.254 metric 50\n");
    file = file.with("addresses = [\"169.254.12.1/30\", \"10.9.9.1/24\"]");
    file.connections[0].networks.extend(["10.87.0.0/16".to_owned(), "10.88.0.0/16".to_owned()]);
    file.connections[0].connection.push("route_source = \"none\"".into());
    let finished = refused(&net, &a, &file, 1);
    assert!(
        finished.stderr.contains("another program has a route") && finished.stderr.contains("10.88"),
        "{finished:?}"
    );
    assert!(gateway.ask("ip", &["link", "show", "ls0"]).contains("mtu 1420"));
    assert_eq!(a.compare().status.code(), Some(0), "the daemon still has the old configuration");
    passes(&net);
    gateway.ip("route del 10.88.0.0/16 via 198.18.1.254 metric 50\n");
    applied(&a, &file);
    passes(&net);
}

#[test]
fn a_difference_is_shown_and_nothing_is_done() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let before = net.gateway(A).footprint();
    let same = a.compare();
    assert_eq!(same.status.code(), Some(0));
    assert!(same.stdout.ends_with(": nothing has changed\n"), "{}", same.stdout);
    a.write(&net.file(A, &[B]).with("mtu = 1380"));
    for _ in 0..2 {
        let other = a.compare();
        assert_eq!((other.status.code(), other.stdout.as_str()), (Some(0), "~ interface: mtu auto -> 1380\n"));
    }
    assert_eq!(net.gateway(A).footprint(), before);
}

#[test]
fn sighup_reloads_and_the_log_says_so() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    a.write(&net.file(A, &[B]).with("mtu = 1380"));
    a.signal(Signal::SIGHUP);
    eventually(seconds(15), "the file is in force", || a.log().contains("mtu auto -> 1380").then_some(()));
    a.write(&net.file(A, &[B]).with("mtu = 7"));
    a.signal(Signal::SIGHUP);
    eventually(seconds(15), "it is refused", || a.log().contains("reload refused").then_some(()));
    assert_eq!(a.compare().status.code(), Some(2));
    passes(&net);
}

/// An endpoint within the networks has a table of its own, and rules: those come with the reload, too.
#[test]
fn a_network_that_covers_the_far_end_comes_and_goes() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let before = net.gateway(A).footprint();
    let mut file = net.file(A, &[B]);
    file.connections[0].networks.push("198.18.0.0/15".into());
    applied(&a, &file);
    assert_ne!(net.gateway(A).footprint(), before);
    passes(&net);
    applied(&a, &net.file(A, &[B]));
    eventually(seconds(5), "all is as it was", || (net.gateway(A).footprint() == before).then_some(()));
    passes(&net);
}
