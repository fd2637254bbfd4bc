//! Opens the sockets of a port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use parking_lot::Mutex;
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use thiserror::Error;
use tracing::warn;

use super::super::minute::Minute;
use super::super::remedy::remedy;
use super::refusals::Refusals;
use super::room::{self, Room};
use super::{Group, Socket, set_option, steering};

/// Bytes of a socket's send buffer: some 16 full batches, which the device takes in its own time.
const SEND_BUFFER: usize = 1 << 20;
/// The steering names a worker with one byte.
const WORKERS_MAX: usize = 256;
/// How often another port is tried while the kernel chooses one that is taken for IPv6.
const ATTEMPTS: usize = 32;

/// Why there are no sockets.
#[derive(Debug, Error)]
pub enum BindError {
    /// EADDRINUSE.
    #[error("UDP port {port} is in use by another program (maybe a second linkspan): stop it, or set listen_port")]
    InUse {
        /// The wanted port.
        port: u16,
    },
    /// A port below 1024 without CAP_NET_BIND_SERVICE, or a security module.
    #[error("not permitted to use UDP port {port}: set listen_port to 1024 or more, or give it CAP_NET_BIND_SERVICE")]
    NotPermitted {
        /// The wanted port.
        port: u16,
    },
    /// The mark needs CAP_NET_ADMIN.
    #[error("not permitted to set fwmark on the UDP sockets: start as root or give it CAP_NET_ADMIN")]
    MarkNotPermitted,
    /// Anything else.
    #[error("could not set up UDP port {port} ({step}{})", remedy(source))]
    Io {
        /// The wanted port.
        port: u16,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Opens `workers` sockets (1 to 256) for each address family on `port`, on all addresses; 0 = the kernel chooses
/// one that is free for both. `mark` marks what they send, 0 = no mark.
///
/// The first socket is bound without SO_REUSEPORT and gets it afterwards: so another program on the port, even of
/// the same user, is noticed. Datagrams go out without DF, in any size (IP_PMTUDISC_OMIT). What makes receiving faster
/// and is refused is done without, and logged once.
///
/// # Errors
///
/// A [`BindError`]; nothing stays open then.
pub fn bind(port: u16, workers: usize, mark: u32) -> Result<Group, BindError> {
    let attempts = if port == 0 { ATTEMPTS } else { 1 };
    let mut result = Err(BindError::InUse { port });
    for _ in 0..attempts {
        result = Plan::new(port, workers.clamp(1, WORKERS_MAX), mark).open();
        if !matches!(result, Err(BindError::InUse { .. })) {
            break;
        }
    }
    result
}

/// What is to be opened.
struct Plan {
    port: u16,
    workers: usize,
    mark: u32,
    refusal_logged: Arc<Minute>,
    steer: fn(&[socket2::Socket]) -> io::Result<()>,
    /// Why the sockets are not steered.
    not_steered: Option<io::Error>,
}

impl Plan {
    fn new(port: u16, workers: usize, mark: u32) -> Self {
        Self { port, workers, mark, refusal_logged: Arc::default(), steer: steering::attach, not_steered: None }
    }

    fn open(mut self) -> Result<Group, BindError> {
        let group = self.families()?;
        if let Some(error) = self.not_steered {
            warn!(%error, "the kernel refuses to steer datagrams to their workers: slower, all else is the same");
        }
        if !group.sockets().all(|socket| coalesces(&socket.inner)) {
            warn!("the kernel refuses to merge datagrams (UDP_GRO): slower receiving, all else is the same");
        }
        Ok(group)
    }

    fn families(&mut self) -> Result<Group, BindError> {
        let v4 = self.family(Domain::IPV4)?;
        let v6 = match self.family(Domain::IPV6) {
            Err(BindError::Io { source, .. }) if lacks_family(&source) => Vec::new(),
            other => other?,
        };
        Ok(Group { port: self.port, v4, v6 })
    }

    /// In worker order: it is the order in which the kernel numbers the sockets for the steering.
    fn family(&mut self, domain: Domain) -> Result<Vec<Arc<Socket>>, BindError> {
        let first = self.bound(domain, false)?;
        let local = first.0.local_addr().map_err(|error| self.failed("address", error))?;
        self.port = local.as_socket().map_or(self.port, |address| address.port());
        let others = (1..self.workers).map(|_| self.bound(domain, true)).collect::<Result<Vec<_>, _>>()?;
        let (sockets, states): (Vec<_>, Vec<_>) = std::iter::once(first).chain(others).unzip();
        // Any socket takes any message: the steering only keeps a tunnel to one worker.
        self.not_steered = (self.steer)(&sockets).err().or_else(|| self.not_steered.take());
        Ok(sockets.into_iter().zip(states).map(|(inner, state)| self.finish(inner, state, domain)).collect())
    }

    /// All options come first: of a datagram that is there before them, the kernel does not note by which interface
    /// it came.
    fn bound(&self, domain: Domain, join: bool) -> Result<(socket2::Socket, UdpSocketState), BindError> {
        let socket = new(domain, join).map_err(|error| self.failed("open", error))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(|error| self.failed("options", error))?;
        undo(&socket, domain).map_err(|error| self.failed("options", error))?;
        room::start(&socket);
        enlarge_send_buffer(&socket);
        if self.mark != 0 {
            socket.set_mark(self.mark).map_err(|error| self.not_marked(error))?;
        }
        socket.bind(&any(domain, self.port).into()).map_err(|error| self.not_bound(error))?;
        socket.set_reuse_port(true).map_err(|error| self.failed("SO_REUSEPORT", error))?;
        Ok((socket, state))
    }

    fn finish(&self, inner: socket2::Socket, state: UdpSocketState, domain: Domain) -> Arc<Socket> {
        let (refusals, refused) = (Mutex::new(Refusals::default()), AtomicBool::new(false));
        let refusal_logged = self.refusal_logged.clone();
        Arc::new(Socket {
            inner,
            state,
            ipv4: domain == Domain::IPV4,
            room: Room::default(),
            refusals,
            refused,
            refusal_logged,
        })
    }

    fn not_bound(&self, source: io::Error) -> BindError {
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => BindError::InUse { port: self.port },
            Some(libc::EACCES | libc::EPERM) => BindError::NotPermitted { port: self.port },
            _ => self.failed("bind", source),
        }
    }

    fn not_marked(&self, source: io::Error) -> BindError {
        match source.raw_os_error() {
            Some(libc::EPERM) => BindError::MarkNotPermitted,
            _ => self.failed("fwmark", source),
        }
    }

    const fn failed(&self, step: &'static str, source: io::Error) -> BindError {
        BindError::Io { port: self.port, step, source }
    }
}

fn new(domain: Domain, join: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(join)?;
    Ok(socket)
}

fn any(domain: Domain, port: u16) -> SocketAddr {
    if domain == Domain::IPV4 { (Ipv4Addr::UNSPECIFIED, port).into() } else { (Ipv6Addr::UNSPECIFIED, port).into() }
}

/// Whether the host has no IPv6: by configuration of the kernel, at boot, or by sysctl.
fn lacks_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EADDRNOTAVAIL))
}

/// quinn-udp's constructor forces DF, and has each datagram time-stamped: neither is wanted.
fn undo(socket: &socket2::Socket, domain: Domain) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)?;
    if domain == Domain::IPV6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)?;
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)?;
    }
    Ok(())
}

/// Whether the kernel hands over runs of datagrams in one piece, as quinn-udp's constructor asks it to. Before Linux 5.13
/// it does so without saying so.
fn coalesces(socket: &socket2::Socket) -> bool {
    getsockopt(socket, sockopt::UdpGroSegment).unwrap_or(true)
}

/// Beyond the system's limit where permitted, else up to it. A smaller buffer still works, so no failure counts.
fn enlarge_send_buffer(socket: &socket2::Socket) {
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use super::super::Receive;
    use super::*;
    use crate::sys::poll;

    fn option(socket: &Socket, level: libc::c_int, name: libc::c_int) -> libc::c_int {
        let mut value: libc::c_int = -1;
        let mut size: libc::socklen_t = libc::c_int::BITS / 8;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket.inner);
        // SAFETY: the pointers describe `value` and `size`, which live through the call.
        let answer = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut size) };
        assert_eq!(answer, 0);
        value
    }

    #[test]
    fn both_families_share_a_port_chosen_by_the_kernel() {
        let group = bind(0, 3, 0).unwrap();
        assert_ne!(group.port, 0);
        assert_eq!((group.v4.len(), group.v6.len()), (3, 3));
        for socket in group.sockets() {
            assert_eq!(socket.inner.local_addr().unwrap().as_socket().unwrap().port(), group.port);
        }
        assert!(group.v4.iter().all(|socket| socket.is_ipv4()));
        assert!(group.v6.iter().all(|socket| !socket.is_ipv4()));
    }

    #[test]
    fn a_second_program_of_the_same_user_is_refused_though_the_group_shares_the_port() {
        let group = bind(0, 2, 0).unwrap();
        let error = bind(group.port, 2, 0).unwrap_err();
        assert!(matches!(error, BindError::InUse { port } if port == group.port), "{error}");
        assert!(error.to_string().starts_with(&format!("UDP port {} is in use", group.port)));
        let port = group.port;
        drop(group);
        // A program that another test is starting may hold the sockets a little longer.
        let again = |_| {
            std::thread::sleep(Duration::from_millis(10));
            bind(port, 2, 0).is_ok_and(|group| group.port == port)
        };
        assert!((0..200).any(again));
    }

    #[test]
    fn a_port_taken_for_one_family_only_is_refused_too() {
        let other = std::net::UdpSocket::bind("[::]:0").unwrap();
        let port = other.local_addr().unwrap().port();
        assert!(matches!(bind(port, 1, 0), Err(BindError::InUse { .. })));
    }

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn where_the_kernel_refuses_to_steer_the_port_is_open_all_the_same_and_that_is_said_once() {
        let (log, refused) = (Log::default(), |_: &[_]| Err(io::Error::from_raw_os_error(libc::EPERM)));
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let plan = Plan { steer: refused, ..Plan::new(0, 2, 0) };
        let group = tracing::subscriber::with_default(subscriber, || plan.open()).unwrap();
        assert_eq!((group.v4.len(), group.v6.len()), (2, 2));
        let said = String::from_utf8(log.0.lock().clone()).unwrap();
        assert!(said.contains("refuses to steer") && said.lines().count() == 1, "{said}");
    }

    /// As soon as a port is open, somebody sends to it.
    fn knock(sockets: &[socket2::Socket]) -> io::Result<()> {
        let mut to = sockets.first().and_then(|first| first.local_addr().ok()?.as_socket()).unwrap();
        to.set_ip(if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        let from = std::net::UdpSocket::bind(any(Domain::for_address(to), 0))?;
        from.send_to(b"early", to).map(drop)
    }

    #[test]
    fn of_the_first_datagrams_too_it_is_known_where_they_came() {
        let group = Plan { steer: knock, ..Plan::new(0, 1, 0) }.open().unwrap();
        for socket in [&group.v4[0], &group.v6[0]] {
            let mut into = Receive::new();
            assert!(poll::poll(&[socket.as_fd()], Duration::from_secs(5)).unwrap().any());
            socket.receive(&mut into).unwrap();
            let to: Vec<_> = into.runs().map(|run| run.to.unwrap()).collect();
            assert!(to.len() == 1 && to[0].0.is_loopback() && to[0].1 != 0, "{to:?}");
        }
    }

    #[test]
    fn a_refused_coalescing_is_noticed() {
        let socket = new(Domain::IPV4, false).unwrap();
        assert!(!coalesces(&socket));
        set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
        assert!(coalesces(&socket));
    }

    #[test]
    fn datagrams_go_without_df_and_without_time_stamps() {
        let group = bind(0, 2, 0).unwrap();
        for socket in group.sockets() {
            assert_eq!(option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_OMIT);
            assert_eq!(option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS), 0);
            assert_eq!(option(socket, libc::SOL_UDP, libc::UDP_GRO), 1);
        }
        for socket in &group.v6 {
            assert_eq!(option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER), libc::IPV6_PMTUDISC_OMIT);
            assert_eq!(option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG), 0);
            assert_eq!(option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), 1);
        }
    }

    #[test]
    fn root_gets_the_whole_buffers_and_the_mark() {
        crate::sys::netns::tests::in_own_network(|| {
            let group = bind(0, 1, 77).unwrap();
            for socket in group.sockets() {
                assert_eq!(socket.inner.recv_buffer_size().unwrap(), 2 * room::FOR_SINGLES);
                assert_eq!(socket.inner.send_buffer_size().unwrap(), 2 * SEND_BUFFER);
                assert_eq!(socket.inner.mark().unwrap(), 77);
            }
        });
    }

    #[test]
    fn only_a_lack_of_ipv6_is_passed_over() {
        assert!(lacks_family(&io::Error::from_raw_os_error(libc::EAFNOSUPPORT)));
        assert!(!lacks_family(&io::Error::from_raw_os_error(libc::EMFILE)));
    }

    #[test]
    fn each_error_is_one_line_that_names_the_remedy() {
        let plan = Plan::new(500, 1, 0);
        let error = |errno| io::Error::from_raw_os_error(errno);
        let denied = plan.not_bound(error(libc::EACCES)).to_string();
        assert!(denied.contains("listen_port") && denied.contains("500"), "{denied}");
        let marked = plan.not_marked(error(libc::EPERM)).to_string();
        assert!(marked.contains("CAP_NET_ADMIN"), "{marked}");
        let other = plan.failed("steering", error(libc::ENOMEM)).to_string();
        assert!(other.contains("steering") && other.contains("fewer workers") && !other.contains('\n'), "{other}");
        let out_of_files = plan.failed("open", error(libc::EMFILE)).to_string();
        assert!(out_of_files.contains("ulimit -n"), "{out_of_files}");
    }
}
