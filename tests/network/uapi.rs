//! `linkspan-wg` and `wg`: everything that an administrator of a WireGuard interface may do to it while it runs.
//!
//! ```text
//!   A's gateway ------ internet ------ B's gateway
//!   10.9.0.1, fd09::1                  10.9.0.2, fd09::2      inside
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::harness::host::{Host, finish};
use crate::harness::traffic::{ping, pings_pass};
use crate::harness::wg::{WgInterface, converse, socket_of, unique_name, wg, wg_ok};
use crate::harness::*;

pub(super) const INSIDE_A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub(super) const INSIDE_B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
pub(super) const QUICK: [&str; 6] = ["-c", "3", "-i", "0.1", "-W", "2"];
pub(super) const PORT_A: u16 = 7001;
pub(super) const PORT_B: u16 = 7002;

/// Gives an interface its inside addresses and brings it up.
pub(super) fn address(host: &Host, interface: &WgInterface<'_>, number: u8) {
    let name = &interface.name;
    host.ip(&format!(
        "address add 10.9.0.{number}/24 dev {name}\naddress add fd09::{number}/64 dev {name} nodad\nlink set {name} up\n"
    ));
}

/// Two interfaces that know each other; A knows where B is.
pub(super) fn pair(net: &Net) -> (WgInterface<'_>, WgInterface<'_>) {
    let (a, b) = (net.wg_interface(net.gateway(A)), net.wg_interface(net.gateway(B)));
    for (interface, port) in [(&a, PORT_A), (&b, PORT_B)] {
        interface.set_key();
        interface.set(&format!("listen-port {port}"));
    }
    b.set(&format!("peer {} allowed-ips 10.9.0.1/32,fd09::1/128", a.public()));
    a.set(&format!("peer {} allowed-ips 10.9.0.2/32,fd09::2/128 endpoint 198.18.2.1:{PORT_B}", b.public()));
    address(net.gateway(B), &b, 2);
    address(net.gateway(A), &a, 1);
    (a, b)
}

/// Pings from A until one is answered.
pub(super) fn reaches(net: &Net, within: Duration) {
    eventually(within, "B answers A", || {
        let (pings, _) = ping(net.gateway(A), INSIDE_B, &["-c", "1", "-W", "1"]);
        (pings.received == 1).then_some(())
    });
}

/// What A has received and sent, once B counts the same: what is on its way is there before it is counted as sent.
fn settled(a: &WgInterface<'_>, b: &WgInterface<'_>) -> (u64, u64) {
    eventually(seconds(5), "both ends count the same", || {
        let ((received, sent), far) = (a.transfer(), b.transfer());
        (far == (sent, received)).then_some((received, sent))
    })
}

#[test]
fn two_interfaces_are_linked_by_wg_alone_and_count_every_byte() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = pair(&net);
    assert_eq!((a.transfer(), b.transfer()), ((0, 0), (0, 0)));
    assert_eq!(a.show("latest-handshakes").split_whitespace().last(), Some("0"));
    // The first waits a second at most for a session, and one that never left is in no count. Then one by one: of several,
    // `ping` sends more while answers are late.
    eventually(seconds(20), "the first ping is answered", || {
        (ping(net.gateway(A), INSIDE_B, &["-c", "1", "-W", "10", "-s", "56"]).0.received == 1).then_some(())
    });
    (0..2).for_each(|_| pings_pass(net.gateway(A), INSIDE_B, &["-c", "1", "-s", "56"]));
    // Initiation, keepalive that confirms, three pings of 84 bytes padded to 96; response and three answers.
    let (ping, overhead) = (96, 32);
    let (sent, received) = (148 + overhead + 3 * (ping + overhead), 92 + 3 * (ping + overhead));
    assert_eq!(settled(&a, &b), (received, sent));
    pings_pass(net.gateway(B), "fd09::1".parse().unwrap(), &QUICK);
    assert_eq!(b.show("endpoints"), format!("{}\t198.18.1.1:{PORT_A}", a.public()));
    let handshake: u64 = b.show("latest-handshakes").split_whitespace().last().unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now - handshake < 10, "{handshake} at {now}");
}

#[test]
fn nothing_is_sent_before_there_is_something_to_send() {
    let Some(net) = Net::two_sites() else { return };
    let uplink = Capture::start(net.gateway(A), "wan");
    let (a, _b) = pair(&net);
    // Longer than anything that is wanted waits before it initiates.
    std::thread::sleep(seconds(2));
    assert_eq!(uplink.stop().iter().filter_map(capture::Frame::udp).count(), 0);
    a.set(&format!("peer {} persistent-keepalive 1", _b.public()));
    eventually(seconds(5), "the keepalive begins a session", || (a.transfer().0 > 0).then_some(()));
}

#[test]
fn every_address_that_wg_can_name_fits_one_peer_and_forty_peers_have_theirs() {
    let Some(net) = Net::two_sites() else { return };
    let a = net.wg_interface(net.gateway(A));
    let key = || linkspan::tunnel::key::PrivateKey::generate().unwrap().public().to_string();
    let mut text = format!("[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\n", *a.key.reveal(), key());
    for (x, y) in (1..=255).flat_map(|x| (0..=255).map(move |y| (x, y))) {
        text += &format!("AllowedIPs = {x}.{y}.0.0/16, {x:x}::{y:x}/128\n");
    }
    a.conf("setconf", &text);
    assert_eq!(a.show("allowed-ips").split_whitespace().count(), 1 + 255 * 256 * 2);
    let mut text = "[Interface]\n".to_owned();
    for x in 1..=40 {
        text += &format!("[Peer]\nPublicKey = {}\n", key());
        text.extend((1..=52).map(|y| format!("AllowedIPs = {x}.{y}.0.0/16\n")));
    }
    a.conf("setconf", &text);
    let shown = a.show("allowed-ips");
    assert_eq!(shown.lines().count(), 40);
    assert!(shown.lines().all(|peer| peer.split_whitespace().count() == 53));
    assert_eq!(a.show("private-key"), "(none)");
}

#[test]
fn wg_conf_commands_set_add_and_keep_what_they_should() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = pair(&net);
    reaches(&net, seconds(10));
    let of_b =
        format!("[Peer]\nPublicKey = {}\nAllowedIPs = 10.9.0.2/32\nEndpoint = 198.18.2.1:{PORT_B}\n", b.public());
    let interface = format!("[Interface]\nPrivateKey = {}\nListenPort = {PORT_A}\n", *a.key.reveal());
    let other = linkspan::tunnel::key::PrivateKey::generate().unwrap().public();
    let counted = settled(&a, &b);
    a.conf("addconf", &format!("[Peer]\nPublicKey = {other}\nAllowedIPs = 10.8.0.0/16\nPersistentKeepalive = 5\n"));
    assert_eq!(a.show("peers").lines().count(), 2);
    assert!(a.show("persistent-keepalive").contains(&format!("{other}\t5")));
    // The session lives on: no byte of a handshake is added, and none forgotten.
    a.conf("syncconf", &format!("{interface}{of_b}"));
    assert_eq!((a.show("peers"), a.transfer()), (b.public().to_string(), counted));
    pings_pass(net.gateway(A), INSIDE_B, &QUICK);
    a.conf("setconf", &format!("{interface}{of_b}"));
    reaches(&net, seconds(5));
    let shown = wg_ok(&["showconf", &a.name]);
    for line in [format!("ListenPort = {PORT_A}"), format!("PrivateKey = {}", *a.key.reveal()), "10.9.0.2/32".into()] {
        assert!(shown.contains(&line), "{line}: {shown}");
    }
}

#[test]
fn peers_are_updated_removed_and_replaced_and_networks_move() {
    let Some(net) = Net::two_sites() else { return };
    let a = net.wg_interface(net.gateway(A));
    let [one, two] = [1, 2].map(|_| linkspan::tunnel::key::PrivateKey::generate().unwrap().public());
    let (one, two) = ((one.to_hex(), one.to_string()), (two.to_hex(), two.to_string()));
    let fine = "errno=0\n\n";
    assert_eq!(a.say(&format!("set=1\npublic_key={}\nupdate_only=true\nallowed_ip=10.0.0.0/8\n\n", one.0)), fine);
    assert_eq!(a.show("peers"), "");
    for peer in [&one, &two] {
        assert_eq!(a.say(&format!("set=1\npublic_key={}\nallowed_ip=10.0.0.0/8\n\n", peer.0)), fine);
    }
    let allowed = |a: &WgInterface<'_>| a.show("allowed-ips");
    assert_eq!(allowed(&a), format!("{}\t(none)\n{}\t10.0.0.0/8", one.1, two.1));
    a.say(&format!(
        "set=1\npublic_key={}\nreplace_allowed_ips=true\nallowed_ip=fd00::/8\nallowed_ip=10.1.0.0/16\n\n",
        two.0
    ));
    a.say(&format!("set=1\npublic_key={}\nallowed_ip=-10.1.0.0/16\npublic_key={}\nremove=true\n\n", two.0, one.0));
    assert_eq!(allowed(&a), format!("{}\tfd00::/8", two.1));
    a.say(&format!("set=1\nreplace_peers=true\npublic_key={}\n\n", one.0));
    assert_eq!(a.show("peers"), one.1);
    // Nobody is a peer of itself, whichever comes first.
    a.set_key();
    a.set(&format!("peer {}", a.public()));
    assert_eq!(a.show("peers"), one.1);
}

#[test]
fn what_is_wrong_is_refused_by_number_and_changes_nothing() {
    let Some(net) = Net::two_sites() else { return };
    let a = net.wg_interface(net.gateway(A));
    a.set("fwmark 7");
    for (request, errno) in [
        ("set=1\nfwmark=8\nlisten_port=65536\n\n", "errno=-22\n\n"),
        ("set=1\nfwmark=8\nnonsense=1\n\n", "errno=-22\n\n"),
        ("set=1\nfwmark=8\npublic_key=12\n\n", "errno=-22\n\n"),
        ("set=1\nfwmark\n\n", "errno=-71\n\n"),
        ("hello\n\n", "errno=-71\n\n"),
    ] {
        assert_eq!(a.say(request), errno, "{request}");
    }
    assert_eq!(a.show("fwmark"), "0x7");
    // A stranger does not even reach the socket.
    let mut stranger = std::process::Command::new("setpriv");
    stranger.args(["--reuid=65534", "--regid=65534", "--clear-groups", "wg", "show", &a.name]);
    assert!(!finish(stranger, seconds(5)).status.success());
}

#[test]
fn a_request_may_come_in_pieces_and_another_may_follow_on_the_same_connection() {
    let Some(net) = Net::two_sites() else { return };
    let a = net.wg_interface(net.gateway(A));
    let mut stream = a.talk();
    let pieces = ["se", "t=1\nfwma", "rk=7\nlisten_port", "=", "7001\n", "\n"];
    assert_eq!(converse(&mut stream, &pieces), "errno=0\n\n");
    assert_eq!(converse(&mut stream, &["get=1\n", "\n"]), "listen_port=7001\nfwmark=7\nerrno=0\n\n");
    // Refused, and the connection serves on; then two at once.
    assert_eq!(converse(&mut stream, &["set=1\nfwmark=x\n\n"]), "errno=-22\n\n");
    assert_eq!(converse(&mut stream, &["set=1\nfwmark=8\n\nget=1\n\n"]), "errno=0\n\n");
    assert_eq!(converse(&mut stream, &[]), "listen_port=7001\nfwmark=8\nerrno=0\n\n");
}

#[test]
fn a_port_that_is_taken_is_refused_and_the_old_one_serves_on() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = pair(&net);
    reaches(&net, seconds(10));
    let _taken = net.gateway(B).udp("0.0.0.0:7009");
    let refused = wg(&["set", &b.name, "listen-port", "7009"]);
    assert!(!refused.status.success() && refused.stderr.contains("Address already in use"), "{refused:?}");
    assert_eq!(b.show("listen-port"), PORT_B.to_string());
    pings_pass(net.gateway(A), INSIDE_B, &QUICK);
    drop(a);
}

/// B's port moves, then moves back at once; A follows as soon as it hears from the new one.
#[test]
fn the_port_and_the_mark_change_without_losing_the_session() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = pair(&net);
    reaches(&net, seconds(10));
    let handshake = a.show("latest-handshakes");
    for port in [7010, 7011, PORT_B, 500] {
        b.set(&format!("listen-port {port}"));
        pings_pass(net.gateway(B), INSIDE_A, &QUICK);
        assert!(a.show("endpoints").ends_with(&format!("198.18.2.1:{port}")));
    }
    net.gateway(A)
        .nft("marks", &["chain out { type filter hook output priority filter\nmeta mark 0x77 drop\n}".into()]);
    a.set("fwmark 0x77");
    assert_eq!(ping(net.gateway(A), INSIDE_B, &["-c", "2", "-i", "0.1", "-W", "1"]).0.received, 0);
    a.set("fwmark off");
    pings_pass(net.gateway(A), INSIDE_B, &QUICK);
    assert_eq!(a.show("latest-handshakes"), handshake);
}

#[test]
fn keys_change_under_traffic() {
    let Some(net) = Net::two_sites() else { return };
    let (mut a, b) = pair(&net);
    reaches(&net, seconds(10));
    let psk = linkspan::tunnel::key::PresharedKey::generate().unwrap();
    // Until both have it, the session of before serves on.
    a.set(&format!("peer {} preshared-key {}", b.public(), a.secret("psk", &psk.reveal()).display()));
    pings_pass(net.gateway(A), INSIDE_B, &QUICK);
    b.set(&format!("peer {} preshared-key {}", a.public(), b.secret("psk", &psk.reveal()).display()));
    pings_pass(net.gateway(A), INSIDE_B, &QUICK);
    assert!(a.show("preshared-keys").ends_with(&*psk.reveal()));

    let old = a.public();
    a.key = linkspan::tunnel::key::PrivateKey::generate().unwrap();
    b.set(&format!("peer {old} remove peer {} allowed-ips 10.9.0.1/32", a.public()));
    b.set(&format!("peer {} preshared-key {}", a.public(), b.secret("psk", &psk.reveal()).display()));
    a.set_key();
    assert_eq!(a.show("public-key"), a.public().to_string());
    reaches(&net, seconds(8));
    // Without a key there is nobody to talk to, and with it all is as before.
    a.set("private-key /dev/null");
    assert_eq!(ping(net.gateway(A), INSIDE_B, &["-c", "1", "-W", "1"]).0.received, 0);
    a.set_key();
    reaches(&net, seconds(8));
}

#[test]
fn wg_shows_the_interface_of_a_daemon_but_may_not_change_it() {
    let Some(net) = Net::two_sites() else { return };
    let mut file = net.file(A, &[B]);
    file.name = unique_name();
    let name = file.name.clone();
    let mut a = net.daemon(A, &file);
    a.wg = true;
    a.start();
    let b = net.start(B, &net.file(B, &[A]));
    a.wait_up();
    b.wait_up();
    pings_pass(net.lan(A), net.site(B).lan4(), &QUICK);
    let shown = wg_ok(&["show", &name]);
    for line in [
        format!("public key: {}", net.site(A).public()),
        format!("peer: {}", net.site(B).public()),
        "endpoint: 198.18.2.1:51820".into(),
        "listening port: 51820".into(),
        "10.2.0.0/16".into(),
        "latest handshake: ".into(),
        "persistent keepalive: every 10 seconds".into(),
    ] {
        assert!(shown.contains(&line), "{line}: {shown}");
    }
    let refused = wg(&["set", &name, "listen-port", "1"]);
    assert!(!refused.status.success() && refused.stderr.contains("Operation not permitted"), "{refused:?}");
    assert!(a.log().contains("the configuration file is the truth"), "{}", a.log());
    assert!(a.state().is_up());
    a.stop();
    assert!(!socket_of(&name).exists(), "the socket is left");
}
