//! How soon a data thread gets a core once it is awake.
//!
//! Under load soon, ahead of threads that are at work: else a small packet waits for a time slice at every step of its
//! way. Without load an inbound thread lets them go first: the one that woke it up has little left to do, and then the
//! core is free. Whoever cuts in there stays in the other one's way, and what comes next on the packet's way has to wake
//! up another core, which takes long on a virtual machine. Kernels without slices of a thread's own (before 6.12) would
//! have it wait for much longer where others are busy: there it is as all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sys::process::{self, Urgency};

/// How long after much to carry there is load.
pub(super) const LINGER: Duration = Duration::from_millis(20);

/// All workers look at the end of the load: it is moved in such steps, in microseconds, and not at every turn.
const GRAIN: u64 = 2000;

/// Until when there is load: of all workers, as they share the cores.
#[derive(Debug)]
pub(super) struct Load {
    start: Instant,
    /// In microseconds after `start`.
    until: AtomicU64,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, until: AtomicU64::new(0) }
    }

    /// Somebody had much to carry.
    pub(super) fn note(&self, now: Instant) {
        let until = self.micros(now + LINGER);
        if until >= self.until.load(Ordering::Relaxed) + GRAIN {
            self.until.fetch_max(until, Ordering::Relaxed);
        }
    }

    fn is_on(&self, now: Instant) -> bool {
        self.micros(now) < self.until.load(Ordering::Relaxed)
    }

    fn micros(&self, moment: Instant) -> u64 {
        u64::try_from(moment.duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Of one thread.
pub(super) struct Pace {
    load: Arc<Load>,
    /// What the scheduler took, if anything.
    told: Option<Urgency>,
    /// What was tried last.
    asked: Option<Urgency>,
    /// What it is told without load.
    idle: Urgency,
    /// Somebody else chose another policy for the thread: it is told nothing more.
    chosen: bool,
}

impl Pace {
    pub(super) fn new(load: Arc<Load>) -> Self {
        let idle = if process::has_slices() { Urgency::Patient } else { Urgency::Prompt };
        Self { load, told: None, asked: None, idle, chosen: false }
    }

    /// Soon, whatever the load.
    pub(super) fn prompt(&mut self) {
        self.tell(Urgency::Prompt);
    }

    /// The thread had much to carry.
    pub(super) fn much(&mut self, now: Instant) {
        self.load.note(now);
        self.prompt();
    }

    /// The thread is about to sleep.
    pub(super) fn rest(&mut self, now: Instant) {
        self.tell(if self.load.is_on(now) { Urgency::Prompt } else { self.idle });
    }

    fn tell(&mut self, urgency: Urgency) {
        if self.chosen || self.asked == Some(urgency) {
            return;
        }
        self.asked = Some(urgency);
        match process::set_urgency(self.told, urgency) {
            Ok(true) => self.told = Some(urgency),
            Ok(false) => self.chosen = true,
            Err(error) => tracing::trace!(%error, ?urgency, "the scheduler could not be told"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own, which is scheduled as all others.
    fn paced(load: &Arc<Load>, run: impl FnOnce(&mut Pace) + Send) {
        let mut pace = Pace { load: load.clone(), told: None, asked: None, idle: Urgency::Patient, chosen: false };
        std::thread::scope(|threads| threads.spawn(|| run(&mut pace)).join().unwrap());
        assert!(!pace.chosen);
    }

    #[test]
    fn a_thread_is_prompt_under_its_own_load_and_for_a_while_after_it() {
        let start = Instant::now();
        paced(&Arc::new(Load::new(start)), |pace| {
            pace.rest(start);
            assert_eq!(pace.told, Some(Urgency::Patient), "without load");
            pace.much(start);
            assert_eq!(pace.told, Some(Urgency::Prompt), "at once");
            pace.rest(start + LINGER / 2);
            assert_eq!(pace.told, Some(Urgency::Prompt), "soon after it");
            pace.rest(start + LINGER);
            assert_eq!(pace.told, Some(Urgency::Patient), "after it");
        });
    }

    #[test]
    fn the_load_of_one_thread_makes_others_prompt() {
        let start = Instant::now();
        let load = Arc::new(Load::new(start));
        paced(&load, |pace| pace.much(start));
        paced(&load, |pace| {
            pace.rest(start + LINGER / 2);
            assert_eq!(pace.told, Some(Urgency::Prompt));
        });
    }

    #[test]
    fn load_that_goes_on_is_noted_now_and_then_and_never_ends() {
        let start = Instant::now();
        let load = Load::new(start);
        let mut writes = 0;
        for step in 0..100 {
            let (now, before) = (start + step * LINGER / 50, load.until.load(Ordering::Relaxed));
            load.note(now);
            writes += u32::from(load.until.load(Ordering::Relaxed) != before);
            assert!(load.is_on(now) && load.is_on(now + LINGER * 8 / 10), "{step}");
            assert!(!load.is_on(now + LINGER), "{step}");
        }
        assert!((10..=30).contains(&writes), "{writes}");
    }
}
