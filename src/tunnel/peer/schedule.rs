//! When to initiate and when to send a keepalive: a pure state machine, asked at each tick.
//!
//! boringtun's own timers have no jitter, give up after 90 s, and never renew an idle session; what they would send
//! is taken here as a wish at the most.

use std::time::{Duration, Instant};

use super::super::lane::LaneView;
use super::super::random::Random;
use super::Initiates;

/// Attempts are at least so far apart (paper, section 6.1: Rekey-Timeout), plus jitter.
pub(super) const ATTEMPT: Duration = Duration::from_secs(5);
const ATTEMPT_JITTER: Duration = Duration::from_millis(500);
/// A peer that is silent for so long is asked whether it is there (Keepalive-Timeout + Rekey-Timeout).
const SILENCE: Duration = Duration::from_secs(15);
/// The age at which the end with the smaller public key renews.
const RENEW_SMALLER: Duration = Duration::from_secs(115);
/// The age at which the other one does, should the first have failed to: still before boringtun's 120 s.
const RENEW_LARGER: Duration = Duration::from_secs(118);
/// The age at which an end without a configured endpoint does.
const RENEW_LEARNED: Duration = Duration::from_secs(130);
const RENEW_JITTER: Duration = Duration::from_millis(1500);
/// A tunnel that only waits for its peer gives up this long after it last heard it, and one on demand this long after
/// its last packet (Rekey-Attempt-Time).
const PATIENCE: Duration = Duration::from_secs(90);

/// What does not change by itself in a schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) initiates: Initiates,
    /// The endpoint was configured, not learned.
    pub(super) configured: bool,
    /// Our public key is the smaller one.
    pub(super) smaller: bool,
    /// Be heard at least this often.
    pub(super) keepalive: Option<Duration>,
}

/// What to send now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    Nothing,
    Initiate,
    Keepalive,
}

/// The state of one peer's schedule.
#[derive(Debug)]
pub(super) struct Schedule {
    policy: Policy,
    random: Random,
    /// The next attempt is allowed from then on.
    next_attempt: Option<Instant>,
    /// The last attempt.
    tried: Option<Instant>,
    /// The peer was not heard between the last attempt and the one before.
    in_vain: bool,
    /// boringtun has a handshake to finish.
    wish: bool,
    /// Persistent keepalives were switched on, and none was sent since.
    owes_keepalive: bool,
    /// When a packet last waited for a session.
    demand: Option<Instant>,
    /// When the peer was heard by the process before this one.
    recalled: Option<Instant>,
    /// The jitter of the newest session's renewal, and that session's age when it was last looked at.
    renewal: (Duration, Duration),
}

impl Schedule {
    pub(super) const fn new(policy: Policy, seed: u64) -> Self {
        let renewal = (Duration::ZERO, Duration::MAX);
        Self {
            policy,
            random: Random::new(seed),
            next_attempt: None,
            tried: None,
            in_vain: false,
            wish: false,
            owes_keepalive: false,
            demand: None,
            recalled: None,
            renewal,
        }
    }

    /// boringtun's timers made an initiation.
    pub(super) const fn wish(&mut self) {
        self.wish = true;
    }

    /// A packet waits for a session.
    pub(super) const fn demand(&mut self, now: Instant) {
        self.demand = Some(now);
    }

    /// The peer was heard by the process before this one.
    pub(super) const fn recall(&mut self, now: Instant) {
        self.recalled = Some(now);
    }

    pub(super) const fn keepalive(&self) -> Option<Duration> {
        self.policy.keepalive
    }

    /// Switched on, the first is due at once, as in the kernel.
    pub(super) const fn set_keepalive(&mut self, keepalive: Option<Duration>) {
        self.owes_keepalive = keepalive.is_some() && (self.owes_keepalive || self.policy.keepalive.is_none());
        self.policy.keepalive = keepalive;
    }

    /// The configuration has changed.
    pub(super) const fn follow(&mut self, initiates: Initiates, configured: bool, keepalive: Option<Duration>) {
        self.policy.initiates = initiates;
        self.policy.configured = configured;
        self.set_keepalive(keepalive);
    }

    pub(super) const fn set_smaller(&mut self, smaller: bool) {
        self.policy.smaller = smaller;
    }

    /// The peer is to hear from us as soon as may be.
    pub(super) const fn announce(&mut self) {
        self.owes_keepalive = true;
        self.hurry();
    }

    /// The peer may be elsewhere now: the next attempt need not wait.
    pub(super) const fn hurry(&mut self) {
        self.next_attempt = None;
    }

    /// Whether an attempt was made so recently that the next has to wait.
    pub(super) fn must_wait(&self, now: Instant) -> bool {
        self.next_attempt.is_some_and(|next| now < next)
    }

    /// What to send to the peer, whose address is known. An [`Act::Initiate`] counts as an attempt.
    pub(super) fn next(&mut self, now: Instant, view: &LaneView) -> Act {
        let renew = self.renewal_is_due(view);
        if !self.is_active(now, view) {
            self.wish = false;
        } else if (renew || self.needs_session(view)) && !self.must_wait(now) {
            self.attempt(now, view);
            return Act::Initiate;
        }
        let quiet = |interval| view.last_send.is_none_or(|age| age >= interval);
        if view.session && (self.owes_keepalive || self.policy.keepalive.is_some_and(quiet)) {
            self.owes_keepalive = false;
            return Act::Keepalive;
        }
        Act::Nothing
    }

    fn attempt(&mut self, now: Instant, view: &LaneView) {
        self.wish = false;
        let heard_since = |tried| view.last_receive.is_some_and(|age| age <= now.saturating_duration_since(tried));
        self.in_vain = self.tried.is_some_and(|tried| !heard_since(tried));
        self.tried = Some(now);
        // The handshake ends with one.
        self.owes_keepalive = false;
        self.next_attempt = Some(now + ATTEMPT + self.random.below(ATTEMPT_JITTER));
    }

    /// Whether the last attempt came after another one without the peer being heard in between.
    pub(super) const fn is_in_vain(&self) -> bool {
        self.in_vain
    }

    /// Whether we may initiate at all.
    pub(super) fn is_active(&self, now: Instant, view: &LaneView) -> bool {
        let fresh = |then| now.saturating_duration_since(then) < PATIENCE;
        match self.policy.initiates {
            Initiates::Always => true,
            Initiates::WhenHeard => {
                view.last_receive.is_some_and(|age| age < PATIENCE) || self.recalled.is_some_and(fresh)
            }
            Initiates::OnDemand => view.session || self.policy.keepalive.is_some() || self.demand.is_some_and(fresh),
        }
    }

    fn needs_session(&self, view: &LaneView) -> bool {
        let silent = self.silence(view).is_some_and(|silence| silence >= SILENCE);
        !view.session || silent || view.worn || view.replacing || self.wish
    }

    /// For how long the peer has been silent although it should be heard. Without keepalives, only a packet that
    /// nothing came back for can tell; nor may we count on the keepalives of a peer that follows WireGuard's rules.
    pub(super) fn silence(&self, view: &LaneView) -> Option<Duration> {
        let counts_on_keepalives = self.policy.keepalive.is_some() && self.policy.initiates != Initiates::OnDemand;
        if counts_on_keepalives { view.last_receive } else { view.unanswered }
    }

    fn renewal_is_due(&mut self, view: &LaneView) -> bool {
        // On demand, boringtun's timers say when: only the initiator renews, and only when it sends.
        let Some(age) = view.last_handshake.filter(|_| self.policy.initiates != Initiates::OnDemand) else {
            return false;
        };
        let (jitter, seen) = self.renewal;
        let jitter = if age < seen { self.random.below(RENEW_JITTER) } else { jitter };
        self.renewal = (jitter, age);
        // The peer is about to: wait whether it confirms.
        let answered = view.last_answer.is_some_and(|answer| answer < ATTEMPT);
        !answered && age >= self.renew_after() + jitter
    }

    const fn renew_after(&self) -> Duration {
        match (self.policy.configured, self.policy.smaller) {
            (true, true) => RENEW_SMALLER,
            (true, false) => RENEW_LARGER,
            (false, _) => RENEW_LEARNED,
        }
    }
}

#[cfg(test)]
mod tests;
