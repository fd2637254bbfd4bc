//! Ctrl-C and its relatives: noted, so that whoever waits can stop and clean up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Whether the demo was asked to stop.
#[derive(Clone)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Notes SIGINT, SIGTERM and SIGHUP from now on, for the rest of the process.
    ///
    /// # Errors
    /// No thread, or no signal handler.
    pub(super) fn watch() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        drop(entered);
        let stop = Self(Arc::default());
        let noted = stop.clone();
        let wait = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            noted.0.store(true, Ordering::Relaxed);
        };
        thread::Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread")?;
        Ok(stop)
    }

    /// Whether one of them came.
    pub(super) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
