//! Raw packets on an interface: hearing all of them, and sending any.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, SockaddrLike as _, bind, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::eventually;
use super::host::Host;

const ETH_P_ALL: u16 = 3;
const ETHERNET: usize = 14;
/// More frames than wait in the largest buffer.
const AT_THE_END: usize = 1 << 19;

/// A packet socket on one interface.
pub struct Port {
    socket: Socket,
    /// Bytes before the IP header: 14 on Ethernet, 0 on a TUN.
    link_header: usize,
}

/// One packet as it was on the interface, sent or received.
#[derive(Clone)]
pub struct Frame {
    bytes: Vec<u8>,
    link_header: usize,
}

/// A UDP datagram in a [`Frame`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub payload: Vec<u8>,
    /// The two ECN bits of its IP header.
    pub ecn: u8,
}

/// Every protocol on the interface with this index. An interface like a TUN has no address to start from.
fn link_address(index: u32) -> LinkAddr {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap(),
        sll_protocol: ETH_P_ALL.to_be(),
        sll_ifindex: i32::try_from(index).unwrap(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = u32::try_from(size_of_val(&address)).unwrap();
    // SAFETY: the pointer is to a whole sockaddr_ll of that length, whose family says so; it is copied.
    unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(len)) }.unwrap()
}

fn has_ethernet(interface: &str) -> bool {
    let mut all = nix::ifaddrs::getifaddrs().unwrap().filter(|each| each.interface_name == interface);
    all.any(|each| each.address.is_some_and(|a| a.as_link_addr().is_some_and(|link| link.halen() == 6)))
}

/// Hears everything on an interface until dropped.
pub struct Capture {
    frames: Arc<Mutex<Vec<Frame>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Port {
    pub fn open(host: &Host, interface: &str) -> Self {
        host.run(|| Self::open_here(interface))
    }

    fn open_here(interface: &str) -> Self {
        let index = if_nametoindex(interface).unwrap_or_else(|_| panic!("no interface {interface}"));
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
        // Nothing may be missed while a test looks elsewhere.
        setsockopt(&socket, sockopt::RcvBufForce, &(128 << 20)).unwrap();
        bind(socket.as_raw_fd(), &link_address(index)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let link_header = if has_ethernet(interface) { ETHERNET } else { 0 };
        Self { socket, link_header }
    }

    /// Sends one packet as it is: an Ethernet frame, or on a TUN a bare IP packet (or what claims to be one).
    pub fn send(&self, bytes: &[u8]) {
        eventually(Duration::from_secs(5), "the interface takes a packet", || match (&self.socket).write(bytes) {
            Ok(_) => Some(()),
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => None,
            Err(e) => panic!("{e}"),
        });
    }

    fn receive(&self, buffer: &mut [u8]) -> Option<Frame> {
        let length = (&self.socket).read(buffer).ok()?;
        Some(Frame { bytes: buffer[..length].to_vec(), link_header: self.link_header })
    }
}

impl Capture {
    /// Hears all that passes `interface` from now on.
    pub fn start(host: &Host, interface: &str) -> Self {
        let port = Port::open(host, interface);
        let (frames, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (to, stopped) = (Arc::clone(&frames), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 17];
            let mut hear = || port.receive(&mut buffer).map(|frame| to.lock().unwrap().push(frame));
            while !stopped.load(Ordering::Relaxed) {
                hear();
            }
            // What is under way still comes, and what goes on for ever is not waited for. All that waits then is taken.
            let end = Instant::now() + Duration::from_secs(1);
            while Instant::now() < end && hear().is_some() {}
            port.socket.set_nonblocking(true).unwrap();
            let _ = (0..AT_THE_END).find(|_| hear().is_none());
        });
        Self { frames, stop, thread: Some(thread) }
    }

    /// All frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.frames.lock().unwrap().clone()
    }

    /// Ends it: all frames there were.
    pub fn stop(mut self) -> Vec<Frame> {
        self.join();
        std::mem::take(&mut *self.frames.lock().unwrap())
    }

    /// The first thing that `pick` finds, within 10 s.
    pub fn wait<T>(&self, what: &str, pick: impl Fn(&Frame) -> Option<T>) -> T {
        eventually(Duration::from_secs(10), what, || self.frames.lock().unwrap().iter().find_map(&pick))
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.join();
    }
}

impl Frame {
    /// From the IP header on; for ARP and the like, whatever it is.
    pub fn packet(&self) -> &[u8] {
        self.bytes.get(self.link_header..).unwrap_or_default()
    }

    /// Its Ethernet header, if it goes to this IP address.
    pub fn ethernet_to(&self, address: std::net::IpAddr) -> Option<Vec<u8>> {
        let (_, to) = self.addresses()?;
        (to == address).then(|| self.bytes[..self.link_header].to_vec())
    }

    pub fn contains(&self, pattern: &[u8]) -> bool {
        self.bytes.windows(pattern.len()).any(|window| window == pattern)
    }

    /// Source and destination, if it is IP.
    pub fn addresses(&self) -> Option<(std::net::IpAddr, std::net::IpAddr)> {
        match SlicedPacket::from_ip(self.packet()).ok()?.net? {
            NetSlice::Ipv4(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
            NetSlice::Ipv6(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
            NetSlice::Arp(_) => None,
        }
    }

    /// The two ECN bits of its IP header.
    pub fn ecn(&self) -> Option<u8> {
        match SlicedPacket::from_ip(self.packet()).ok()?.net? {
            NetSlice::Ipv4(ip) => Some(ip.header().ecn().value()),
            NetSlice::Ipv6(ip) => Some(ip.header().traffic_class() & 3),
            NetSlice::Arp(_) => None,
        }
    }

    /// The UDP datagram in it, unless it is something else or a fragment.
    pub fn udp(&self) -> Option<Datagram> {
        let (from, to) = self.addresses()?;
        let TransportSlice::Udp(udp) = SlicedPacket::from_ip(self.packet()).ok()?.transport? else { return None };
        Some(Datagram {
            from: SocketAddr::new(from, udp.source_port()),
            to: SocketAddr::new(to, udp.destination_port()),
            payload: udp.payload().to_vec(),
            ecn: self.ecn()?,
        })
    }

    /// The maximum segment size that a SYN in it offers.
    pub fn syn_mss(&self) -> Option<u16> {
        let TransportSlice::Tcp(tcp) = SlicedPacket::from_ip(self.packet()).ok()?.transport? else { return None };
        let mss = |option| match option {
            Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        };
        if tcp.syn() { tcp.options_iterator().find_map(mss) } else { None }
    }
}
