//! A path that loses datagrams.

use crate::harness::net::Links;
use crate::harness::packets::noise;
use crate::harness::traffic::tcp_transfer;
use crate::harness::*;

/// Two sites on a wire that loses single datagrams, not super-packets.
fn wire() -> Option<Net> {
    Net::new(2, Links { single_datagrams: true, ..Links::default() })
}

fn ten_megabytes_arrive_intact(percent: u8) {
    let Some(net) = wire() else { return };
    let (_a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    net.lose(percent);
    let (here, far) = (net.site(A), net.site(B));
    tcp_transfer(&here.lan, &far.lan, far.lan4(), &noise(9, 10 << 20), seconds(180));
}

#[test]
fn ten_megabytes_arrive_intact_at_five_percent_loss() {
    ten_megabytes_arrive_intact(5);
}

#[test]
#[ignore = "long: LINKSPAN_LONG=1 tests/run"]
fn the_handshake_gets_through_twenty_percent_loss_within_30_seconds() {
    let Some(net) = wire() else { return };
    net.lose(20);
    let (a, b) = (net.start(A, &net.file(A, &[B])), net.start(B, &net.file(B, &[A])));
    a.wait_up_within(seconds(30));
    b.wait_up_within(seconds(30));
}

#[test]
#[ignore = "long: LINKSPAN_LONG=1 tests/run"]
fn ten_megabytes_arrive_intact_at_one_percent_loss() {
    ten_megabytes_arrive_intact(1);
}
