//! Which of a worker's two threads serves its queue.
//!
//! While there is little to carry, the inbound thread carries both ways, so that a packet and its answer wake up one
//! thread and not two. Where there is much, it calls the outbound thread, which then has the queue for itself until
//! there has been little for a while.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Changed;
use super::counters::{Counters, Failure};
use super::outbound::Outbound;
use super::pace::{LINGER, Pace};
use super::stop::Stop;
use super::took::Took;
use super::trouble::{PAUSE, Trouble};
use crate::sys::poll::{self, EventFd};
use crate::sys::tun::Queue;

/// A worker's queue, and who serves it.
pub(super) struct Duty {
    queue: Arc<Queue>,
    /// Who has the duty has the lock; nobody ever waits for it longer than a turn takes.
    outbound: Mutex<Outbound>,
    /// The outbound thread has the duty, or is about to wake up and take it.
    away: AtomicBool,
    /// Wakes up the outbound thread.
    call: EventFd,
    /// Wakes up the inbound thread.
    inbound: Arc<EventFd>,
}

impl Duty {
    pub(super) fn new(queue: Arc<Queue>, outbound: Outbound, inbound: Arc<EventFd>) -> io::Result<Self> {
        Ok(Self { queue, outbound: Mutex::new(outbound), away: AtomicBool::new(false), call: EventFd::new()?, inbound })
    }

    /// For the inbound thread: carries what is there, unless the other thread does.
    pub(super) fn stand_in(&self) -> Took {
        if self.is_away() {
            return Took::Nothing;
        }
        // An error is for the outbound thread, too: it may wait.
        let took = self.outbound.lock().turn().unwrap_or(Took::Much);
        if took == Took::Much {
            self.away.store(true, Ordering::Release);
            self.call.notify();
        }
        took
    }

    /// To be waited for by whoever serves it.
    pub(super) fn queue(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    /// Whether the outbound thread serves the queue. When it gives it back, it wakes up the inbound thread.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// For both threads at their end: what was read leaves.
    pub(super) fn finish(&self) {
        self.outbound.lock().finish();
    }

    fn give_back(&self) {
        self.away.store(false, Ordering::Release);
        self.inbound.notify();
    }
}

/// The outbound thread of a worker: asleep until it is called.
pub(super) struct OutboundThread {
    pub(super) duty: Arc<Duty>,
    pub(super) stop: Arc<Stop>,
    pub(super) failure: Arc<Failure>,
    pub(super) trouble: Arc<Trouble>,
    pub(super) changed: Changed,
    pub(super) counters: Arc<Counters>,
    pub(super) pace: Pace,
}

impl OutboundThread {
    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        self.pace.prompt();
        while !self.stop.is_set() {
            self.counters.beat();
            if self.duty.call.drain() {
                self.serve();
                self.duty.give_back();
            } else {
                self.sleep(self.duty.call.as_fd(), super::HEARTBEAT);
            }
        }
        self.duty.finish();
    }

    /// Serves the queue alone until there is little to carry.
    fn serve(&mut self) {
        let duty = self.duty.clone();
        let mut outbound = duty.outbound.lock();
        let mut much = Instant::now();
        while !self.stop.is_set() {
            self.counters.beat();
            match outbound.turn() {
                Ok(Took::Much) => {
                    much = Instant::now();
                    self.pace.much(much);
                }
                Ok(Took::Little) => {}
                Ok(Took::Nothing) if much.elapsed() > LINGER => return,
                Ok(Took::Nothing) => self.sleep(self.duty.queue(), LINGER),
                Err(error) if is_gone(&error) => self.fail(&error),
                Err(error) => self.pause(&error),
            }
        }
    }

    fn sleep(&self, until: BorrowedFd<'_>, at_most: Duration) {
        if let Err(error) = poll::poll(&[until, self.stop.as_fd()], at_most) {
            self.pause(&error);
        }
    }

    /// Something fails that should not: not at full speed, at least.
    fn pause(&self, error: &io::Error) {
        self.trouble.reading(error);
        thread::sleep(PAUSE);
    }

    /// Says why, and waits for the end with the queue in its hands.
    fn fail(&self, error: &io::Error) {
        self.failure.set(format!("reading the interface failed: {error}"));
        (self.changed)();
        while !self.stop.is_set() {
            self.sleep(self.stop.as_fd(), super::HEARTBEAT);
        }
    }
}

/// The interface was deleted. All else may pass.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADFD | libc::EBADF | libc::ENODEV | libc::ENXIO))
}
