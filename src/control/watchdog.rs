//! The service manager's watchdog: fed only while every worker moves.

use tracing::error;

/// Compares heartbeats.
pub(super) struct Watchdog {
    enabled: bool,
    last: Vec<u64>,
}

impl Watchdog {
    /// Of this process; does nothing unless the service manager wants to be fed.
    pub(super) fn new() -> Self {
        Self { enabled: sd_notify::watchdog_enabled().is_some(), last: Vec::new() }
    }

    /// Feeds if every heartbeat has moved since the last feeding.
    pub(super) fn feed(&mut self, heartbeats: Vec<u64>) {
        if self.enabled
            && self.all_moved(heartbeats)
            && let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog])
        {
            error!("cannot feed the watchdog: {error}");
        }
    }

    fn all_moved(&mut self, heartbeats: Vec<u64>) -> bool {
        let moved = heartbeats.iter().zip(&self.last).all(|(now, last)| now != last);
        if moved {
            self.last = heartbeats;
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frozen_worker_ends_the_feeding() {
        let mut watchdog = Watchdog { enabled: true, last: Vec::new() };
        assert!(watchdog.all_moved(vec![1, 1]));
        assert!(watchdog.all_moved(vec![2, 3]));
        assert!(!watchdog.all_moved(vec![3, 3]));
        assert!(!watchdog.all_moved(vec![9, 3]), "frozen since the last feeding");
        assert!(watchdog.all_moved(vec![10, 4]));
    }
}
