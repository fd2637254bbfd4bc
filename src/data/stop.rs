//! How a worker that sleeps is told to go home.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::poll::EventFd;

/// Set once; readable from then on, so that every poll that includes it returns.
#[derive(Debug)]
pub(super) struct Stop {
    set: AtomicBool,
    event: EventFd,
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { set: AtomicBool::new(false), event: EventFd::new()? })
    }

    pub(super) fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.event.notify();
    }

    pub(super) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
