//! How soon a data thread gets a core once it is awake.
//!
//! Under load soon, ahead of threads that are at work: else a small packet waits for a time slice at every step of its
//! way. Without load not so: the thread that woke it up has little left to do, and then the core is free. To be run
//! there needs no other core to be woken up, which takes long on a virtual machine.

use std::time::{Duration, Instant};

use crate::sys::process;

/// How long after much to carry there is load.
pub(super) const LINGER: Duration = Duration::from_millis(20);

/// Of one thread.
pub(super) struct Pace {
    prompt: bool,
    much: bool,
    load_until: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { prompt: false, much: false, load_until: now }
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
        let prompt = now < self.load_until;
        if prompt != self.prompt {
            self.prompt = prompt;
            set(prompt);
        }
    }
}

/// Asks the scheduler for it.
pub(super) fn set(prompt: bool) {
    if let Err(error) = process::be_prompt(prompt) {
        tracing::trace!(%error, "a longer way to a core where others are busy");
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
        assert!(!pace.prompt, "without load");
        pace.much();
        pace.rest(false);
        assert!(pace.prompt, "its own load");
        thread::sleep(LINGER);
        pace.rest(true);
        assert!(pace.prompt, "another thread's load");
        thread::sleep(LINGER);
        pace.rest(false);
        assert!(!pace.prompt, "after the load");
    }
}
