//! How soon a data thread gets a core once it is awake.
//!
//! Under load soon, ahead of threads that are at work: else a small packet waits for a time slice at every step of its
//! way. Without load after them: the thread that woke it up has little left to do, and then the core is free. Whoever
//! cuts in there stays in the other one's way, and what comes next on the packet's way has to wake up another core,
//! which takes long on a virtual machine. A thread for which somebody chose a policy keeps it.

use std::time::{Duration, Instant};

use crate::sys::process::{self, Urgency};

/// How long after much to carry there is load.
pub(super) const LINGER: Duration = Duration::from_millis(20);

/// Of one thread.
pub(super) struct Pace {
    /// What the scheduler was told; nothing yet before the first rest.
    told: Option<Urgency>,
    /// Somebody chose a policy: the scheduler is told nothing.
    chosen: bool,
    much: bool,
    load_until: Instant,
}

impl Pace {
    /// To be made by the thread that it is for, or by the one that starts it.
    pub(super) fn new(now: Instant) -> Self {
        Self { told: None, chosen: !process::has_usual_policy(), much: false, load_until: now }
    }

    /// The thread had much to carry.
    pub(super) fn much(&mut self) {
        self.much = true;
    }

    /// The thread is about to sleep; `load`: whether another one of its worker has much to carry.
    pub(super) fn rest(&mut self, load: bool) {
        let now = Instant::now();
        if load || self.much {
            self.load_until = now + LINGER;
        }
        self.much = false;
        self.tell(if now < self.load_until { Urgency::Prompt } else { Urgency::Patient });
    }

    /// The thread is `urgency` from now on.
    pub(super) fn tell(&mut self, urgency: Urgency) {
        if self.chosen || self.told == Some(urgency) {
            return;
        }
        self.told = Some(urgency);
        if let Err(error) = process::set_urgency(urgency) {
            tracing::trace!(%error, "a longer way to a core where others are busy");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_is_prompt_under_load_and_for_a_while_after_it() {
        let mut pace = Pace::new(Instant::now());
        pace.rest(false);
        assert_eq!(pace.told, Some(Urgency::Patient), "without load");
        assert!(!process::has_usual_policy(), "the scheduler knows");
        pace.much();
        pace.rest(false);
        assert_eq!(pace.told, Some(Urgency::Prompt), "its own load");
        assert!(process::has_usual_policy(), "the scheduler knows");
        thread::sleep(LINGER);
        pace.rest(true);
        assert_eq!(pace.told, Some(Urgency::Prompt), "another thread's load");
        thread::sleep(LINGER);
        pace.rest(false);
        assert_eq!(pace.told, Some(Urgency::Patient), "after the load");
    }

    #[test]
    fn a_policy_that_somebody_chose_stays() {
        process::set_urgency(Urgency::Patient).unwrap();
        let mut pace = Pace::new(Instant::now());
        pace.tell(Urgency::Prompt);
        pace.rest(true);
        assert!(!process::has_usual_policy());
    }
}
