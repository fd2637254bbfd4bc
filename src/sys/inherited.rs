//! What the service manager opened for this process and handed over at its start.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that were handed over (`LISTEN_FDS`, see sd_listen_fds(3)) with their names; none the second time.
///
/// Call it first: a descriptor that this process opened itself would be taken for one of them if the environment lies.
///
/// # Errors
///
/// When the environment makes no sense, or names descriptors that are not there.
pub fn descriptors() -> io::Result<Vec<(String, OwnedFd)>> {
    // Names without descriptors are another process's, of which this one was born.
    if TAKEN.swap(true, Ordering::Relaxed) || sd_notify::listen_fds()?.len() == 0 {
        return Ok(Vec::new());
    }
    Ok(sd_notify::listen_fds_with_names()?.map(|(fd, name)| (name, own(fd))).collect())
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: open, as sd_notify has seen, and of nobody else in this process: it came with it, and is taken once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
