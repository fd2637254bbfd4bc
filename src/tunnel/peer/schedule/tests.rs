//! The schedule by itself: a model lane, virtual time, no boringtun.

use super::*;

const TICK: Duration = Duration::from_millis(250);
const POLICY: Policy =
    Policy { initiates: Initiates::Always, configured: true, smaller: true, keepalive: Some(Duration::from_secs(10)) };

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// A lane with a session, heard and sent just now.
fn lively() -> LaneView {
    LaneView {
        session: true,
        session_age: seconds(1),
        last_handshake: seconds(1),
        last_receive: seconds(1),
        last_send: seconds(1),
        ..LaneView::default()
    }
}

/// How long after each other the schedule initiates within `time` while the view stays the same.
fn gaps(schedule: &mut Schedule, view: &LaneView, time: Duration) -> Vec<Duration> {
    let start = Instant::now();
    let ticks = (0..).map(|i| start + TICK * i).take_while(|now| *now < start + time);
    let attempts: Vec<Instant> = ticks.filter(|now| schedule.next(*now, view) == Act::Initiate).collect();
    attempts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn initiates(policy: Policy, view: &LaneView) -> bool {
    Schedule::new(policy, 1).next(Instant::now(), view) == Act::Initiate
}

#[test]
fn a_wanted_tunnel_initiates_at_once_and_for_ever_while_it_is_dark() {
    let mut schedule = Schedule::new(POLICY, 7);
    let gaps = gaps(&mut schedule, &LaneView::default(), Duration::from_secs(3600));
    assert!(gaps.len() > 640, "{}", gaps.len());
    assert!(gaps.iter().all(|gap| *gap >= ATTEMPT && *gap <= ATTEMPT + ATTEMPT_JITTER + TICK));
    assert!(gaps.iter().any(|gap| *gap != gaps[0]), "no jitter");
}

#[test]
fn two_ends_do_not_stay_in_phase() {
    let attempts = |seed| {
        let mut schedule = Schedule::new(POLICY, seed);
        gaps(&mut schedule, &LaneView::default(), Duration::from_secs(300))
    };
    assert_ne!(attempts(1), attempts(2));
}

#[test]
fn a_tunnel_that_waits_initiates_only_within_90_s_of_hearing_its_peer() {
    let waits = Policy { initiates: Initiates::WhenHeard, ..POLICY };
    let heard = |age| LaneView { last_receive: seconds(age), ..LaneView::default() };
    assert!(!initiates(waits, &LaneView::default()));
    assert!(initiates(waits, &heard(89)));
    assert!(!initiates(waits, &heard(90)));
}

#[test]
fn silence_of_15_s_makes_it_initiate_in_spite_of_a_session() {
    let silent = |age| LaneView { last_receive: seconds(age), ..lively() };
    assert!(!initiates(POLICY, &silent(14)));
    assert!(initiates(POLICY, &silent(15)));
}

#[test]
fn without_keepalives_only_an_unanswered_packet_tells_silence() {
    let quiet = Policy { keepalive: None, ..POLICY };
    assert!(!initiates(quiet, &LaneView { last_receive: seconds(100), ..lively() }));
    assert!(initiates(quiet, &LaneView { unanswered: seconds(15), ..lively() }));
}

#[test]
fn each_end_renews_at_its_own_age() {
    let ages = [(true, true, 115), (true, false, 118), (false, true, 130), (false, false, 130)];
    for (configured, smaller, due) in ages {
        let policy = Policy { configured, smaller, ..POLICY };
        let aged = |age| LaneView { last_handshake: seconds(age), ..lively() };
        assert!(!initiates(policy, &aged(due - 1)));
        assert!(initiates(policy, &aged(due + 2)));
    }
}

#[test]
fn the_jitter_of_a_renewal_stays_the_same_for_a_session_and_below_1500_ms() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut schedule = Schedule::new(POLICY, seed);
        let start = Instant::now();
        let due = (0..1000).map(|i| Duration::from_millis(114_000 + 10 * i)).find(|age| {
            let view = LaneView { last_handshake: Some(*age), ..lively() };
            schedule.next(start, &view) == Act::Initiate
        });
        seen.insert(due.unwrap());
    }
    assert!(seen.len() > 50);
    assert!(seen.iter().all(|due| *due >= RENEW_SMALLER && *due < RENEW_SMALLER + RENEW_JITTER + TICK));
}

#[test]
fn a_renewal_waits_while_the_peers_own_is_under_way() {
    let aged = LaneView { last_handshake: seconds(119), last_answer: seconds(1), ..lively() };
    assert!(!initiates(POLICY, &aged));
    assert!(initiates(POLICY, &LaneView { last_answer: seconds(6), ..aged }));
}

#[test]
fn a_keepalive_goes_out_only_when_nothing_else_did() {
    let next = |policy, view: &LaneView| Schedule::new(policy, 1).next(Instant::now(), view);
    let idle = LaneView { last_send: seconds(10), ..lively() };
    assert_eq!(next(POLICY, &idle), Act::Keepalive);
    assert_eq!(next(POLICY, &lively()), Act::Nothing);
    assert_eq!(next(Policy { keepalive: None, ..POLICY }, &idle), Act::Nothing);
}

#[test]
fn a_worn_session_a_replacement_and_boringtuns_wish_all_initiate() {
    assert!(initiates(POLICY, &LaneView { worn: true, ..lively() }));
    assert!(initiates(POLICY, &LaneView { replacing: true, ..lively() }));
    let mut schedule = Schedule::new(POLICY, 1);
    schedule.wish();
    assert_eq!(schedule.next(Instant::now(), &lively()), Act::Initiate);
    assert_eq!(schedule.next(Instant::now() + ATTEMPT * 2, &lively()), Act::Nothing);
}

#[test]
fn a_new_address_need_not_wait() {
    let mut schedule = Schedule::new(POLICY, 1);
    let now = Instant::now();
    assert_eq!(schedule.next(now, &LaneView::default()), Act::Initiate);
    assert_eq!(schedule.next(now + TICK, &LaneView::default()), Act::Nothing);
    schedule.hurry();
    assert_eq!(schedule.next(now + TICK, &LaneView::default()), Act::Initiate);
}

#[test]
fn attempts_are_in_vain_from_the_second_on_until_the_peer_is_heard() {
    let mut schedule = Schedule::new(POLICY, 1);
    let start = Instant::now();
    let mut attempt = |after: u64, heard| {
        let view = LaneView { last_receive: heard, ..LaneView::default() };
        assert_eq!(schedule.next(start + Duration::from_secs(after), &view), Act::Initiate);
        schedule.is_in_vain()
    };
    assert!(!attempt(0, None), "the first ever");
    assert!(attempt(10, None));
    assert!(!attempt(20, seconds(5)), "heard after the second");
    assert!(attempt(30, seconds(15)));
}

const ON_DEMAND: Policy = Policy { initiates: Initiates::OnDemand, configured: true, smaller: true, keepalive: None };

#[test]
fn on_demand_a_packet_makes_it_initiate_for_90_seconds() {
    let dark = LaneView::default();
    assert!(!initiates(ON_DEMAND, &dark));
    let mut schedule = Schedule::new(ON_DEMAND, 3);
    let start = Instant::now();
    schedule.demand(start);
    let ticks = (0..4 * 200).map(|i| start + TICK * i);
    let attempts: Vec<Instant> = ticks.filter(|now| schedule.next(*now, &dark) == Act::Initiate).collect();
    assert!((15..=18).contains(&attempts.len()), "{}", attempts.len());
    assert!(attempts.iter().all(|at| *at < start + PATIENCE));
}

#[test]
fn on_demand_an_idle_session_is_let_go_and_an_unanswered_packet_asks() {
    let old = LaneView { last_handshake: seconds(170), last_receive: seconds(170), ..lively() };
    assert!(!initiates(ON_DEMAND, &old));
    assert!(initiates(ON_DEMAND, &LaneView { unanswered: seconds(15), ..lively() }));
    let mut schedule = Schedule::new(ON_DEMAND, 1);
    schedule.wish();
    assert_eq!(schedule.next(Instant::now(), &lively()), Act::Initiate);
}

#[test]
fn on_demand_a_persistent_keepalive_is_demand_but_needs_no_answer() {
    let keeps = Policy { keepalive: seconds(25), ..ON_DEMAND };
    assert!(initiates(keeps, &LaneView::default()));
    let quiet = LaneView { last_send: seconds(25), last_receive: seconds(60), ..lively() };
    assert_eq!(Schedule::new(keeps, 1).next(Instant::now(), &quiet), Act::Keepalive);
}

#[test]
fn the_first_persistent_keepalive_goes_out_as_soon_as_they_are_switched_on() {
    let mut schedule = Schedule::new(ON_DEMAND, 1);
    let mut next = |keepalive| {
        schedule.set_keepalive(keepalive);
        schedule.next(Instant::now(), &lively())
    };
    assert_eq!(next(None), Act::Nothing);
    assert_eq!(next(seconds(25)), Act::Keepalive);
    assert_eq!([next(seconds(25)), next(seconds(20)), next(None)], [Act::Nothing; 3]);
    assert_eq!([next(seconds(25)), next(seconds(25))], [Act::Keepalive, Act::Nothing]);
}

#[test]
fn a_handshake_brings_the_first_persistent_keepalive_with_it() {
    let mut schedule = Schedule::new(ON_DEMAND, 1);
    schedule.set_keepalive(seconds(25));
    assert_eq!(schedule.next(Instant::now(), &LaneView::default()), Act::Initiate);
    assert_eq!(schedule.next(Instant::now(), &lively()), Act::Nothing);
}
