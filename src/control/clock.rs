//! Keeps the wall clock's high-water mark on disk, and names a clock that was set back: peers refuse its handshakes.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use super::state::State;
use crate::tunnel::Clock;
use crate::tunnel::clock::Verdict;

/// How often the mark is written.
const WRITE: Duration = Duration::from_secs(60);

/// What is to be done about handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing.
    Fine,
    /// Far ends take them again: who waits for an answer need not wait for its turn.
    RightAgain,
    /// Every handshake has to start over with the wall clock of now.
    Recreate,
}

/// The clock of one daemon.
pub(super) struct ClockWatch {
    state: State,
    clock: Clock,
    written: Option<Instant>,
    behind: Option<Duration>,
}

impl ClockWatch {
    pub(super) fn new(directory: Option<&Path>, name: &str) -> Self {
        let state = State::new(directory, name);
        let mark = state.clock().and_then(|text| text.parse().ok());
        Self { state, clock: Clock::new(mark, wall(), Instant::now()), written: None, behind: None }
    }

    /// Looks at the clocks.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        match self.clock.check(wall(), now) {
            Verdict::Fine => self.fine(now),
            Verdict::Behind(by) => {
                self.name(by);
                Look::Fine
            }
            Verdict::Recreate => {
                self.clock.recreated(wall(), now);
                self.behind = None;
                Look::Recreate
            }
        }
    }

    /// Some handshakes start over with the wall clock of now.
    pub(super) fn joined(&mut self, now: Instant) {
        self.clock.joined(wall(), now);
    }

    /// By how much it was set back.
    pub(super) fn behind(&self) -> Duration {
        self.behind.unwrap_or_default()
    }

    /// What the status says of it.
    pub(super) fn warning(&self) -> Option<String> {
        self.behind.map(|by| {
            format!(
                "the clock is {} s behind what far ends have seen from here: they refuse handshakes until it is right \
                 (set the clock, then nothing else is to be done)",
                by.as_secs()
            )
        })
    }

    /// Writes the mark at a stop.
    pub(super) fn close(&mut self, now: Instant) {
        self.look(now);
        self.write(now);
    }

    fn fine(&mut self, now: Instant) -> Look {
        let was_behind = self.behind.take().is_some();
        if was_behind {
            info!("the clock is right again");
        }
        if self.written.is_none_or(|written| now.saturating_duration_since(written) >= WRITE) {
            self.write(now);
        }
        if was_behind { Look::RightAgain } else { Look::Fine }
    }

    fn write(&mut self, now: Instant) {
        self.state.set_clock(&self.clock.mark().to_string());
        self.written = Some(now);
    }

    fn name(&mut self, by: Duration) {
        let is_news = self.behind.is_none();
        self.behind = Some(by);
        if let Some(warning) = self.warning().filter(|_| is_news) {
            warn!("{warning}");
        }
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
