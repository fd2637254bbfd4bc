//! Traffic between hosts: ping, TCP, UDP.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::host::{Finished, Host, at};
use super::packets::noise;
use super::{eventually, seconds};

/// What `ping` counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pings {
    pub sent: u32,
    pub received: u32,
}

/// `ping` with these arguments, to its end, within 60 s.
pub fn ping(from: &Host, to: IpAddr, arguments: &[&str]) -> (Pings, Finished) {
    let address = to.to_string();
    // -n: a name server that does not answer is none of our business.
    let all: Vec<&str> = ["-n"].into_iter().chain(arguments.iter().copied()).chain([address.as_str()]).collect();
    let finished = from.output(seconds(60), "ping", &all);
    // "1000 packets transmitted, 1000 received, 0% packet loss, time 331ms", perhaps with "+2 errors, " inside.
    let summary = finished.stdout.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
    let number = |text: &str| text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let count = |word: &str| summary.split(',').find(|part| part.contains(word)).map_or(0, number);
    (Pings { sent: count("transmitted"), received: count("received") }, finished)
}

/// Every ping must be answered, within 30 s in all. Of several, more are sent while answers are late; one stays one.
pub fn pings_pass(from: &Host, to: IpAddr, arguments: &[&str]) {
    let count = arguments.iter().skip_while(|word| **word != "-c").nth(1).expect("-c").parse().unwrap();
    // Without -w, ping waits for a last answer no longer than for two round trips, if there was any other.
    let patience = if count > 1 { ["-w", "30"] } else { ["-W", "30"] };
    let (_, finished) = ping(from, to, &[arguments, &patience].concat());
    none_is_lost(&finished, count, &format!("{} to {to}", from.name()));
}

/// Pings until one is answered.
pub fn reached(from: &Host, to: IpAddr, within: Duration) {
    eventually(within, &format!("{to} answers"), || {
        (ping(from, to, &["-c", "1", "-W", "1"]).0.received == 1).then_some(())
    });
}

/// The first `count` of a `ping -c` with -w, which sends on until so many are answered, and without -q. Of a lost one
/// the number is missing; a late one is not lost.
pub fn none_is_lost(finished: &Finished, count: u32, whose: &str) {
    let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok();
    let answers = finished.stdout.lines().filter(|line| line.contains(" bytes from "));
    let answered: BTreeSet<u32> = answers.filter_map(number).collect();
    let lost: Vec<u32> = (1..=count).filter(|number| !answered.contains(number)).collect();
    let rest = &finished.stdout[finished.stdout.find("\n---").unwrap_or(0)..];
    assert!(count > 0 && lost.is_empty(), "{whose}: {lost:?} of {count} are lost: {rest} {}", finished.stderr);
}

/// Pings with packets of `mtu` bytes until one is answered: from then on the sender knows what fits the path, and no
/// later packet is the one that is dropped to tell it.
pub fn learn_path_mtu(from: &Host, to: IpAddr, mtu: u16) {
    let headers = if to.is_ipv4() { 28 } else { 48 };
    let size = (mtu - headers).to_string();
    eventually(seconds(10), "a large ping is answered", || {
        let (pings, _) = ping(from, to, &["-c", "1", "-W", "1", "-s", &size]);
        (pings.received == 1).then_some(())
    });
}

/// Sends `content` by TCP; it must arrive whole and unchanged, with every wait under `within`.
pub fn tcp_transfer(from: &Host, to: &Host, address: IpAddr, content: &[u8], within: Duration) {
    let listener = to.listen(at(address, 0));
    let remote = listener.local_addr().unwrap();
    let received = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(within)).unwrap();
            let mut bytes = Vec::with_capacity(content.len());
            stream.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut stream = from.connect(remote, within);
        stream.write_all(content).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        receiver.join().unwrap().unwrap_or_else(|e| panic!("{} to {remote}: {e}", from.name()))
    });
    assert!(received == content, "{} bytes of {} arrived, or others", received.len(), content.len());
}

/// Sends back every datagram until dropped.
pub struct Echo {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start(host: &Host, address: IpAddr) -> Self {
        let socket = host.udp(&at(address, 0).to_string());
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket that talks to `echo`.
pub fn caller(from: &Host, echo: &Echo) -> UdpSocket {
    let any = if echo.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.udp(any);
    socket.connect(echo.address).unwrap();
    socket
}

/// One datagram of each size, to `address` and back: none lost, none changed, one at a time.
pub fn udp_echo(from: &Host, to: &Host, address: IpAddr, sizes: impl IntoIterator<Item = usize>) {
    let echo = Echo::start(to, address);
    let socket = caller(from, &echo);
    let mut buffer = vec![0; 1 << 16];
    for size in sizes {
        let content = noise(size as u64 + 1, size);
        socket.send(&content).unwrap_or_else(|e| panic!("{size} bytes: {e}"));
        let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{size} bytes to {address}: {e}"));
        assert!(buffer[..length] == content, "{size} bytes came back as {length} others");
    }
}
