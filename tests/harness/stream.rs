//! A TCP connection that is never idle, and the longest time for which nothing of it arrived.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::host::{Host, at};
use super::packets::MARKER;
use super::{eventually, seconds};

/// Markers a millisecond. [`TRAFFIC`] is some Mbit/s, and no load test; [`PACED`] 100, so that a gap shows.
pub const TRAFFIC: usize = 100;
pub const PACED: usize = 12_500 / MARKER.len();

/// Carries markers, and nothing but these may arrive. Ends when dropped.
pub struct Stream {
    received: Arc<AtomicU64>,
    longest: Arc<Mutex<Duration>>,
    stop: Arc<AtomicBool>,
    /// More than what may wait in the receiver's buffers.
    buffered: u64,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// `rate` markers a millisecond, from one host to `address` of another.
    pub fn start(from: &Host, to: &Host, address: IpAddr, rate: usize) -> Self {
        let listener = to.listen(at(address, 0));
        let out = from.connect(listener.local_addr().unwrap(), seconds(30));
        let (back, _) = listener.accept().unwrap();
        back.set_read_timeout(Some(seconds(30))).unwrap();
        let (received, longest) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Duration::ZERO)));
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, count, gap) = (Arc::clone(&stop), Arc::clone(&received), Arc::clone(&longest));
        let send = std::thread::spawn(move || send(out, rate, &stopped));
        let receive = std::thread::spawn(move || receive(back, &count, &gap));
        let buffered = if rate > TRAFFIC { 1_000_000 } else { 100_000 };
        Self { received, longest, stop, buffered, threads: vec![send, receive] }
    }

    /// Waits until more has arrived than had until now, buffers included.
    pub fn lives(&self, within: Duration) {
        let before = self.received.load(Ordering::Relaxed);
        eventually(within, "the TCP connection lives", || {
            (self.received.load(Ordering::Relaxed) > before + self.buffered).then_some(())
        });
    }

    /// It must live. The longest time without a byte since this was last asked.
    pub fn longest_pause(&self) -> Duration {
        self.lives(seconds(30));
        std::mem::take(&mut *self.longest.lock().unwrap())
    }

    /// Ends it; it must live until then, and every byte must have been right.
    pub fn finish(mut self) {
        self.lives(seconds(30));
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(mut out: TcpStream, rate: usize, stop: &AtomicBool) {
    let block = MARKER.repeat(rate);
    while !stop.load(Ordering::Relaxed) {
        out.write_all(&block).expect("the connection lives");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn receive(mut back: TcpStream, received: &AtomicU64, longest: &Mutex<Duration>) {
    let mut buffer = vec![0; 1 << 16];
    let (expected, mut at) = (MARKER.repeat(buffer.len() / MARKER.len() + 2), 0);
    let mut last = Instant::now();
    loop {
        let length = match back.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => panic!("the TCP connection is broken: {error}"),
        };
        assert!(buffer[..length] == expected[at..at + length], "what arrives was sent");
        at = (at + length) % MARKER.len();
        received.fetch_add(length as u64, Ordering::Relaxed);
        let mut longest = longest.lock().unwrap();
        *longest = last.elapsed().max(*longest);
        last = Instant::now();
    }
}
