//! The data plane: OS threads that carry packets, and nothing else. No tokio, no policy.
//!
//! A worker is a pair of threads: [`outbound`] (TUN -> UDP) and [`inbound`] (UDP -> TUN). One more thread,
//! [`handshake`], does all curve operations and timers. They share one immutable [`Table`], the lanes in it,
//! and the bounded handshake queue; the control plane swaps the table and is called when something changed.

mod answers;
mod backlog;
mod burst;
mod counters;
mod duty;
mod egress;
mod handshake;
mod inbound;
mod outbound;
mod pace;
mod stop;
mod took;
mod trouble;
mod waits;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::packet::Reason;
use crate::packet::segment::SegmentScratch;
use crate::sys::poll::EventFd;
use crate::sys::process;
use crate::sys::tun::{Offloads, Queue};
use crate::sys::udp::{Group, Receive, Socket};
use crate::tunnel::{Lane, OpenBuffer, SealBuffer, Table, TickBuffer};

/// A sleeping worker wakes this often to move its heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(2500);

/// What the plane works with, all opened by the control plane.
pub struct Inputs {
    /// One a worker.
    pub queues: Vec<Queue>,
    /// What the kernel takes on the queues.
    pub offloads: Offloads,
    /// As many sockets of each family as there are queues, or none as yet.
    pub sockets: Group,
    /// The snapshot; swapped by the control plane.
    pub table: Arc<ArcSwap<Table>>,
    /// Called when a session began, a peer moved, or a thread failed. Must neither block nor take long.
    pub changed: Changed,
}

/// The data plane's way to call the control plane.
pub type Changed = Arc<dyn Fn() + Send + Sync>;

/// The running threads.
pub struct Plane {
    threads: Vec<JoinHandle<()>>,
    shared: Shared,
    counters: Vec<Arc<counters::Counters>>,
    /// One a worker: makes it look at its sockets again.
    looks: Vec<Arc<EventFd>>,
    /// Overflows of sockets that are no longer used.
    overflows: AtomicU64,
}

/// What every thread has a hand on.
#[derive(Clone)]
struct Shared {
    table: Arc<ArcSwap<Table>>,
    sockets: Arc<ArcSwap<Group>>,
    handshakes: handshake::HandshakeQueue,
    stop: Arc<stop::Stop>,
    failure: Arc<counters::Failure>,
    trouble: Arc<trouble::Trouble>,
    load: Arc<pace::Load>,
    changed: Changed,
}

impl Plane {
    /// Starts two threads a queue, and the handshake thread.
    ///
    /// # Errors
    /// When the kernel gives no thread, eventfd or random bytes; nothing runs then.
    pub fn start(inputs: Inputs) -> io::Result<Self> {
        let (handshakes, jobs) = handshake::HandshakeQueue::new();
        let shared = Shared {
            table: inputs.table,
            sockets: Arc::new(ArcSwap::from_pointee(inputs.sockets)),
            handshakes,
            stop: Arc::new(stop::Stop::new()?),
            failure: Arc::default(),
            trouble: Arc::default(),
            load: Arc::new(pace::Load::new(Instant::now())),
            changed: inputs.changed,
        };
        let (threads, counters, looks) = (Vec::new(), Vec::new(), Vec::new());
        let mut plane = Self { threads, shared, counters, looks, overflows: AtomicU64::new(0) };
        let workers = inputs.queues.len();
        let started = plane.start_handshakes(jobs, workers).and_then(|()| {
            let mut queues = inputs.queues.into_iter().enumerate();
            queues.try_for_each(|(worker, queue)| plane.start_worker(worker, queue, inputs.offloads))
        });
        match started {
            Ok(()) => Ok(plane),
            Err(error) => {
                plane.stop();
                Err(error)
            }
        }
    }

    fn start_handshakes(&mut self, jobs: handshake::Jobs, workers: usize) -> io::Result<()> {
        let seed = getrandom::u64().map_err(io::Error::other)?;
        let now = Instant::now();
        let handshakes = handshake::Handshakes {
            jobs,
            worker: workers,
            table: self.shared.table.clone(),
            egress: self.egress(0),
            counters: self.new_counters(),
            changed: self.shared.changed.clone(),
            sealed: SealBuffer::new(1, self.shared.table.load().mtu()),
            emitted: TickBuffer::default(),
            next_second: now,
            ticks: handshake::Ticks::new(now, seed),
        };
        self.spawn("handshakes".to_owned(), move || handshakes.run())
    }

    fn start_worker(&mut self, worker: usize, queue: Queue, offloads: Offloads) -> io::Result<()> {
        let (queue, look, now) = (Arc::new(queue), Arc::new(EventFd::new()?), Instant::now());
        self.looks.push(look.clone());
        let counters = self.new_counters();
        let outbound = self.outbound(worker, &queue, counters.clone(), now);
        let duty = Arc::new(duty::Duty::new(queue.clone(), outbound, look.clone())?);
        let outbound = duty::OutboundThread {
            duty: duty.clone(),
            stop: self.shared.stop.clone(),
            failure: self.shared.failure.clone(),
            trouble: self.shared.trouble.clone(),
            changed: self.shared.changed.clone(),
            counters,
            pace: pace::Pace::new(self.shared.load.clone()),
        };
        let waits = waits::Waits::new(worker, self.shared.stop.clone(), look)?;
        let inbound = inbound::Inbound {
            worker,
            sockets: self.shared.sockets.clone(),
            duty,
            table: self.shared.table.clone(),
            stop: self.shared.stop.clone(),
            trouble: self.shared.trouble.clone(),
            pace: pace::Pace::new(self.shared.load.clone()),
            waits,
            receive: Receive::new(),
            way: inbound::Way {
                writer: writer::TunWriter::new(queue, offloads, self.shared.trouble.clone()),
                egress: self.egress(worker),
                handshakes: self.shared.handshakes.clone(),
                counters: self.new_counters(),
                changed: self.shared.changed.clone(),
                opened: OpenBuffer::new(OPENED_PACKETS, OPENED_BYTES),
            },
        };
        self.spawn(format!("outbound-{worker}"), move || outbound.run())?;
        self.spawn(format!("inbound-{worker}"), move || inbound.run())
    }

    fn outbound(
        &self,
        worker: usize,
        queue: &Arc<Queue>,
        counters: Arc<counters::Counters>,
        now: Instant,
    ) -> outbound::Outbound {
        outbound::Outbound {
            queue: queue.clone(),
            table: self.shared.table.clone(),
            backlog: backlog::Backlog::new(),
            last: now,
            way: outbound::Way {
                answers: answers::Answers::new(queue.clone(), now),
                burst: burst::Burst::new(),
                scratch: SegmentScratch::new(),
                sealer: outbound::Sealer {
                    worker,
                    egress: self.egress(worker),
                    handshakes: self.shared.handshakes.clone(),
                    counters,
                    sealed: SealBuffer::new(Lane::BATCH, self.shared.table.load().mtu()),
                },
            },
        }
    }

    fn egress(&self, worker: usize) -> egress::Egress {
        egress::Egress { sockets: self.shared.sockets.clone(), worker, trouble: self.shared.trouble.clone() }
    }

    fn new_counters(&mut self) -> Arc<counters::Counters> {
        let counters = Arc::<counters::Counters>::default();
        self.counters.push(counters.clone());
        counters
    }

    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    /// Sends and receives by these sockets from now on; the others are closed as soon as no thread uses them.
    pub fn set_sockets(&self, sockets: Group) {
        let before = self.shared.sockets.swap(Arc::new(sockets));
        let now = self.shared.sockets.load();
        let gone = before.sockets().filter(|old| !now.sockets().any(|new| Arc::ptr_eq(old, new)));
        self.overflows.fetch_add(overflows(gone), Relaxed);
        for worker in &self.looks {
            worker.notify();
        }
    }

    /// Ends all threads and waits for them; each notices within one turn of its loop.
    pub fn stop(self) {
        self.shared.stop.set();
        self.shared.handshakes.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a data thread had panicked");
            }
        }
    }

    /// Why a thread ended although nobody told it to.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.why()
    }

    /// Makes the timers run now: an address was set, a table was swapped.
    pub fn wake_timers(&self) {
        self.shared.handshakes.wake();
    }

    /// Packets dropped so far, with the reason; all threads together, and the kernel for want of room in our sockets.
    pub fn drops(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let full = self.overflows.load(Relaxed) + overflows(self.shared.sockets.load().sockets());
        let count = move |reason| {
            let ours: u64 = self.counters.iter().map(|counters| counters.drops.count(reason)).sum();
            if reason == Reason::InSocketFull { ours + full } else { ours }
        };
        Reason::ALL.iter().map(move |&reason| (reason, count(reason)))
    }

    /// Every thread's name, and for how long it has had a CPU so far.
    pub fn busy(&self) -> impl Iterator<Item = (&str, Duration)> {
        let time = |thread: &JoinHandle<()>| process::cpu_time(thread).unwrap_or_default();
        self.threads.iter().map(move |thread| (thread.thread().name().unwrap_or_default(), time(thread)))
    }

    /// Every thread's heartbeat: a number that moves at least every 2.5 s.
    pub fn heartbeats(&self) -> impl Iterator<Item = u64> + '_ {
        self.counters.iter().map(|counters| counters.heartbeat())
    }
}

fn overflows<'s>(sockets: impl Iterator<Item = &'s Arc<Socket>>) -> u64 {
    sockets.map(|socket| u64::from(socket.overflows())).sum()
}

/// Opened packets that wait for one delivery: what a receive call brings, if the datagrams are large.
const OPENED_PACKETS: usize = 512;
const OPENED_BYTES: usize = Receive::BYTES;
