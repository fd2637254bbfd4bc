//! The traps that take minutes and hours, in virtual time.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn in_phase() -> Net {
    linked_as([Plan::default(), Plan::default()])
}

#[test]
fn trap_1_a_path_that_was_black_for_200_s_is_up_again_within_6_s() {
    for black in [95, 200, 700, 2000] {
        for plans in
            [[Plan::default(), Plan::default()], [Plan::default(), Plan { configured: false, ..Plan::default() }]]
        {
            let mut net = linked_as(plans);
            net.run(SECOND * 30);
            net.black = true;
            net.wire.clear();
            net.run_for(SECOND * black);
            assert!(!net.both_up());
            net.black = false;
            net.run_for(SECOND * 6);
            assert!(net.both_up(), "after {black} s");
            net.data(0, 1);
            net.data(1, 1);
            net.run_for(SECOND);
            assert!(net.ends.iter().all(|end| end.inbox.len() == 1));
        }
    }
}

#[test]
fn trap_1_an_end_that_only_waits_gives_up_but_answers() {
    let waits = || Plan { wanted: false, ..Plan::default() };
    let mut net = Net::new([Plan::default(), waits()]);
    net.ends[0].next_tick = SECOND * 1000 + TICK;
    net.run(SECOND * 1000);
    assert_eq!(net.initiations(), 0);
    net.run_for(SECOND);
    assert!(net.both_up());
}

#[test]
fn trap_2_a_request_each_20_s_makes_no_storm_of_initiations() {
    let mut net = in_phase();
    let before = net.initiations();
    for number in 0..30 {
        net.data(0, number);
        net.run_for(SECOND / 10);
        net.data(1, number);
        net.run_for(SECOND * 20 - SECOND / 10);
    }
    let made = net.initiations() - before;
    assert!((5..=8).contains(&made), "{made}");
    assert!(net.ends.iter().all(|end| end.inbox.len() == 30));
}

#[test]
fn traps_3_and_4_in_an_idle_hour_there_is_always_a_session_and_few_initiations() {
    for latency in [1, 50, 300] {
        let mut net = Net::new([Plan::default(), Plan::default()]);
        net.latency = Duration::from_millis(latency);
        net.run(SECOND * 3);
        net.run_with(HOUR, |net, which| assert!(net.session(which), "end {which} at {:?}", net.elapsed));
        assert!((30..=40).contains(&net.initiations()), "{}", net.initiations());
        let [smaller, larger] = net.ends.each_ref().map(|end| end.initiations.len());
        assert!(larger <= 3, "the larger key renews only when the smaller does not: {smaller} and {larger}");
    }
}

#[test]
fn traps_3_and_4_hold_when_only_one_end_knows_the_other() {
    for configured in [[true, false], [false, true]] {
        let [a, b] = configured.map(|configured| Plan { configured, ..Plan::default() });
        let mut net = linked_as([a, b]);
        net.run_with(HOUR, |net, which| assert!(net.session(which), "end {which} at {:?}", net.elapsed));
        assert!((30..=40).contains(&net.initiations()), "{}", net.initiations());
        let learned = usize::from(configured[0]);
        assert!(net.ends[learned].initiations.is_empty());
    }
}

#[test]
fn trap_4_if_the_renewing_end_cannot_the_other_one_does() {
    let mut net = in_phase();
    net.run_with(HOUR, |net, _| {
        net.wire
            .retain(|flying| flying.from != net.ends[0].here || wire::kind(&flying.bytes) != Some(Kind::Initiation));
        assert!(net.session(0) && net.session(1), "{:?}", net.elapsed);
    });
    assert!((28..=32).contains(&net.ends[1].initiations.len()), "{}", net.ends[1].initiations.len());
}

#[test]
fn sessions_are_renewed_under_traffic_without_losing_a_packet() {
    let mut net = in_phase();
    let mut sent = 0;
    net.run_with(MINUTE * 20, |net, which| {
        net.data(which, 1);
        sent += 1;
    });
    net.run_for(SECOND);
    assert_eq!(net.ends.iter().map(|end| end.inbox.len()).sum::<usize>(), sent);
}

#[test]
fn trap_5_a_restarted_peer_that_knows_us_is_back_at_once() {
    let mut net = in_phase();
    let mut spare = net.spare(1, &Plan::default());
    net.run(MINUTE);
    spare.next_tick = net.elapsed;
    net.ends[1] = spare;
    net.run_for(SECOND / 2);
    assert!(net.session(0) && net.session(1));
    net.data(0, 1);
    net.data(1, 1);
    net.run_for(SECOND);
    assert!(net.ends.iter().all(|end| end.inbox.len() == 1));
}

#[test]
fn trap_5_a_restarted_peer_that_does_not_know_us_is_noticed_after_15_s() {
    let learned = || Plan { configured: false, ..Plan::default() };
    let mut net = linked_as([Plan::default(), learned()]);
    let mut spare = net.spare(1, &learned());
    net.run(MINUTE);
    spare.next_tick = net.elapsed;
    net.ends[1] = spare;
    net.run_for(SECOND * 16);
    assert!(net.session(0) && net.session(1));
    net.data(1, 1);
    net.run_for(SECOND);
    assert_eq!(net.ends[0].inbox.len(), 1);
}

#[test]
fn trap_6_a_session_ends_180_s_after_its_handshake() {
    let silent = || Plan { keepalive: None, wanted: false, ..Plan::default() };
    let mut net = Net::new([Plan { wanted: true, ..silent() }, silent()]);
    net.run(SECOND);
    net.black = true;
    net.run(SECOND * 179);
    assert!(net.session(0) && net.session(1));
    net.run(SECOND * 182);
    assert!(!net.session(0) && !net.session(1));
    assert!(!net.try_data(0, [marked(1)]));
}

#[test]
fn trap_12_boringtuns_queue_is_empty_after_a_handshake() {
    // Its timers queue a keepalive if the session expires just before one is due.
    let mut net = linked();
    for second in 1..186 {
        net.ends.iter_mut().for_each(|end| end.next_tick = HOUR);
        for _ in 0..4 {
            net.run_for(TICK);
            for end in &net.ends {
                end.peer.lane.tick(net.now(), &mut [0; SMALL]);
            }
        }
        match second {
            172 => net.data(1, 1),
            165 | 176 => net.data(0, 1),
            _ => {}
        }
    }
    assert!(net.ends[1].inbox.len() == 2 && !net.session(1));
    // The second end initiates, and gets its session.
    let [a, b] = net.ends.each_ref().map(|end| &end.peer.lane);
    let (now, from, mut out) = (net.now(), at("192.0.2.1:1000"), [0; SMALL]);
    let len = b.initiate(&mut out).unwrap();
    let message = out[..len].to_vec();
    let len = a.handshake(now, &message, &from, &mut out).unwrap().reply.unwrap();
    let message = out[..len].to_vec();
    b.handshake(now, &message, &from, &mut out).unwrap();
    let mut sealed = SealBuffer::new(4, MTU);
    assert_eq!(seal(&net, 1, 0, 1, &mut sealed), Ok(()));
    // 0 was the confirming keepalive and 1 the queued one, which is gone.
    assert_eq!(sealed.bytes()[8], 2);
}

#[test]
fn trap_16_after_a_step_back_the_peer_refuses_us_until_the_engine_is_made_anew() {
    let mut net = in_phase();
    net.run(SECOND * 200);
    // Under a virtual clock, an engine that is made late stamps too early: as after a step back.
    let behind = net.spare(0, &Plan::default());
    net.ends[0] = behind;
    net.ends[0].next_tick = net.elapsed;
    net.ends[1].next_tick = HOUR;
    net.run_for(SECOND * 60);
    assert!(!net.session(0));
    assert!(net.dropped(1, Reason::InHandshakeRefused) > 5);
    // Then the clock steps forward.
    mock_instant::MockClock::set_time(mock_instant::MockClock::time() - SECOND * 200);
    net.ends[0].peer.recreate(net.now());
    mock_instant::MockClock::advance(SECOND * 200);
    net.run_for(SECOND);
    assert!(net.session(0));
}

#[test]
fn through_loss_of_a_fifth_a_handshake_takes_less_than_30_s_and_sessions_stay() {
    for seed in 0..50_u64 {
        let mut net = Net::new([Plan::default(), Plan::default()]);
        let mut random = seed;
        let mut up = None;
        net.run_with(MINUTE * 10, |net, _| {
            net.wire.retain(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % 5 != 0
            });
            if up.is_none() && net.session(0) && net.session(1) {
                up = Some(net.elapsed);
            }
            assert!(up.is_none() || net.session(0) || net.session(1), "seed {seed} at {:?}", net.elapsed);
        });
        assert!(up.is_some_and(|up| up < SECOND * 30), "seed {seed}: {up:?}");
    }
}
