//! A TCP connection from LAN to LAN that is never idle, and the longest time for which nothing of it arrived.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::host::at;
use crate::harness::{A, B, Net, eventually, seconds};
use crate::sites::HOSTS;

/// Bytes a millisecond: enough that a gap shows, little enough for a slow machine.
const RATE: usize = 12_500;

/// Ends when dropped.
pub struct Stream {
    received: Arc<AtomicU64>,
    longest: Arc<Mutex<Duration>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// From A's LAN to B's.
    pub fn start(net: &Net) -> Self {
        let listener = net.lan(B).listen(at(HOSTS[B], 0));
        let out = net.lan(A).connect(listener.local_addr().unwrap(), seconds(30));
        let (back, _) = listener.accept().unwrap();
        back.set_read_timeout(Some(seconds(30))).unwrap();
        let (received, longest) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Duration::ZERO)));
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, count, gap) = (Arc::clone(&stop), Arc::clone(&received), Arc::clone(&longest));
        let send = std::thread::spawn(move || send(out, &stopped));
        let receive = std::thread::spawn(move || receive(back, &count, &gap));
        Self { received, longest, stop, threads: vec![send, receive] }
    }

    /// Waits until more has arrived than had until now, buffers included.
    pub fn lives(&self) {
        let before = self.received.load(Ordering::Relaxed);
        eventually(seconds(30), "the TCP connection lives", || {
            (self.received.load(Ordering::Relaxed) > before + 1_000_000).then_some(())
        });
    }

    /// It must live. The longest time without a byte since this was last asked.
    pub fn longest_pause(&self) -> Duration {
        self.lives();
        std::mem::take(&mut *self.longest.lock().unwrap())
    }

    /// Ends it; neither end may have met an error.
    pub fn finish(mut self) {
        self.lives();
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

fn send(mut out: TcpStream, stop: &AtomicBool) {
    let bytes = vec![7; RATE];
    while !stop.load(Ordering::Relaxed) {
        out.write_all(&bytes).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn receive(mut back: TcpStream, received: &AtomicU64, longest: &Mutex<Duration>) {
    let mut buffer = vec![0; 1 << 16];
    let mut last = Instant::now();
    loop {
        match back.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => received.fetch_add(length as u64, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => panic!("the TCP connection is broken: {error}"),
        };
        let mut longest = longest.lock().unwrap();
        *longest = last.elapsed().max(*longest);
        last = Instant::now();
    }
}
