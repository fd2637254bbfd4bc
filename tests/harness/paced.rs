//! A stream of UDP datagrams at a steady rate, and what arrived of it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::host::{Host, at};

const TURN: Duration = Duration::from_millis(1);

/// Runs until dropped or finished.
pub struct Paced {
    /// Where the datagrams go.
    pub to: SocketAddr,
    /// For the sender, and then for the receiver.
    stop: [Arc<AtomicBool>; 2],
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    /// Longest time between two arrivals, in microseconds.
    gap: Arc<AtomicU64>,
    threads: Option<[JoinHandle<()>; 2]>,
}

/// What became of it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub sent: u64,
    pub received: u64,
    pub longest_gap: Duration,
}

impl Paced {
    /// Sends `each_turn` datagrams of `size` bytes each millisecond, to a socket at `address` of `to`.
    pub fn start(from: &Host, to: &Host, address: IpAddr, each_turn: u32, size: usize) -> Self {
        let sink = to.udp(&at(address, 0).to_string());
        sink.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = nix::sys::socket::setsockopt(&sink, nix::sys::socket::sockopt::RcvBufForce, &(16 << 20));
        let socket = from.udp(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
        let to = sink.local_addr().unwrap();
        socket.connect(to).unwrap();
        let stop = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let [sent, received, gap] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
        let threads = [
            spawn(&stop[0], &sent, move |stop, sent| send(&socket, each_turn, size, stop, sent)),
            spawn(&stop[1], &received, {
                let gap = Arc::clone(&gap);
                move |stop, received| receive(&sink, stop, received, &gap)
            }),
        ];
        Self { to, stop, sent, received, gap, threads: Some(threads) }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// The longest time between two arrivals since this was last asked.
    pub fn take_gap(&self) -> Duration {
        Duration::from_micros(self.gap.swap(0, Relaxed))
    }

    /// Ends it, once all has arrived or nothing has come for 2 s.
    pub fn finish(mut self) -> Outcome {
        self.join();
        let [sent, received, gap] = [&self.sent, &self.received, &self.gap].map(|count| count.load(Relaxed));
        Outcome { sent, received, longest_gap: Duration::from_micros(gap) }
    }

    fn join(&mut self) {
        let Some([sender, receiver]) = self.threads.take() else { return };
        self.stop[0].store(true, Relaxed);
        let _ = sender.join();
        self.drain();
        self.stop[1].store(true, Relaxed);
        let _ = receiver.join();
    }

    fn drain(&self) {
        let (mut seen, mut since) = (self.received(), Instant::now());
        while seen < self.sent() && since.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(10));
            if self.received() > seen {
                (seen, since) = (self.received(), Instant::now());
            }
        }
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.join();
    }
}

fn spawn(
    stop: &Arc<AtomicBool>,
    count: &Arc<AtomicU64>,
    work: impl FnOnce(&AtomicBool, &AtomicU64) + Send + 'static,
) -> JoinHandle<()> {
    let (stop, count) = (Arc::clone(stop), Arc::clone(count));
    std::thread::spawn(move || work(&stop, &count))
}

/// Calls `turn` each millisecond; turns that were missed are made up for, up to a tenth of a second.
pub fn pace(stop: &AtomicBool, mut turn: impl FnMut()) {
    let mut next = Instant::now();
    while !stop.load(Relaxed) {
        let now = Instant::now();
        if now < next {
            std::thread::sleep(next - now);
            continue;
        }
        next = (next + TURN).max(now.checked_sub(100 * TURN).unwrap_or(now));
        turn();
    }
}

fn send(socket: &UdpSocket, each_turn: u32, size: usize, stop: &AtomicBool, sent: &AtomicU64) {
    let datagram = vec![0x55; size];
    pace(stop, || {
        let taken = (0..each_turn).filter(|_| socket.send(&datagram).is_ok()).count();
        sent.fetch_add(taken as u64, Relaxed);
    });
}

fn receive(sink: &UdpSocket, stop: &AtomicBool, received: &AtomicU64, gap: &AtomicU64) {
    let (mut buffer, mut last) = (vec![0; 1 << 16], None::<Instant>);
    while !stop.load(Relaxed) {
        if sink.recv(&mut buffer).is_err() {
            continue;
        }
        received.fetch_add(1, Relaxed);
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            gap.fetch_max(u64::try_from((now - last).as_micros()).unwrap(), Relaxed);
        }
    }
}
