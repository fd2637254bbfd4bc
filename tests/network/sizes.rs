//! Packets that do not fit: the MSS of passing SYNs, and what a sender is told.

use crate::harness::file::INTERFACE;
use crate::harness::host::at;
use crate::harness::traffic::ping;
use crate::harness::*;

/// Sets the TUN's MTU by hand to what the LAN has, so that the kernel no longer answers in our place.
fn raise_mtu(net: &Net, site: usize) {
    net.gateway(site).ip(&format!("link set {INTERFACE} mtu 1500\n"));
}

/// The LANs have 1,500, so hosts offer 1,460 and 1,440; a tunnel of 1,420 carries 1,380 and 1,360.
#[test]
fn the_mss_of_passing_syns_is_clamped_in_both_directions() {
    let Some(net) = Net::two_sites() else { return };
    let (_a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let (a, b) = (net.site(A), net.site(B));
    for (client, server, address, mss) in [
        (&a.lan, &b.lan, b.lan4(), 1380),
        (&b.lan, &a.lan, a.lan4(), 1380),
        (&a.lan, &b.lan, b.lan6(), 1360),
        (&b.lan, &a.lan, a.lan6(), 1360),
    ] {
        let (at_client, at_server) = (Capture::start(client, "lan"), Capture::start(server, "lan"));
        let listener = server.listen(at(address, 0));
        let _stream = client.connect(listener.local_addr().unwrap(), seconds(5));
        let heard = |capture: Capture, to_server: bool| -> Vec<u16> {
            let here = |frame: &&capture::Frame| frame.addresses().is_some_and(|(_, to)| (to == address) == to_server);
            capture.stop().iter().filter(here).filter_map(capture::Frame::syn_mss).collect()
        };
        // A SYN that is not answered within a second is sent again.
        for (offered, of) in [(heard(at_server, true), "the SYN to"), (heard(at_client, false), "the answer from")] {
            assert!(!offered.is_empty() && offered.iter().all(|it| *it == mss), "{of} {address}: {offered:?}");
        }
    }
}

/// One end alone does it for both directions: the far end is a stock peer that clamps nothing.
#[test]
fn a_syn_that_a_stock_peer_sends_is_clamped_too() {
    let Some(net) = Net::two_sites() else { return };
    let (here, far) = (net.site(A), net.site(B));
    let _a = net.start(A, &net.file(A, &[B]));
    let mut peer = WgPeer::connect(&far.gateway, far.endpoint4(), &far.key, (here.endpoint4(), here.public()));
    let capture = Capture::start(&here.lan, "lan");
    let std::net::IpAddr::V4(from) = far.lan4() else { panic!() };
    let std::net::IpAddr::V4(to) = here.lan4() else { panic!() };
    let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
    let builder = etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64).tcp(5, 6, 7, 8).syn();
    let mut packet = Vec::new();
    builder.options(&options).unwrap().write(&mut packet, &[]).unwrap();
    peer.send(&packet);
    assert_eq!(capture.wait("the SYN", capture::Frame::syn_mss), 1380);
}

#[test]
fn a_packet_that_is_too_big_is_answered_with_the_right_mtu() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    raise_mtu(&net, A);
    let (from, far) = (net.lan(A), net.site(B));
    let told = |to, size: &str, words: [&str; 2]| {
        let (pings, finished) = ping(from, to, &["-M", "do", "-c", "1", "-W", "2", "-s", size]);
        assert_eq!(pings.received, 0);
        assert!(words.iter().all(|word| finished.stdout.contains(word)), "{finished:?}");
    };
    told(far.lan4(), "1450", ["Frag needed", "1420"]);
    told(far.lan6(), "1450", ["Packet too big", "1420"]);
    assert_eq!(a.state().dropped("out_too_big"), 2);
    // The edge: 1,420 bytes pass.
    assert_eq!(ping(from, far.lan4(), &["-M", "do", "-c", "1", "-W", "2", "-s", "1392"]).0.received, 1);
    assert_eq!(ping(from, far.lan6(), &["-M", "do", "-c", "1", "-W", "2", "-s", "1372"]).0.received, 1);
}

#[test]
fn a_packet_that_may_be_fragmented_is_fragmented() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    raise_mtu(&net, A);
    let (pings, finished) = ping(net.lan(A), net.site(B).lan4(), &["-M", "dont", "-c", "1", "-W", "2", "-s", "1450"]);
    assert_eq!(pings.received, 1, "{finished:?} {}", a.state().drops());
}
