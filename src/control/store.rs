//! The queues of the TUN in the service manager's store (sd_pid_notify_with_fds(3), FDSTORE): as long as one of them is
//! open, the interface is there, with its addresses and routes. So they outlive a restart, and a crash.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};

use sd_notify::NotifyState;
use tracing::{info, warn};

use crate::config::Interface;
use crate::sys::tun::{self, Device, Queue, TunError};

/// Each has a name of its own, so that one can be removed.
const PREFIX: &str = "queue-";
/// Watched by the manager, every packet would wake it. A queue whose interface was deleted is found at the next start.
const UNWATCHED: NotifyState<'_> = NotifyState::Custom("FDPOLL=0");

/// What the manager holds, and shall hold.
pub(super) struct Store {
    keep: bool,
    restart: bool,
    /// The names of the queues in use that it has already, in their order.
    names: Vec<String>,
}

impl Store {
    /// The interface: with the queues that were left there, if they are of use, else a new one. What is there and of no
    /// use goes, in any case.
    pub(super) fn open(
        interface: &Interface,
        workers: usize,
        left: Vec<(String, OwnedFd)>,
        keep: bool,
    ) -> Result<(Device, Self), TunError> {
        let (name, offload) = (&interface.name, interface.offload);
        let is_of_use = |queue: &OwnedFd| keep && tun::is_queue_of(queue, name);
        let (queues, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, queue)| is_of_use(queue));
        others.iter().for_each(|(name, _)| remove(name));
        drop(others);
        let (names, queues) = sorted(queues);
        let adopted = tun::adopt(name, queues, workers, offload)?;
        let restart = adopted.is_some();
        let used = workers.min(names.len());
        names.iter().skip(used).for_each(|name| remove(name));
        let device = match adopted {
            Some(device) => device,
            None => tun::open(name, workers, offload)?,
        };
        if restart {
            info!(interface = name, queues = used, "going on with the interface that was left here");
        }
        Ok((device, Self { keep, restart, names: names.into_iter().take(used).collect() }))
    }

    /// Whether the interface was there before.
    pub(super) const fn is_restart(&self) -> bool {
        self.restart
    }

    /// Gives the manager those of `queues` that it does not have.
    pub(super) fn keep(&self, queues: &[Queue]) {
        if !self.keep {
            return;
        }
        let taken: BTreeSet<&String> = self.names.iter().collect();
        let free = (0..).map(|number: usize| format!("{PREFIX}{number}")).filter(|name| !taken.contains(name));
        for (queue, name) in queues.iter().skip(self.names.len()).zip(free) {
            let state = [NotifyState::FdStore, NotifyState::FdName(&name), UNWATCHED];
            if let Err(error) = sd_notify::notify_with_fds(&state, &[queue.as_fd()]) {
                warn!("the service manager does not take the interface's queues ({error}): a restart will remove it");
                return;
            }
        }
    }
}

/// In the order of their numbers.
fn sorted(mut left: Vec<(String, OwnedFd)>) -> (Vec<String>, Vec<OwnedFd>) {
    let number = |name: &str| name.strip_prefix(PREFIX).and_then(|number| number.parse::<usize>().ok());
    left.sort_by_key(|(name, _)| (number(name).is_none(), number(name)));
    left.into_iter().unzip()
}

fn remove(name: &str) {
    if let Err(error) = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]) {
        warn!("cannot remove {name} from the service manager's store: {error}");
    }
}
