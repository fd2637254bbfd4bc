//! Real devices, each in a network namespace of its own.

use super::*;
use crate::sys::netns::tests::{in_own_network, ip};
use crate::sys::poll::poll;
use std::net::UdpSocket;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
const NAME: &str = "ls-tun";

/// A device with an address, up; its MTU is 1,420.
fn device(queues: usize, offload: bool) -> Device {
    let device = open(NAME, queues, offload).unwrap();
    for arguments in ["link set ls-tun mtu 1420", "addr add 198.51.100.1/24 dev ls-tun", "link set ls-tun up"] {
        ip(arguments);
    }
    device
}

/// The next UDP packet over IPv4 from any queue, header included; router solicitations and such are passed over.
fn next_packet(device: &Device) -> Vec<u8> {
    let fds: Vec<BorrowedFd<'_>> = device.queues.iter().map(AsFd::as_fd).collect();
    let mut buffer = vec![0; HEADER + 65_536];
    loop {
        let ready = poll(&fds, PATIENCE).unwrap();
        assert!(ready.any(), "no packet came");
        let queue = (0..fds.len()).find(|i| ready.has(*i)).unwrap();
        let length = device.queues[queue].read(&mut buffer).unwrap();
        if buffer[HEADER] == 0x45 && buffer[HEADER + 9] == 17 {
            return buffer[..length].to_vec();
        }
    }
}

/// At the latest when a program that another test is starting lets go of the queues.
fn is_gone() -> bool {
    let look = |_| {
        std::thread::sleep(Duration::from_millis(10));
        if_nametoindex(NAME).is_err()
    };
    (0..200).any(look)
}

/// `packet` with source and destination of both layers changed, as an answer. Sums stay right: they only add.
fn answer(packet: &[u8]) -> Vec<u8> {
    let mut answer = packet.to_vec();
    for (a, b, length) in [(12, 16, 4), (20, 22, 2)] {
        answer[a..a + length].copy_from_slice(&packet[b..b + length]);
        answer[b..b + length].copy_from_slice(&packet[a..a + length]);
    }
    answer
}

#[test]
fn packets_come_and_go_with_their_header() {
    in_own_network(|| {
        let device = device(2, false);
        assert_eq!((device.queues.len(), device.offloads), (2, Offloads::default()));
        let socket = UdpSocket::bind("198.51.100.1:0").unwrap();
        socket.send_to(b"ping", "198.51.100.2:9").unwrap();
        let packet = next_packet(&device);
        assert_eq!((packet.len(), &packet[..HEADER]), (HEADER + 32, &[0; HEADER][..]));
        assert!(packet.ends_with(b"ping"));
        let answer = answer(&packet[HEADER..]);
        let (head, tail) = answer.split_at(21);
        let pieces = [IoSlice::new(&packet[..HEADER]), IoSlice::new(head), IoSlice::new(tail)];
        assert_eq!(device.queues[1].write(&pieces).unwrap(), packet.len());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (b"ping".as_slice(), "198.51.100.2:9".parse().unwrap()));
    });
}

#[test]
fn a_udp_burst_comes_as_one_super_packet_where_that_is_granted() {
    in_own_network(|| {
        let device = device(1, true);
        assert!(device.offloads.tcp);
        let group = crate::sys::udp::bind(0, 1, 0).unwrap();
        group.v4[0].send(&[5; 10_000], 1000, "198.51.100.2:9".parse().unwrap(), None, 0).unwrap();
        let packet = next_packet(&device);
        if device.offloads.udp {
            let udp_segmentation = 5; // VIRTIO_NET_HDR_GSO_UDP_L4
            assert_eq!((packet[1], packet.len()), (udp_segmentation, HEADER + 28 + 10_000));
            assert_eq!(packet[4..6], 1000_u16.to_ne_bytes());
        } else {
            assert_eq!((packet[1], packet.len()), (0, HEADER + 28 + 1000));
        }
    });
}

#[test]
fn an_empty_queue_would_block() {
    in_own_network(|| {
        let device = device(1, true);
        let mut buffer = [0; 2000];
        let end = loop {
            if let Err(error) = device.queues[0].read(&mut buffer) {
                break error;
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn the_index_is_that_of_the_interface() {
    in_own_network(|| {
        let device = open(NAME, 3, true).unwrap();
        let path = format!("/proc/self/task/{}/net/dev", nix::unistd::gettid());
        assert!(std::fs::read_to_string(path).unwrap().contains(NAME));
        assert_eq!(device.index, if_nametoindex(NAME).unwrap());
        assert_eq!(device.name, NAME);
        drop(device);
        assert!(is_gone(), "the interface goes with its queues");
    });
}

#[test]
fn an_interface_that_exists_is_not_taken_over() {
    in_own_network(|| {
        let _first = open(NAME, 2, true).unwrap();
        let error = open(NAME, 1, true).unwrap_err();
        assert!(matches!(&error, TunError::Exists(name) if name == NAME), "{error}");
        assert!(error.to_string().contains("ip link del ls-tun"));
        assert!(matches!(open("lo", 1, true), Err(TunError::Exists(_))));
    });
}

#[test]
fn a_deleted_interface_is_told_by_ebadfd() {
    in_own_network(|| {
        let device = device(2, true);
        ip("link del ls-tun");
        for queue in &device.queues {
            assert!(poll(&[queue.as_fd()], PATIENCE).unwrap().any());
            let error = queue.read(&mut [0; 100]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
            let error = queue.write(&[IoSlice::new(&[0; 30])]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
        }
    });
}

#[test]
fn too_many_queues_leave_nothing_behind() {
    in_own_network(|| {
        let error = open(NAME, 300, true).unwrap_err();
        assert!(matches!(error, TunError::Io { step: "attach", .. }), "{error}");
        assert!(is_gone());
    });
}

#[test]
fn without_privileges_the_remedy_is_named() {
    in_own_network(|| {
        let none = caps::CapsHashSet::new();
        caps::set(None, caps::CapSet::Effective, &none).unwrap();
        let error = open(NAME, 1, true).unwrap_err();
        assert!(matches!(error, TunError::NotPermitted), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"));
    });
}

#[test]
fn threads_may_share_a_queue() {
    fn shared<T: Send + Sync>() {}
    shared::<Queue>();
}

#[test]
fn names_that_linux_does_not_take_are_refused_first() {
    for name in ["", ".", "..", "a/b", "a:b", "tun%d", "a b", "a\n", "a\0", "sixteen-bytes-xx"] {
        let error = open(name, 1, true).unwrap_err();
        assert!(matches!(error, TunError::BadName(_)), "{name:?}: {error}");
        assert!(!error.to_string().contains('\n'));
    }
    assert!(check_name("fifteen-bytes-x").is_ok());
}

#[test]
fn a_missing_driver_is_told_from_a_missing_right() {
    let error = |errno| no_file(NAME)(io::Error::from_raw_os_error(errno));
    assert!(matches!(error(libc::ENOENT), TunError::NoDevice));
    assert!(matches!(error(libc::ENODEV), TunError::NoDevice));
    assert!(matches!(error(libc::EACCES), TunError::Closed));
    assert!(matches!(error(libc::EPERM), TunError::NotPermitted));
    assert!(matches!(error(libc::EMFILE), TunError::Io { .. }));
    assert!(error(libc::EMFILE).to_string().contains("ulimit -n"));
    assert!(not_attached(NAME, Errno::E2BIG).to_string().contains("fewer workers"));
    assert!(TunError::NoDevice.to_string().contains("modprobe tun"));
    assert!(TunError::Closed.to_string().contains("chmod 666 /dev/net/tun"));
}
