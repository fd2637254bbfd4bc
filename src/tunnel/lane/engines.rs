//! The engines of one lane: the one in use and, while it is being replaced, a second.

use std::time::{Duration, Instant};

use super::engine::{Engine, SMALL, Ticked};
use crate::tunnel::id::{SessionIndex, Slot};

/// How long a replaced engine goes on opening what was already on its way.
const LEAVING: Duration = Duration::from_secs(10);
/// How long an engine goes on sealing while its replacement finds no session: no session lives longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Make before break: the engine in use, and the second one.
pub(super) struct Engines {
    active: Engine,
    second: Second,
}

enum Second {
    None,
    /// To take over as soon as it has a session. It answers and makes the handshakes.
    Coming(Engine, Instant),
    /// Only opens, until then.
    Leaving(Engine, Instant),
}

impl Engines {
    pub(super) const fn new(first: Engine) -> Self {
        Self { active: first, second: Second::None }
    }

    /// The engine that seals.
    pub(super) const fn active(&mut self) -> &mut Engine {
        &mut self.active
    }

    /// The engine that answers initiations and makes them.
    pub(super) const fn newest(&mut self) -> &mut Engine {
        match &mut self.second {
            Second::Coming(engine, _) => engine,
            Second::None | Second::Leaving(..) => &mut self.active,
        }
    }

    /// The engine that owns the session.
    pub(super) fn owner(&mut self, index: SessionIndex) -> Option<&mut Engine> {
        let slot = index.slot();
        match &mut self.second {
            Second::Coming(engine, _) | Second::Leaving(engine, _) if engine.slot() == slot => Some(engine),
            Second::None | Second::Coming(..) | Second::Leaving(..) => {
                Some(&mut self.active).filter(|engine| engine.slot() == slot)
            }
        }
    }

    pub(super) const fn is_replacing(&self) -> bool {
        matches!(self.second, Second::Coming(..))
    }

    /// The slot that a replacement has to take.
    pub(super) fn free_slot(&self, slots: [Slot; 2]) -> Slot {
        let [first, second] = slots;
        if self.active.slot() == first { second } else { first }
    }

    /// `engine` shall take over once it has a session.
    pub(super) fn replace(&mut self, engine: Engine, now: Instant) {
        self.second = Second::Coming(engine, now);
    }

    /// Lets a coming engine take over if it has a session.
    pub(super) fn promote(&mut self, now: Instant) {
        if matches!(&self.second, Second::Coming(engine, _) if engine.sessions().current().is_some()) {
            self.take_over(now);
        }
    }

    fn take_over(&mut self, now: Instant) {
        if let Second::Coming(engine, _) = std::mem::replace(&mut self.second, Second::None) {
            let old = std::mem::replace(&mut self.active, engine);
            self.second = Second::Leaving(old, now);
        }
    }

    /// Runs the timers of all engines; what is made is the newest one's.
    pub(super) fn tick(&mut self, now: Instant, out: &mut [u8; SMALL]) -> Ticked {
        self.expire(now);
        match &mut self.second {
            Second::Coming(engine, _) => {
                self.active.tick(now, &mut [0; SMALL]);
                engine.tick(now, out)
            }
            Second::Leaving(engine, _) => {
                engine.tick(now, &mut [0; SMALL]);
                self.active.tick(now, out)
            }
            Second::None => self.active.tick(now, out),
        }
    }

    fn expire(&mut self, now: Instant) {
        match &self.second {
            Second::Coming(_, since) if now.saturating_duration_since(*since) >= PATIENCE => {
                self.take_over(now);
                self.second = Second::None;
            }
            Second::Leaving(_, since) if now.saturating_duration_since(*since) >= LEAVING => {
                self.second = Second::None;
            }
            Second::None | Second::Coming(..) | Second::Leaving(..) => {}
        }
    }
}
