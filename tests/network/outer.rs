//! What a stranger on the network may not do: replay, steal the endpoint, crash or mute us with datagrams that are none.
//!
//! ```text
//!   A ---- internet ---- B       the two ends of a tunnel
//!             |
//!             C                  the stranger, who has heard everything between them
//! ```

use std::net::{IpAddr, UdpSocket};
use std::time::SystemTime;

use linkspan::tunnel::key::PresharedKey;
use nix::sys::signal::Signal;

use crate::harness::capture::Frame;
use crate::harness::daemon::{Daemon, write_secret};
use crate::harness::file::File;
use crate::harness::host::at;
use crate::harness::net::Links;
use crate::harness::packets::{MARKER, Random, noise};
use crate::harness::stock::{Peering, Program, Stock};
use crate::harness::traffic::{pings_pass, reached};
use crate::harness::wireguard::initiations;
use crate::harness::*;

const REPLAYED: usize = 10_000;
const TRANSPORT: u8 = 4;
const COOKIE_REPLY: u8 = 3;

fn wire() -> Option<Net> {
    Net::new(3, Links { single_datagrams: true, ..Links::default() })
}

/// A socket of the stranger's, towards A's daemon.
fn stranger(net: &Net) -> UdpSocket {
    let socket = net.gateway(C).udp("0.0.0.0:0");
    socket.connect(net.site(A).endpoint4()).unwrap();
    socket
}

/// Sends all of them, and lets the daemon keep up: what is lost for want of buffers proves nothing.
fn send_all<'d>(socket: &UdpSocket, datagrams: impl IntoIterator<Item = &'d [u8]>) -> usize {
    let mut sent = 0;
    for datagram in datagrams {
        // ICMP may say that nobody listens, while the daemon is being restarted.
        let _ = socket.send(datagram);
        sent += 1;
        if sent % 100 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    sent
}

/// What was said to A's daemon.
fn to_a(net: &Net, frames: &[Frame]) -> Vec<Vec<u8>> {
    let datagrams = frames.iter().filter_map(Frame::udp).filter(|udp| udp.to == net.site(A).endpoint4());
    datagrams.map(|udp| udp.payload).collect()
}

/// What was said to A's daemon so far, once the capture has heard the 500 markers.
fn recorded(net: &Net, uplink: &Capture) -> Vec<Vec<u8>> {
    let heard = || Some(to_a(net, &uplink.frames())).filter(|heard| heard.len() > 500);
    eventually(seconds(5), "what was said is heard", heard)
}

/// Sends markers from B's LAN to A's, which all arrive.
fn send_markers(net: &Net, count: usize) {
    let (here, far) = (net.site(A), net.site(B));
    let sink = here.lan.udp(&at(here.lan4(), 7001).to_string());
    let socket = far.lan.udp("0.0.0.0:0");
    let mut buffer = [0; 64];
    for _ in 0..count {
        socket.send_to(MARKER, at(here.lan4(), 7001)).unwrap();
        sink.recv(&mut buffer).expect("honest packets pass");
    }
}

fn markers(frames: &[Frame], to: IpAddr) -> usize {
    frames.iter().filter(|f| f.contains(MARKER) && f.addresses().is_some_and(|(_, goes)| goes == to)).count()
}

/// The tunnel carries traffic and A knows where B is, once A is through with what was sent to it.
fn unmoved(net: &Net, a: &Daemon<'_>) {
    reached(net.lan(B), net.site(A).lan4(), seconds(10));
    pings_pass(net.lan(B), net.site(A).lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    assert_eq!(a.state().endpoint(0), net.site(B).endpoint4().to_string());
    assert!(!a.log().contains("panicked"));
}

/// Everything that was ever said to A, again and again, from elsewhere: nothing is delivered, nobody moves.
fn replay(net: &Net, a: &Daemon<'_>, heard: &[Vec<u8>]) {
    let (on_lan, socket) = (Capture::start(net.lan(A), "lan"), stranger(net));
    let datagrams = || heard.iter().map(Vec::as_slice).cycle().take(REPLAYED);
    let refused = |status: &status::Status| {
        ["in_replay", "in_no_session", "in_unknown_index", "in_forged"]
            .map(|reason| status.dropped(reason))
            .iter()
            .sum()
    };
    let before: u64 = refused(&a.state());
    let transport = datagrams().filter(|datagram| datagram[0] == TRANSPORT).count() as u64;
    let full = || net.gateway(A).full_sockets();
    let lost = full();
    send_all(&socket, datagrams());
    a.wait("all of it was refused", |status| refused(status) + (full() - lost) >= before + transport);
    unmoved(net, a);
    assert_eq!(markers(&on_lan.stop(), net.site(A).lan4()), 0);
}

#[test]
fn what_is_replayed_from_elsewhere_is_never_delivered_and_moves_nobody() {
    let Some(net) = wire() else { return };
    let uplink = Capture::start(net.gateway(A), "wan");
    let (mut a, mut b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    send_markers(&net, 500);
    let heard = recorded(&net, &uplink);
    replay(&net, &a, &heard);
    // The daemon that comes back has never heard any of it.
    a.kill();
    a.start();
    a.wait_up();
    replay(&net, &a, &to_a(&net, &uplink.frames()));
    a.stop();
    b.stop();
    let with_key = |mut file: File, name: &str| {
        let path = net.directory(name).join("psk");
        write_secret(&path, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", 0o600);
        file.connections[0].tunnel.push(format!("preshared_key_file = {path:?}"));
        file
    };
    let (a, _b) = net.link(&with_key(net.file(A, &[B]), "a"), &with_key(net.file(B, &[A]), "b"));
    replay(&net, &a, &to_a(&net, &uplink.stop()));
}

/// Both ends are `linkspan-wg`, and their preshared key becomes another while they talk.
#[test]
fn what_is_replayed_after_a_live_change_of_the_preshared_key_is_never_delivered_and_moves_nobody() {
    let Some(net) = wire() else { return };
    let uplink = Capture::start(net.gateway(A), "wan");
    let (here, far) = (net.site(A), net.site(B));
    let b = net.stock(Program::LinkspanWg, B, A, &Peering::default());
    let peering = Peering { endpoint: Some(far.endpoint4()), ..Peering::default() };
    let a = net.stock(Program::LinkspanWg, A, B, &peering);
    let both_answer = || {
        pings_pass(&far.lan, here.lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
        pings_pass(&here.lan, far.lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
        assert_eq!(a.endpoint(), far.endpoint4().to_string());
    };
    // B does not know where A is before it has heard it. The first packet waits for a session no longer than a second.
    reached(&here.lan, far.lan4(), seconds(20));
    pings_pass(&here.lan, far.lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    send_markers(&net, 500);
    let first = a.handshake();
    let key = PresharedKey::generate().unwrap().reveal();
    let change = |end: &Stock<'_>, peer| end.set_peer(peer, &["preshared-key", &end.secret("psk", &key)]);
    let stranger = stranger(&net);
    let replay = |heard: &[Vec<u8>]| {
        let on_lan = Capture::start(&here.lan, "lan");
        send_all(&stranger, heard.iter().map(Vec::as_slice).cycle().take(REPLAYED));
        both_answer();
        assert_eq!(markers(&on_lan.stop(), here.lan4()), 0);
    };
    let heard = recorded(&net, &uplink);
    // A's old sessions serve on, and it waits for B to know the new key.
    change(&a, far);
    replay(&heard);
    // Handshakes are told apart by their seconds.
    eventually(seconds(5), "a later second", || (now() > first).then_some(()));
    change(&b, here);
    eventually(seconds(10), "a session of the new key", || {
        both_answer();
        (a.handshake() > first).then_some(())
    });
    replay(&to_a(&net, &uplink.stop()));
}

#[test]
fn a_replayed_initiation_to_a_daemon_that_waits_is_answered_and_moves_nobody() {
    let Some(net) = wire() else { return };
    let uplink = Capture::start(net.gateway(A), "wan");
    // Only B initiates: A, restarted, takes the recorded initiation for a new one.
    let mut a = net.start(A, &net.file(A, &[B]).endpoint(None::<String>));
    let mut b = net.start(B, &net.file(B, &[A]));
    a.wait_up();
    a.kill();
    b.stop();
    a.start();
    a.wait("it answers", |_| true);
    let socket = stranger(&net);
    let heard = to_a(&net, &uplink.stop());
    let initiation = heard.iter().find(|datagram| datagram[0] == 1).expect("B initiated");
    socket.send(initiation).unwrap();
    let mut reply = [0; 256];
    assert_eq!(socket.recv(&mut reply).expect("nobody could know better"), 92);
    send_all(&socket, heard.iter().map(Vec::as_slice));
    let status = a.state();
    // A may remember where B was before.
    let known = [String::new(), net.site(B).endpoint4().to_string()];
    assert!(!status.is_up() && known.contains(&status.endpoint(0)), "{}", status.endpoint(0));
    b.start();
    a.wait_up();
    unmoved(&net, &a);
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The index of A's session, from the datagrams to it.
fn index(heard: &[Vec<u8>]) -> [u8; 4] {
    let newest = heard.iter().rfind(|datagram| datagram[0] == TRANSPORT).expect("transport data");
    newest[4..8].try_into().unwrap()
}

/// A message of this type and length: noise but for the index of a session, which stands at `offset`.
fn forged(random: &mut Random, kind: u8, length: usize, offset: usize, index: [u8; 4]) -> Vec<u8> {
    let mut message = noise(random.next() | 1, length);
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message[offset..offset + 4].copy_from_slice(&index);
    message
}

#[test]
fn garbage_with_a_valid_index_moves_no_endpoint_and_holds_nothing_up() {
    let Some(net) = wire() else { return };
    let uplink = Capture::start(net.gateway(A), "wan");
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    send_markers(&net, 10);
    let (socket, mut random) = (stranger(&net), Random(13));
    let index = index(&to_a(&net, &uplink.stop()));
    for (kind, lengths, offset) in
        [(TRANSPORT, vec![32, 96, 1452], 4), (COOKIE_REPLY, vec![64], 4), (2, vec![92], 8), (1, vec![148], 4)]
    {
        let lengths = lengths.iter().cycle().take(REPLAYED);
        let messages: Vec<_> = lengths.map(|&length| forged(&mut random, kind, length, offset, index)).collect();
        send_all(&socket, messages.iter().map(Vec::as_slice));
        unmoved(&net, &a);
    }
    // Initiations that know A's key, from somebody whom A does not know.
    let sound = initiations(&net.site(A).public(), 100);
    send_all(&socket, sound.iter().map(Vec::as_slice).cycle().take(REPLAYED));
    unmoved(&net, &a);
    let status = a.state();
    for reason in ["in_forged", "in_bad_mac1", "in_under_load", "in_handshake_refused"] {
        assert!(status.dropped(reason) > 0, "{reason}: {}", status.drops());
    }
}

#[test]
fn a_replayed_cookie_reply_moves_no_endpoint() {
    let Some(net) = wire() else { return };
    let uplink = Capture::start(net.gateway(A), "wan");
    let b = net.start(B, &net.file(B, &[A]).endpoint(None::<String>));
    b.wait("it answers", |_| true);
    let mut a = net.daemon(A, &net.file(A, &[B]));
    let flood = net.gateway(C).udp("0.0.0.0:0");
    flood.connect(net.site(B).endpoint4()).unwrap();
    let sound = initiations(&net.site(B).public(), 1);
    let overload = || (0..3000).for_each(|_| drop(flood.send(&sound[0])));
    overload();
    a.start();
    // B is under load: A is asked for a cookie first, and gets in with it.
    let reply = eventually(seconds(20), "a cookie reply to A", || {
        overload();
        to_a(&net, &uplink.frames()).into_iter().find(|datagram| datagram[0] == COOKIE_REPLY)
    });
    let socket = stranger(&net);
    send_all(&socket, std::iter::repeat_n(reply.as_slice(), REPLAYED / 2));
    a.wait_up_within(seconds(20));
    send_all(&socket, std::iter::repeat_n(reply.as_slice(), REPLAYED / 2));
    unmoved(&net, &a);
}

/// Every type, every edge of a length, and some as long as UDP takes.
fn malformed(random: &mut Random, n: usize) -> Vec<u8> {
    const EDGES: [usize; 18] = [0, 1, 3, 4, 7, 8, 15, 16, 31, 32, 33, 63, 64, 91, 92, 147, 148, 1452];
    let length = match n % 8 {
        0 if n.is_multiple_of(1000) => 65_507 - random.below(3),
        0 if n.is_multiple_of(200) => random.below(65_508),
        0..4 => EDGES[random.below(EDGES.len())],
        _ => random.below(1500),
    };
    let mut datagram = noise(random.next() | 1, length);
    for (byte, value) in datagram.iter_mut().zip([(n % 256).to_le_bytes()[0], 0, 0, u8::from(n.is_multiple_of(3))]) {
        *byte = value;
    }
    datagram
}

#[test]
fn malformed_outer_datagrams_do_no_harm_and_get_no_answer_but_cookies() {
    const MALFORMED: usize = 100_000;
    let Some(net) = wire() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let heard = Capture::start(net.gateway(C), "wan");
    let (socket, mut random) = (stranger(&net), Random(16));
    for round in 0..10 {
        let datagrams: Vec<_> = (0..MALFORMED / 10).map(|n| malformed(&mut random, n + round)).collect();
        send_all(&socket, datagrams.iter().map(Vec::as_slice));
        reached(net.lan(B), net.site(A).lan4(), seconds(10));
        pings_pass(net.lan(B), net.site(A).lan4(), &["-c", "1", "-W", "2"]);
    }
    let sound = initiations(&net.site(A).public(), 1);
    send_all(&socket, std::iter::repeat_n(sound[0].as_slice(), 5000));
    unmoved(&net, &a);
    let local = socket.local_addr().unwrap().port();
    let frames = heard.stop();
    let answers: Vec<_> = frames.iter().filter_map(Frame::udp).filter(|udp| udp.to.port() == local).collect();
    assert!(!answers.is_empty(), "who knows the key is asked for a cookie");
    assert!(answers.iter().all(|udp| udp.payload.len() == 64 && udp.payload[0] == COOKIE_REPLY));
    // Fragments of what is longer than the MTU are no UDP to the capture; the daemon counts whole datagrams.
    let status = a.state();
    assert!(status.dropped("in_malformed") > 80_000, "{}", status.drops());
}

/// The daemon stands still, and its sockets overflow; then one of its ports goes, and what was counted stays.
#[test]
fn what_comes_faster_than_it_is_taken_is_counted() {
    let Some(net) = wire() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let socket = stranger(&net);
    a.signal(Signal::SIGSTOP);
    eventually(seconds(10), "the socket is full", || {
        let _ = send_all(&socket, std::iter::repeat_n(&[0; 1400][..], 1000));
        (net.gateway(A).full_sockets() > 0).then_some(())
    });
    a.signal(Signal::SIGCONT);
    let is_counted = |status: &status::Status| status.dropped("in_socket_full") == net.gateway(A).full_sockets();
    a.wait("all of it is counted", is_counted);
    let mut file = net.file(A, &[B]);
    file.listen_port = 51999;
    a.write(&file);
    let done = a.reload();
    assert!(done.status.success(), "{done:?}");
    a.wait("it is remembered", is_counted);
}
