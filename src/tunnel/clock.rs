//! The wall clock, as far as WireGuard depends on it.
//!
//! An initiation carries a timestamp that must grow (paper, section 5.1), across restarts too: a peer silently
//! refuses one that is not later than the last it saw. An engine reads the wall clock once, when it is made, and
//! counts on from there. So the highest timestamp ever sent is kept on disk: below it we know that, and why, peers
//! are silent, and when the clock steps past it, engines are made anew.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A wall clock reading, as time since 1970 (UTC). Written as seconds, a point, nine digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mark(pub Duration);

/// The text is not a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a clock mark: it is written as seconds since 1970, a point and nine digits")]
pub struct NotAMark;

/// What the clock means for handshakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Timestamps grow.
    Fine,
    /// Timestamps are behind those sent before by so much: peers that saw those refuse our handshakes.
    Behind(Duration),
    /// They are, but the wall clock no longer is: make the engines anew, then call [`Clock::recreated`].
    Recreate,
}

/// Our timestamps against the highest ever sent.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    mark: Mark,
    /// What the engines' clock started from, and when; of several, the one that is ahead.
    base: Base,
    /// Engines that were made after a step back, and the timestamp that they have to pass first.
    late: Option<(Base, Duration)>,
}

/// What an engine's clock started from, and when.
type Base = (Duration, Instant);

impl Clock {
    /// For engines made now, when the wall clock says `wall`; `mark` was read from disk.
    #[must_use]
    pub fn new(mark: Option<Mark>, wall: Duration, now: Instant) -> Self {
        Self { mark: mark.unwrap_or_default(), base: (wall, now), late: None }
    }

    /// Looks at the clocks; to be called every few seconds. Raises the mark while all is fine.
    pub fn check(&mut self, wall: Duration, now: Instant) -> Verdict {
        let ahead = stamp(self.base, now);
        let (lowest, passes) = self.late.map_or((ahead, self.mark.0), |(base, passes)| (stamp(base, now), passes));
        self.mark = self.mark.max(Mark(ahead));
        if lowest >= passes {
            self.late = None;
            Verdict::Fine
        } else if wall > self.mark.0 {
            Verdict::Recreate
        } else {
            Verdict::Behind(passes - lowest.max(wall.min(passes)))
        }
    }

    /// All engines were made anew at `now`, when the wall clock said `wall`.
    pub const fn recreated(&mut self, wall: Duration, now: Instant) {
        self.base = (wall, now);
        self.late = None;
    }

    /// Some engines were made at `now`, when the wall clock said `wall`; the others go on.
    pub fn joined(&mut self, wall: Duration, now: Instant) {
        let ahead = stamp(self.base, now);
        if wall >= ahead {
            self.base = (wall, now);
        } else {
            self.late = Some(((wall, now), self.mark.0.max(ahead)));
        }
    }

    /// The highest timestamp that may have been sent: to be kept on disk.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        self.mark
    }
}

/// The timestamp of a handshake now.
fn stamp((wall, since): Base, now: Instant) -> Duration {
    wall.saturating_add(now.saturating_duration_since(since))
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

impl FromStr for Mark {
    type Err = NotAMark;

    fn from_str(text: &str) -> Result<Self, NotAMark> {
        let (seconds, nanos) = text.trim_end().split_once('.').ok_or(NotAMark)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(seconds) || !digits(nanos) || nanos.len() != 9 {
            return Err(NotAMark);
        }
        let seconds = seconds.parse().map_err(|_| NotAMark)?;
        Ok(Self(Duration::new(seconds, nanos.parse().map_err(|_| NotAMark)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn wall(seconds: u64) -> Duration {
        Duration::from_secs(1_700_000_000 + seconds)
    }

    #[test]
    fn while_the_clock_runs_the_mark_rises_with_it() {
        let start = Instant::now();
        let mut clock = Clock::new(None, wall(0), start);
        for s in 1..100 {
            assert_eq!(clock.check(wall(s), start + Duration::from_secs(s)), Verdict::Fine);
            assert_eq!(clock.mark(), Mark(wall(s)));
        }
    }

    #[test]
    fn a_step_back_while_we_run_changes_nothing_until_the_restart_and_then_is_named() {
        let start = Instant::now();
        let mut clock = Clock::new(None, wall(3600), start);
        let later = start + Duration::from_secs(10);
        assert_eq!(clock.check(wall(0), later), Verdict::Fine);
        let mut restarted = Clock::new(Some(clock.mark()), wall(1), later);
        assert_eq!(restarted.check(wall(1), later), Verdict::Behind(Duration::from_secs(3609)));
        assert_eq!(restarted.mark(), Mark(wall(3610)));
    }

    #[test]
    fn when_the_clock_steps_past_the_mark_engines_are_made_anew() {
        let start = Instant::now();
        let mut clock = Clock::new(Some(Mark(wall(0))), Duration::from_secs(60), start);
        let later = start + Duration::from_secs(30);
        assert!(matches!(clock.check(Duration::from_secs(90), later), Verdict::Behind(_)));
        assert_eq!(clock.check(wall(5), later), Verdict::Recreate);
        clock.recreated(wall(5), later);
        assert_eq!(clock.check(wall(5), later), Verdict::Fine);
        assert_eq!(clock.mark(), Mark(wall(5)));
    }

    #[test]
    fn waiting_the_difference_out_is_fine_too() {
        let start = Instant::now();
        let mut clock = Clock::new(Some(Mark(wall(100))), wall(0), start);
        assert_eq!(clock.check(wall(40), start + Duration::from_secs(40)), Verdict::Behind(Duration::from_secs(60)));
        assert_eq!(clock.check(wall(100), start + Duration::from_secs(100)), Verdict::Fine);
    }

    #[test]
    fn engines_made_after_a_step_back_are_behind_until_they_pass_what_was_sent_by_then() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut clock = Clock::new(None, wall(100), start);
        assert_eq!(clock.check(wall(110), at(10)), Verdict::Fine);
        clock.joined(wall(50), at(20));
        assert_eq!(clock.check(wall(60), at(30)), Verdict::Behind(Duration::from_secs(60)));
        assert_eq!(clock.mark(), Mark(wall(130)), "the others go on");
        assert_eq!(clock.check(wall(119), at(89)), Verdict::Behind(Duration::from_secs(1)));
        assert_eq!(clock.check(wall(120), at(90)), Verdict::Fine);
        assert_eq!(clock.check(wall(121), at(91)), Verdict::Fine);
        clock.joined(wall(60), at(92));
        assert_eq!(clock.check(wall(300), at(93)), Verdict::Recreate, "the clock is right");
        clock.recreated(wall(300), at(93));
        assert_eq!(clock.check(wall(301), at(94)), Verdict::Fine);
    }

    #[test]
    fn engines_made_after_a_step_forward_raise_the_mark() {
        let start = Instant::now();
        let mut clock = Clock::new(None, wall(0), start);
        let later = start + Duration::from_secs(1);
        clock.joined(wall(500), later);
        assert_eq!(clock.check(wall(500), later), Verdict::Fine);
        assert_eq!(clock.mark(), Mark(wall(500)));
    }

    #[test]
    fn a_mark_survives_its_text() {
        let mark = Mark(Duration::new(1_700_000_000, 5));
        assert_eq!(mark.to_string(), "1700000000.000000005");
        assert_eq!(format!("{mark}\n").parse(), Ok(mark));
        for text in
            ["", ".", "1", "1.5", "-1.000000000", "1.00000000x", "+1.000000000", "99999999999999999999.000000000"]
        {
            assert_eq!(text.parse::<Mark>(), Err(NotAMark), "{text}");
        }
    }
}
