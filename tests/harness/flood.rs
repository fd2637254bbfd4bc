//! A flood of handshake initiations from one machine that answers nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use linkspan::tunnel::key::PublicKey;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeValLike as _;

use super::host::Host;
use super::paced::pace;
use super::packets::noise;
use super::wireguard::initiations;

/// Bytes of an initiation, and where its mac1 begins.
const INITIATION: usize = 148;
const MAC1: usize = 116;

/// Runs until dropped or finished.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Duration>>,
}

impl Flood {
    /// Each millisecond `wrong` initiations with a wrong mac1, and `sound` ones, to the daemon with this key. They
    /// leave `host` one by one, as on a wire.
    pub fn start(host: &Host, to: (SocketAddr, PublicKey), wrong: usize, sound: usize) -> Self {
        host.ip("link set wan gso_max_segs 1\n");
        let socket = host.udp("0.0.0.0:0");
        socket.connect(to.0).unwrap();
        setsockopt(&socket, sockopt::UdpGsoSegment, &i32::try_from(INITIATION).unwrap()).unwrap();
        let pool: Vec<u8> = initiations(&to.1, 64).concat();
        let mut bad = pool.clone();
        for message in bad.chunks_mut(INITIATION) {
            message[MAC1..].copy_from_slice(&noise(7, INITIATION - MAC1));
        }
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let before = own_cpu();
            pace(&stopped, || {
                for (messages, number) in [(&bad, wrong), (&pool, sound)] {
                    let sent = socket.send(&messages[..number * INITIATION]).unwrap_or(0) / INITIATION;
                    count.fetch_add(sent as u64, Relaxed);
                }
            });
            own_cpu() - before
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// Ends it: how many were sent, and the CPU time that this took.
    pub fn finish(mut self) -> (u64, Duration) {
        self.stop.store(true, Relaxed);
        let cpu = self.thread.take().unwrap().join().unwrap();
        (self.sent.load(Relaxed), cpu)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn own_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap())
}
