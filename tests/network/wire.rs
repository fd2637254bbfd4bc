//! What an eavesdropper and a CPU meter see.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::time::Instant;

use crate::harness::net::Links;
use crate::harness::packets::{noise, udp_ecn};
use crate::harness::stream::{PACED, Stream};
use crate::harness::traffic::{learn_path_mtu, pings_pass, tcp_transfer, udp_echo};
use crate::harness::*;

const MTU: usize = 1420;

/// Type, reserved bytes, then: 148, 92, 64, or transport data in steps of 16, or the full size.
fn is_hygienic(payload: &[u8]) -> bool {
    match (payload.first(), payload.len()) {
        (Some(1), 148) | (Some(2), 92) | (Some(3), 64) => true,
        (Some(4), length) => length >= 32 && (length % 16 == 0 || length == MTU + 32) && length <= MTU + 32,
        _ => false,
    }
}

#[test]
fn every_length_on_the_wire_is_padded() {
    let Some(net) = Net::new(2, Links { single_datagrams: true, ..Links::default() }) else { return };
    let uplink = Capture::start(&net.internet, "u1");
    let (_a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let (here, far) = (net.site(A), net.site(B));
    for (from, to) in [(here.lan4(), far.lan4()), (here.lan6(), far.lan6())] {
        learn_path_mtu(&here.lan, to, 1500);
        learn_path_mtu(&far.lan, from, 1500);
        udp_echo(&here.lan, &far.lan, to, (0..1500).step_by(13));
        tcp_transfer(&here.lan, &far.lan, to, &noise(27, 1 << 20), seconds(10));
        pings_pass(&here.lan, to, &["-c", "1", "-s", "1372"]);
    }
    let frames = uplink.stop();
    let datagrams: Vec<_> = frames.iter().filter_map(capture::Frame::udp).collect();
    assert!(datagrams.len() > 1000, "{}", datagrams.len());
    let bad: Vec<usize> = datagrams.iter().map(|d| &d.payload).filter(|p| !is_hygienic(p)).map(Vec::len).collect();
    assert!(bad.is_empty(), "{} of {}: {:?}", bad.len(), datagrams.len(), &bad[..bad.len().min(10)]);
    assert!(datagrams.iter().any(|datagram| datagram.payload.len() == MTU + 32), "full packets were among them");
}

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// RFC 6040, figure 4: rows are the inner, columns the outer Not-ECT, ECT(0), ECT(1), CE; none = dropped.
const DECAPSULATION: [(u8, [Option<u8>; 4]); 4] = [
    (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
    (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
    (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
    (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
];

/// Sends each inner with each outer through a stock peer; what reaches A's LAN must be the table.
#[test]
fn congestion_marks_are_decapsulated_as_rfc_6040_says() {
    let Some(net) = Net::two_sites() else { return };
    let (here, far) = (net.site(A), net.site(B));
    let a = net.start(A, &net.file(A, &[B]));
    for (source, outer_v6) in [(far.endpoint4(), false), (far.endpoint6(), true)] {
        let remote = if outer_v6 { here.endpoint6() } else { here.endpoint4() };
        let mut peer = WgPeer::connect(&far.gateway, source, &far.key, (remote, here.public()));
        a.wait_up();
        for (from, to) in [(far.lan4(), here.lan4()), (far.lan6(), here.lan6())] {
            decapsulates(&net, &mut peer, from, to);
        }
    }
    assert_eq!(a.state().dropped("in_ecn"), 4);
}

fn decapsulates(net: &Net, peer: &mut WgPeer, from: IpAddr, to: IpAddr) {
    for (inner, row) in DECAPSULATION {
        for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
            let lan = Capture::start(net.lan(A), "lan");
            let payload = [&[inner, outer][..], b"the one"].concat();
            peer.set_ecn(outer);
            peer.send(&udp_ecn(from, to, inner, &payload));
            // What comes behind it shows that it was dealt with; it is longer, so that the two are not merged.
            peer.set_ecn(NOT_ECT);
            peer.send(&udp_ecn(from, to, NOT_ECT, b"the packet behind"));
            let find = |wanted: &[u8]| {
                let wanted = wanted.to_vec();
                move |frame: &capture::Frame| frame.udp().filter(|d| d.payload == wanted).map(|d| d.ecn)
            };
            assert_eq!(
                lan.wait(
                    &format!("the packet behind inner {inner}, outer {outer}, from {from}"),
                    find(b"the packet behind")
                ),
                NOT_ECT
            );
            let heard = lan.stop().iter().find_map(find(&payload));
            assert_eq!(heard, expected, "inner {inner}, outer {outer}, from {from}");
        }
    }
}

/// RFC 6040, figure 3, normal mode: the outer header copies the inner field.
#[test]
fn congestion_marks_are_copied_to_the_outer_header() {
    let Some(net) = Net::two_sites() else { return };
    let (_a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    let (here, far) = (net.site(A), net.site(B));
    let tun = Port::open(&here.gateway, file::INTERFACE);
    for (from, to) in [(here.lan4(), far.lan4()), (here.lan6(), far.lan6())] {
        for ecn in [NOT_ECT, ECT_1, ECT_0, CE] {
            let (uplink, lan) = (Capture::start(&here.gateway, "wan"), Capture::start(&far.lan, "lan"));
            let payload = [ecn; 600];
            tun.send(&udp_ecn(from, to, ecn, &payload));
            let arrived = lan.wait("the packet", |frame| frame.udp().filter(|d| d.payload == payload).map(|d| d.ecn));
            assert_eq!(arrived, ecn);
            // Only it is that long.
            let outer =
                uplink.wait("its datagram", |frame| frame.udp().filter(|d| d.payload.len() > 600).map(|d| d.ecn));
            assert_eq!(outer, ecn, "from {from}");
        }
    }
}

#[test]
fn an_idle_tunnel_wakes_up_at_most_five_times_a_second() {
    let Some(net) = Net::two_sites() else { return };
    // Each worker has two threads that show at least every 2.5 s that they live, whatever the path.
    let (a, _b) = net.link(&net.file(A, &[B]).with("workers = 2"), &net.file(B, &[A]));
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "1"]);
    // What is measured is time without traffic.
    let (start, before) = (Instant::now(), wake_ups(a.pid()));
    std::thread::sleep(seconds(10));
    let (after, lasted) = (wake_ups(a.pid()), start.elapsed().as_secs_f64());
    let rate = |thread: &String| (after[thread] - before.get(thread).unwrap_or(&0)) as f64 / lasted;
    let each: BTreeMap<&String, f64> = after.keys().map(|thread| (thread, rate(thread))).collect();
    assert!(each.values().sum::<f64>() <= 5.0, "wake-ups/s: {each:.1?}");
}

/// How often each thread of a process went to sleep so far.
fn wake_ups(pid: u32) -> BTreeMap<String, u64> {
    let of_thread = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some((field("Name:")?.to_owned(), field("voluntary_ctxt_switches:")?.parse().ok()?))
    };
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().filter_map(of_thread).collect()
}

/// In `/proc/PID/task/TID/stat`: SCHED_OTHER and SCHED_BATCH (linux/sched.h).
const OTHER: &str = "0";
const BATCH: &str = "3";

/// On kernels with slices; on others nobody lets others go first.
#[test]
fn without_load_the_inbound_threads_and_only_they_let_others_go_first() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]).with("workers = 2"), &net.file(B, &[A]));
    let wait_for = |what: &str, wanted: &dyn Fn(&[String]) -> bool| {
        eventually(seconds(20), what, || {
            let (inbound, others) = policies(a.pid());
            assert!(others.iter().all(|policy| policy == OTHER), "{others:?}");
            (inbound.len() == 2 && wanted(&inbound)).then_some(())
        });
    };
    let idle = if has_slices() { BATCH } else { OTHER };
    let patient = |inbound: &[String]| inbound.iter().all(|policy| policy == idle);
    wait_for("patience", &patient);
    let load = Stream::start(net.lan(A), net.lan(B), net.site(B).lan4(), 100 * PACED);
    // A worker without traffic of its own may sleep through it.
    wait_for("no patience under load", &|inbound| inbound.iter().any(|policy| policy == OTHER));
    load.finish();
    wait_for("patience after it", &patient);
}

/// Whether a thread may ask for a time slice, so that patience costs little (Linux 6.12 and later).
fn has_slices() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

/// The scheduling policies of a process' inbound threads, and of its others.
fn policies(pid: u32) -> (Vec<String>, Vec<String>) {
    let of_thread = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        // The 41st field; the state behind the name is the third.
        Some((name.starts_with("inbound"), rest.split_whitespace().nth(38)?.to_owned()))
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().filter_map(of_thread);
    let (inbound, others): (Vec<_>, Vec<_>) = threads.partition(|(inbound, _)| *inbound);
    let policy = |(_, policy)| policy;
    (inbound.into_iter().map(policy).collect(), others.into_iter().map(policy).collect())
}
