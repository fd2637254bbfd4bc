//! How the hot path scales with workers, in memory: `cargo bench --bench scaling [-- MOST_WORKERS]`.
//!
//! Each worker cuts super-packets, seals, opens and merges them, without a system call: real code, real sessions. Once
//! with a peer each, once all with the same peer, whose lane they share.

mod gateways;

use std::env;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linkspan::packet::coalesce::Coalescer;
use linkspan::packet::segment::SegmentScratch;

use gateways::{SEGMENTS, SuperPacket, Tunnel, buffers, merge};

/// Of each row and column.
const TIME: Duration = Duration::from_secs(2);
/// How often sessions are looked after meanwhile.
const TICK: Duration = Duration::from_millis(250);
const PACKET_BITS: u64 = 1420 * 8;

fn main() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // cargo adds --bench.
    let most = env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(cores);
    row("workers", ["a peer each", "per worker", "one peer", "per worker"].map(str::to_owned));
    for workers in 1..=most {
        let tunnels: Vec<_> = (0..u16::try_from(workers).expect("a few")).map(Tunnel::new).collect();
        let each = rate(workers, &tunnels);
        let one = rate(workers, &tunnels[..1]);
        let cells = [each, one].map(|rate| [format!("{rate:.2} Gbit/s"), format!("{:.2}", rate / workers as f64)]);
        let [[each, each_per], [one, one_per]] = cells;
        row(&workers.to_string(), [each, each_per, one, one_per]);
    }
    row("", [format!("{cores} cores"), String::new(), String::new(), String::new()]);
}

/// What all workers carry together, in Gbit/s of inner packets, from the first seal to the last merge.
fn rate(workers: usize, tunnels: &[Tunnel]) -> f64 {
    let (stop, start, carried) = (AtomicBool::new(false), Barrier::new(workers + 1), AtomicU64::new(0));
    let time = thread::scope(|scope| {
        for worker in 0..workers {
            let tunnel = &tunnels[worker % tunnels.len()];
            let (stop, start, carried) = (&stop, &start, &carried);
            scope.spawn(move || {
                start.wait();
                carried.fetch_add(work(worker, tunnel, stop), Ordering::Relaxed);
            });
        }
        start.wait();
        let started = Instant::now();
        while started.elapsed() < TIME {
            tunnels.iter().for_each(Tunnel::tick);
            thread::sleep(TICK);
        }
        stop.store(true, Ordering::Relaxed);
        started.elapsed()
    });
    (carried.into_inner() * PACKET_BITS) as f64 / time.as_secs_f64() / 1e9
}

/// One worker's loop; how many packets it carried.
fn work(worker: usize, tunnel: &Tunnel, stop: &AtomicBool) -> u64 {
    let (whole, mut scratch, mut coalescer) = (SuperPacket::new(), SegmentScratch::new(), Coalescer::new(true, true));
    let (mut buffer, (mut sealed, mut opened), mut packets) = (whole.bytes().to_vec(), buffers(), 0);
    while !stop.load(Ordering::Relaxed) {
        // Stands for the read of the TUN.
        buffer.copy_from_slice(whole.bytes());
        let Some(flight) = tunnel.seal(worker, &mut whole.segments(&mut buffer, &mut scratch), &mut sealed) else {
            thread::yield_now();
            continue;
        };
        tunnel.open(&sealed, &mut opened);
        drop(flight);
        assert_eq!(merge(&mut coalescer, &mut opened), 1);
        packets += SEGMENTS as u64;
    }
    packets
}

#[expect(clippy::print_stdout, reason = "the table it is there for")]
fn row(workers: &str, cells: [String; 4]) {
    let [a, b, c, d] = cells;
    println!("{workers:>8}  {a:>14}  {b:>10}  {c:>14}  {d:>10}");
}
