//! Traffic of our own: pings, and a TCP stream. Every wait in here ends.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::place::Place;
use super::stop::Stop;

const PATIENCE: Duration = Duration::from_secs(5);
const PING_PATIENCE: Duration = Duration::from_millis(500);

/// What came back of a run of pings.
pub(super) struct Pings {
    /// How many were sent.
    pub(super) sent: usize,
    /// Round-trip times of those that came back, sorted.
    times: Vec<Duration>,
}

/// What a stream carried, as its receiver saw it.
pub(super) struct Carried {
    /// Bytes of payload.
    pub(super) bytes: u64,
    /// From the first byte to the end.
    pub(super) time: Duration,
}

impl Pings {
    /// How many came back.
    pub(super) fn answered(&self) -> usize {
        self.times.len()
    }

    /// The round-trip time that half of them stayed below.
    pub(super) fn median(&self) -> Option<Duration> {
        self.times.get(self.times.len() / 2).copied()
    }
}

/// Sends up to `count` ICMP echo requests to `to`, each when the one before is answered or lost.
///
/// # Errors
/// The kernel offers no ping socket, or has no route.
pub(super) fn ping(to: IpAddr, count: usize, stop: &Stop) -> anyhow::Result<Pings> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).context("cannot open a ping socket")?;
    socket.set_read_timeout(Some(PING_PATIENCE))?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    let mut pings = Pings { sent: 0, times: Vec::with_capacity(count) };
    while pings.sent < count && !stop.requested() {
        pings.sent += 1;
        pings.times.extend(echo(&socket, to, u16::try_from(pings.sent)?));
    }
    pings.times.sort();
    Ok(pings)
}

/// One echo request (RFC 792, RFC 4443 section 4.1) of 56 bytes; the kernel fills in identifier and checksum.
fn echo(socket: &Socket, to: IpAddr, sequence: u16) -> Option<Duration> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let [high, low] = sequence.to_be_bytes();
    let mut request = [0; 64];
    request[..8].copy_from_slice(&[kind, 0, 0, 0, 0, 0, high, low]);
    let start = Instant::now();
    socket.send(&request).ok()?;
    let mut answer = [0; 128];
    while start.elapsed() < PING_PATIENCE {
        let length = (&*socket).read(&mut answer).ok()?;
        if length >= 8 && answer[6..8] == [high, low] {
            return Some(start.elapsed());
        }
    }
    None
}

/// A TCP stream from one machine to another for `length`.
///
/// # Errors
/// No connection, or it broke or stood still.
pub(super) fn stream(from: &Place, to: &Place, at: IpAddr, length: Duration, stop: &Stop) -> anyhow::Result<Carried> {
    let listener = to.run(move || listen(at))?;
    let address = listener.local_addr()?;
    let receiver = to.start(move || receive(&listener));
    let stop = stop.clone();
    let sent = from.start(move || send(address, length, &stop)).wait()?;
    let received = receiver.wait()?;
    sent.context("the sender")?;
    received.context("the receiver")
}

fn listen(at: IpAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((at, 0))?;
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
    Ok(listener)
}

fn receive(listener: &TcpListener) -> io::Result<Carried> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = stream.read(&mut buffer)? as u64;
    let start = Instant::now();
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(Carried { bytes, time: start.elapsed() }),
            read => bytes += read as u64,
        }
    }
}

fn send(to: SocketAddr, length: Duration, stop: &Stop) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let buffer = vec![0; 256 << 10];
    let start = Instant::now();
    while start.elapsed() < length && !stop.requested() {
        stream.write_all(&buffer)?;
    }
    Ok(())
}
