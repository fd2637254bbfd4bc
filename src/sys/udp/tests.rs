//! Over loopback, with the kernel's real answers.

use super::send::UDP_MAX;
use super::*;
use crate::sys::netns::tests::{in_own_network, ip};
use crate::sys::poll::{poll, writable};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// What one run was, with its bytes kept.
#[derive(Debug)]
struct Run {
    bytes: Vec<u8>,
    stride: usize,
    from: SocketAddr,
    to: Option<Local>,
    ecn: u8,
}

/// In a network of its own, since the host's loopback may have no IPv6. Without root, on the host's all the same.
fn between(workers: usize, test: fn(&Group, &Group)) {
    let test = move || test(&group(1), &group(workers));
    if nix::unistd::geteuid().is_root() {
        in_own_network(test);
    } else {
        test();
    }
}

fn received(socket: &Socket) -> Vec<Run> {
    let mut buffers = Receive::new();
    if !poll(&[socket.as_fd()], PATIENCE).unwrap().any() {
        return Vec::new();
    }
    socket.receive(&mut buffers).unwrap();
    let keep = |run: Received<'_>| Run {
        bytes: run.bytes.to_vec(),
        stride: run.stride,
        from: run.from,
        to: run.to,
        ecn: run.ecn,
    };
    buffers.runs().map(keep).collect()
}

fn one(socket: &Socket) -> Run {
    let mut runs = received(socket);
    assert_eq!(runs.len(), 1, "strides {:?}", runs.iter().map(|run| run.stride).collect::<Vec<_>>());
    runs.remove(0)
}

fn joined(socket: &Socket) -> Vec<u8> {
    received(socket).into_iter().flat_map(|run| run.bytes).collect()
}

fn is_empty(socket: &Socket) -> bool {
    socket.receive(&mut Receive::new()).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn group(workers: usize) -> Group {
    bind(0, workers, 0).unwrap()
}

fn v4(group: &Group) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, group.port).into()
}

fn v6(group: &Group) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, group.port).into()
}

/// Both families of the sending group, with the receiving socket and its address.
fn pairs<'g>(from: &'g Group, to: &'g Group) -> [(&'g Socket, &'g Socket, SocketAddr); 2] {
    [(&from.v4[0], &to.v4[0], v4(to)), (&from.v6[0], &to.v6[0], v6(to))]
}

fn numbered(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[test]
fn a_burst_goes_and_comes_in_one_piece() {
    between(1, |a, b| {
        for (sender, receiver, to) in pairs(a, b) {
            let bytes = numbered(1452 * 40);
            assert_eq!(sender.send(&bytes, 1452, to, None, 0).unwrap(), SendOk { source_stale: false });
            let run = one(receiver);
            assert_eq!((run.stride, run.bytes.len()), (1452, bytes.len()));
            assert!(run.bytes == bytes);
            assert_eq!(run.from.port(), a.port);
            assert!(!sender.refused.load(std::sync::atomic::Ordering::Relaxed));
        }
    });
}

#[test]
fn the_last_datagram_of_a_burst_may_be_shorter() {
    between(1, |a, b| {
        for (sender, receiver, to) in pairs(a, b) {
            sender.send(&numbered(1000 + 1000 + 48), 1000, to, None, 0).unwrap();
            let run = one(receiver);
            let lengths: Vec<usize> = run.bytes.chunks(run.stride).map(<[u8]>::len).collect();
            assert_eq!(lengths, [1000, 1000, 48]);
        }
    });
}

#[test]
fn the_largest_burst_passes() {
    between(1, |a, b| {
        for (sender, receiver, to) in pairs(a, b) {
            sender.send(&numbered(64 * 1000), 1000, to, None, 0).unwrap();
            assert_eq!(one(receiver).bytes.len(), 64_000);
            sender.send(&numbered(MAX_BYTES), 1452, to, None, 0).unwrap();
            assert_eq!(one(receiver).bytes.len(), MAX_BYTES);
            sender.send(&numbered(UDP_MAX), UDP_MAX, to, None, 0).unwrap();
            assert_eq!(one(receiver).bytes.len(), UDP_MAX);
        }
    });
}

#[test]
fn single_and_empty_datagrams_pass() {
    between(1, |a, b| {
        for (sender, receiver, to) in pairs(a, b) {
            sender.send(b"one", 1452, to, None, 0).unwrap();
            let run = one(receiver);
            assert_eq!((run.bytes.as_slice(), run.stride), (b"one".as_slice(), 3));
            sender.send(b"", 1452, to, None, 0).unwrap();
            assert_eq!(one(receiver).bytes, b"");
        }
    });
}

#[test]
fn several_sends_are_received_by_one_call_in_order() {
    between(1, |a, b| {
        for (sender, receiver, to) in pairs(a, b) {
            // All four may not be there yet when it is called; then once more.
            assert!((0..10).any(|_| four_are_received_in_order(sender, receiver, to) == 1));
        }
    });
}

/// By how many calls.
fn four_are_received_in_order(sender: &Socket, receiver: &Socket, to: SocketAddr) -> usize {
    for n in 0..4_u8 {
        sender.send(&[n; 100], 100, to, None, n % 4).unwrap();
    }
    let (mut runs, mut calls) = (Vec::new(), 0);
    while runs.len() < 4 && calls < 4 {
        runs.extend(received(receiver));
        calls += 1;
    }
    assert_eq!(runs.iter().map(|run| run.bytes[0]).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(runs.iter().map(|run| run.ecn).collect::<Vec<_>>(), [0, 1, 2, 3]);
    calls
}

#[test]
fn ecn_bits_go_both_ways_with_and_without_segmentation() {
    between(1, |a, b| {
        for (sender, receiver, to) in pairs(a, b).into_iter().chain(pairs(b, a)) {
            for ecn in 0..=3 {
                sender.send(&[0; 100], 100, to, None, ecn).unwrap();
                assert_eq!(one(receiver).ecn, ecn);
                sender.send(&[0; 300], 100, to, None, ecn).unwrap();
                assert_eq!(one(receiver).ecn, ecn);
            }
        }
    });
}

#[test]
fn the_local_address_and_interface_are_told_and_taken_back() {
    between(1, |a, b| {
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        for (sender, receiver, to) in pairs(a, b) {
            sender.send(b"there", 5, to, None, 0).unwrap();
            let run = one(receiver);
            assert_eq!(run.to, Some((to.ip(), loopback)));
            let sent = receiver.send(b"back", 4, run.from, run.to, 0).unwrap();
            assert!(!sent.source_stale);
            let answer = one(sender);
            assert_eq!((answer.from, answer.bytes.as_slice()), (to, b"back".as_slice()));
        }
    });
}

#[test]
fn the_source_address_is_the_one_asked_for() {
    between(1, |a, b| {
        for interface in [0, nix::net::if_::if_nametoindex("lo").unwrap()] {
            let source = (Ipv4Addr::new(127, 0, 0, 9).into(), interface);
            a.v4[0].send(&[7; 900], 300, v4(b), Some(source), 0).unwrap();
            assert_eq!(one(&b.v4[0]).from, (Ipv4Addr::new(127, 0, 0, 9), a.port).into());
        }
    });
}

#[test]
fn a_vanished_source_is_left_out_and_segmentation_stays() {
    between(1, |a, b| {
        let gone: [IpAddr; 2] = ["192.0.2.77".parse().unwrap(), "2001:db8::77".parse().unwrap()];
        for ((sender, receiver, to), address) in pairs(a, b).into_iter().zip(gone) {
            for source in [(address, 0), (to.ip(), 0x7FFF_FFFF)] {
                for bytes in [&[1; 100][..], &[1; 300]] {
                    let sent = sender.send(bytes, 100, to, Some(source), 0).unwrap();
                    assert!(sent.source_stale, "{source:?}");
                    assert_eq!(one(receiver).bytes, bytes);
                }
            }
            assert!(!sender.refused.load(std::sync::atomic::Ordering::Relaxed));
        }
    });
}

/// A socket that sends no checksums cannot segment: EINVAL, and all else goes through.
fn without_checksums(sender: &Socket, receiver: &Socket) {
    const UDP_NO_CHECK6_TX: libc::c_int = 101;
    const UDP_NO_CHECK6_RX: libc::c_int = 102;
    if sender.is_ipv4() {
        set_option(&sender.inner, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    } else {
        set_option(&sender.inner, libc::SOL_UDP, UDP_NO_CHECK6_TX, 1).unwrap();
        set_option(&receiver.inner, libc::SOL_UDP, UDP_NO_CHECK6_RX, 1).unwrap();
    }
}

#[test]
fn where_the_kernel_refuses_to_segment_datagrams_go_one_by_one() {
    between(1, |a, b| {
        for (sender, receiver, to) in pairs(a, b) {
            without_checksums(sender, receiver);
            for _ in 0..2 {
                assert_eq!(sender.send(&numbered(250), 100, to, None, 0).unwrap(), SendOk::default());
                let got = joined(receiver);
                assert_eq!(got, numbered(250));
                assert!(sender.refused.load(std::sync::atomic::Ordering::Relaxed));
            }
            assert!(sender.refusals.lock().holds(to.ip(), 100, std::time::Instant::now()));
            assert!(!sender.refusals.lock().holds(to.ip(), 99, std::time::Instant::now()));
        }
    });
}

#[test]
fn a_wrong_source_and_a_refused_segmentation_are_told_apart() {
    between(1, |a, b| {
        let (sender, receiver) = (&a.v4[0], &b.v4[0]);
        without_checksums(sender, receiver);
        let gone = (Ipv4Addr::new(192, 0, 2, 77).into(), 0);
        assert!(sender.send(&numbered(250), 100, v4(b), Some(gone), 0).unwrap().source_stale);
        let got = joined(receiver);
        assert_eq!(got, numbered(250));
        assert!(sender.refused.load(std::sync::atomic::Ordering::Relaxed));
        let good = (Ipv4Addr::LOCALHOST.into(), 0);
        assert!(!sender.send(&numbered(250), 100, v4(b), Some(good), 0).unwrap().source_stale);
    });
}

#[test]
fn without_a_route_a_send_is_refused() {
    in_own_network(|| {
        let a = group(1);
        for to in ["192.0.2.1:9", "[2001:db8::1]:9"] {
            let to: SocketAddr = to.parse().unwrap();
            let socket = if to.is_ipv4() { &a.v4[0] } else { &a.v6[0] };
            for bytes in [100, 300] {
                let error = socket.send(&vec![0; bytes], 100, to, None, 0).unwrap_err();
                assert!(matches!(error.why, SendError::Refused(_)), "{error}");
            }
        }
    });
}

#[test]
fn datagrams_above_the_device_mtu_go_in_fragments_and_smaller_ones_are_still_segmented() {
    in_own_network(|| {
        ip("link set lo mtu 1400");
        let (a, b) = (group(1), group(1));
        for (sender, receiver, to) in pairs(&a, &b) {
            sender.send(&numbered(4 * 1452), 1452, to, None, 0).unwrap();
            let got = joined(receiver);
            assert!(got == numbered(4 * 1452));
            assert!(sender.refusals.lock().holds(to.ip(), 1452, std::time::Instant::now()));
            sender.send(&numbered(4 * 1200), 1200, to, None, 0).unwrap();
            assert_eq!(one(receiver).stride, 1200);
        }
    });
}

#[test]
fn full_buffers_are_busy_and_the_socket_is_not_writable() {
    in_own_network(|| {
        ip("link add ls-a type veth peer name ls-b");
        ip("addr add 198.51.100.1/24 dev ls-a");
        ip("link set ls-b up");
        ip("link set ls-a up");
        ip("neigh add 198.51.100.2 lladdr 02:00:00:00:00:02 dev ls-a nud permanent");
        let slow = "qdisc add dev ls-a root tbf rate 8kbit burst 2000 limit 10000000";
        assert!(std::process::Command::new("tc").args(slow.split(' ')).status().unwrap().success());
        let group = group(1);
        let send = |_| group.v4[0].send(&[0; 60_000], 1000, "198.51.100.2:9".parse().unwrap(), None, 0);
        let error = (0..1000).map(send).find_map(Result::err).unwrap();
        assert!(matches!(error, Unsent { sent: 0, why: SendError::Busy }), "{error}");
        assert!(!writable(group.v4[0].as_fd(), Duration::from_millis(5)).unwrap());
        assert!(writable(group.v6[0].as_fd(), Duration::ZERO).unwrap());
        assert!(!group.v4[0].refused.load(std::sync::atomic::Ordering::Relaxed));
    });
}

#[test]
fn threads_may_share_a_socket() {
    fn shared<T: Send + Sync>() {}
    shared::<Socket>();
}

#[test]
fn a_link_local_peer_is_reached_by_its_scope() {
    in_own_network(|| {
        ip("link add ls-a type veth peer name ls-b");
        ip("link set ls-a up");
        ip("link set ls-b up");
        ip("addr add fe80::aaaa/64 dev ls-a nodad");
        ip("addr add fe80::bbbb/64 dev ls-b nodad");
        let (a, b) = (group(1), group(1));
        let index = |name: &str| nix::net::if_::if_nametoindex(name).unwrap();
        let address = |last: u16, port, name| {
            SocketAddr::from(std::net::SocketAddrV6::new(
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last),
                port,
                0,
                index(name),
            ))
        };
        let source = Some((address(0xaaaa, 0, "ls-a").ip(), index("ls-a")));
        a.v6[0].send(b"hello", 5, address(0xbbbb, b.port, "ls-a"), source, 2).unwrap();
        let run = one(&b.v6[0]);
        assert_eq!(run.from, address(0xaaaa, a.port, "ls-b"));
        assert_eq!(run.to, Some((address(0xbbbb, 0, "ls-b").ip(), index("ls-b"))));
        assert_eq!(run.ecn, 2);
        assert!(!b.v6[0].send(b"back", 4, run.from, run.to, 0).unwrap().source_stale);
        assert_eq!(one(&a.v6[0]).bytes, b"back");
    });
}

/// Transport data for the worker `worker`, of `len` bytes.
fn transport(worker: u8, len: usize) -> Vec<u8> {
    let mut datagram = vec![0xAA; len];
    datagram[..8].copy_from_slice(&[4, 0, 0, 0, 0x11, worker, 0x22, 0x33]);
    datagram
}

#[test]
fn transport_data_goes_to_the_socket_of_its_worker() {
    between(4, |a, b| {
        for (sender, sockets, to) in [(&a.v4[0], &b.v4, v4(b)), (&a.v6[0], &b.v6, v6(b))] {
            for worker in [0, 1, 2, 3, 4, 7, 254, 255_u8] {
                for datagrams in [1, 2, 40] {
                    let burst = transport(worker, 1452).repeat(datagrams);
                    sender.send(&burst, 1452, to, None, 0).unwrap();
                    let (chosen, others) = (usize::from(worker) % 4, (0..4).filter(|i| *i != usize::from(worker) % 4));
                    let got: usize = received(&sockets[chosen]).iter().map(|run| run.bytes.len()).sum();
                    assert_eq!(got, burst.len(), "worker {worker}, {datagrams} datagrams");
                    assert!(others.into_iter().all(|i| is_empty(&sockets[i])));
                }
            }
        }
    });
}

#[test]
fn all_else_goes_to_the_first_socket() {
    between(4, |a, b| {
        let cut = [vec![4], vec![4, 0, 0, 0, 9], vec![0, 3]];
        let handshakes = [1, 2, 3, 5, 255].map(|kind| [&[kind], &transport(3, 148)[1..]].concat());
        for (sender, sockets, to) in [(&a.v4[0], &b.v4, v4(b)), (&a.v6[0], &b.v6, v6(b))] {
            for datagram in cut.iter().chain(&handshakes) {
                sender.send(datagram, datagram.len(), to, None, 0).unwrap();
                assert_eq!(one(&sockets[0]).bytes, *datagram);
                assert!(sockets[1..].iter().all(|socket| is_empty(socket)));
            }
        }
    });
}

#[test]
fn three_workers_are_steered_too() {
    between(3, |a, b| {
        for worker in 0..6 {
            a.v4[0].send(&transport(worker, 100), 100, v4(b), None, 0).unwrap();
            assert_eq!(one(&b.v4[usize::from(worker) % 3]).bytes[5], worker);
        }
    });
}
