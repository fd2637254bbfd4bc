//! The traps of handshakes: what the gate lets through, cookies, replays, who may move a peer or begin a session.

use super::*;

/// An initiation of the first end, as it would be sent now.
fn initiation(net: &Net) -> Vec<u8> {
    advance(Duration::from_micros(10));
    let mut out = [0; SMALL];
    let len = net.ends[0].peer.lane.initiate(&mut out).unwrap();
    out[..len].to_vec()
}

#[test]
fn trap_13_handshakes_are_counted_once_and_only_at_the_gate() {
    let net = Net::new([Plan::default(), Plan::default()]);
    let (gate, source) = (&net.ends[1].gate, ip("192.0.2.1"));
    let message = initiation(&net);
    let verdicts: Vec<Verdict> = (0..1100).map(|_| gate.admit(source, &message, &mut [0; 64])).collect();
    assert!(verdicts[..1000].iter().all(|verdict| *verdict == Verdict::Pass));
    assert!(verdicts[1000..].iter().all(|verdict| *verdict == Verdict::Cookie(64)));
    // The engines behind it count, too, but are never under load.
    let lane = &net.ends[1].peer.lane;
    for _ in 0..40 {
        assert!(lane.handshake(net.now(), &initiation(&net), &at("192.0.2.1:1000"), &mut [0; SMALL]).is_ok());
    }
}

#[test]
fn trap_13_who_returns_the_cookie_gets_through_under_load() {
    let net = Net::new([Plan::default(), Plan::default()]);
    let (gate, mut cookie) = (&net.ends[1].gate, [0; 64]);
    let (source, from) = (ip("192.0.2.1"), at("192.0.2.2:2000"));
    let flood = initiation(&net);
    while gate.admit(ip("203.0.113.1"), &flood, &mut cookie) == Verdict::Pass {}
    assert_eq!(gate.admit(source, &initiation(&net), &mut cookie), Verdict::Cookie(64));
    // The cookie is for the last initiation only.
    assert!(net.ends[0].peer.lane.handshake(net.now(), &cookie, &from, &mut [0; SMALL]).is_ok());
    let proven = initiation(&net);
    assert_eq!(gate.admit(ip("192.0.2.77"), &proven, &mut cookie), Verdict::Cookie(64));
    assert_eq!(gate.admit(source, &proven, &mut cookie), Verdict::Proven);
    let answer = net.ends[1].peer.lane.handshake(net.now(), &proven, &at("192.0.2.1:1000"), &mut [0; SMALL]);
    assert_eq!(answer.unwrap().reply, Some(wire::RESPONSE));
    // A proven source has a budget all the same.
    let more = (0..40).filter(|_| gate.admit(source, &proven, &mut cookie) == Verdict::Proven).count();
    assert_eq!(more, 19);
}

#[test]
fn forged_cookie_replies_to_a_session_take_no_room_from_others() {
    let net = Net::new([Plan::default(), Plan::default()]);
    let gate = &net.ends[0].gate;
    let reply = |index: u32| [&[3, 0, 0, 0], &index.to_le_bytes()[..], &[7; 56]].concat();
    let passed = |index, count: u32| {
        let verdicts = (0..count).map(|_| gate.admit(ip("203.0.113.1"), &reply(index), &mut [0; 64]));
        verdicts.filter(|verdict| *verdict == Verdict::Pass).count()
    };
    assert_eq!(passed(0x0102_0300, 10_000), 4);
    // Of 4,096 places, one of these may have the same.
    assert!((2..=4).any(|n| passed(n << 24, 1) == 1));
    assert!((0..10_000).map(|index| passed(index << 8, 1)).sum::<usize>() <= 500);
    gate.each_second();
    assert_eq!(passed(0x0102_0300, 10), 4);
}

#[test]
fn a_wrong_mac1_is_told_apart() {
    let net = Net::new([Plan::default(), Plan::default()]);
    let mut message = initiation(&net);
    message[40] ^= 1;
    let verdict = net.ends[1].gate.admit(ip("192.0.2.1"), &message, &mut [0; 64]);
    assert_eq!(verdict, Verdict::Drop(Reason::InBadMac1));
    assert_eq!(net.ends[1].gate.admit(ip("192.0.2.1"), &[4; 40], &mut [0; 64]), Verdict::Drop(Reason::InMalformed));
    assert_eq!(
        Gate::new(net.ends[0].identity.public()).admit(ip("192.0.2.1"), &initiation(&net), &mut [0; 64]),
        Verdict::Drop(Reason::InBadMac1)
    );
}

#[test]
fn an_initiation_names_its_sender() {
    let net = Net::new([Plan::default(), Plan::default()]);
    let message = initiation(&net);
    assert_eq!(net.ends[1].identity.peer_of(&message), Some(*net.ends[0].identity.public()));
    assert_eq!(net.ends[0].identity.peer_of(&message), None);
}

/// Initiations of the first end that an eavesdropper has, in order.
fn recorded(net: &Net) -> Vec<Vec<u8>> {
    (0..20).map(|_| initiation(net)).collect()
}

#[test]
fn trap_14_a_replayed_initiation_moves_neither_address_nor_session_of_a_replacement() {
    let plans = [Plan { wanted: false, ..Plan::default() }, Plan::default()];
    let mut net = Net::new(plans);
    let old = recorded(&net);
    net.run(SECOND);
    let now = net.now();
    advance(Duration::from_millis(1));
    net.ends[1].peer.recreate(now);
    net.run_for(SECOND);
    assert!(net.both_up());
    let known = net.ends[1].peer.address();
    let mut answered = 0;
    for message in &old {
        let lane = &net.ends[1].peer.lane;
        if let Ok(answer) = lane.handshake(net.now(), message, &at("203.0.113.9:9"), &mut [0; SMALL]) {
            assert_eq!((answer.roam, answer.session_began), (None, false));
            answered += 1;
        }
        net.data(1, 1);
    }
    assert!(answered >= 16, "the attack must have worked as far as it can: {answered}");
    net.run_for(SECOND / 10);
    assert_eq!(net.ends[0].inbox.len(), 20);
    assert_eq!(net.ends[1].peer.address(), known);
}

#[test]
fn trap_14_a_replayed_initiation_makes_no_session_with_a_restarted_peer() {
    let net = Net::new([Plan::default(), Plan { configured: false, ..Plan::default() }]);
    let (message, restarted) = (initiation(&net), &net.ends[1].peer);
    let answer = restarted.lane.handshake(net.now(), &message, &at("203.0.113.9:9"), &mut [0; SMALL]).unwrap();
    assert_eq!(answer, Answer { reply: Some(wire::RESPONSE), roam: None, session_began: false });
    assert!(!restarted.lane.view(net.now()).session);
    assert_eq!((restarted.address(), restarted.state(net.now())), (None, State::Down));
}

#[test]
fn trap_14_cookie_replies_never_roam_and_never_count_as_heard() {
    let mut net = linked();
    let (gate, mut cookie) = (&net.ends[1].gate, [0; 64]);
    let message = initiation(&net);
    while gate.admit(ip("192.0.2.1"), &message, &mut cookie) == Verdict::Pass {}
    assert_eq!(wire::kind(&cookie), Some(Kind::Cookie));
    let (before, from) = (net.ends[0].peer.lane.view(net.now()), at("203.0.113.9:9"));
    for _ in 0..2 {
        let answer = net.ends[0].peer.lane.handshake(net.now(), &cookie, &from, &mut [0; SMALL]).unwrap();
        assert_eq!(answer, Answer { reply: None, roam: None, session_began: false });
    }
    assert_eq!(net.ends[0].peer.lane.view(net.now()), before);
    net.data(0, 1);
    net.run_for(SECOND);
    assert_eq!(net.ends[1].inbox.len(), 1);
}

#[test]
fn transport_data_and_responses_roam_but_replays_do_not() {
    let mut net = linked();
    let elsewhere = "203.0.113.5:5000".parse().unwrap();
    net.data(0, 1);
    let mut moved = net.wire.pop_back().unwrap();
    moved.from = elsewhere;
    net.deliver(&moved);
    assert_eq!(net.ends[1].peer.address().unwrap().remote, elsewhere);
    moved.from = "203.0.113.66:6".parse().unwrap();
    net.deliver(&moved);
    assert_eq!(net.ends[1].peer.address().unwrap().remote, elsewhere);
    assert_eq!(net.dropped(1, Reason::InReplay), 1);
    moved.bytes[20] ^= 1;
    moved.bytes[8] += 1;
    net.deliver(&moved);
    assert_eq!(net.dropped(1, Reason::InForged), 1);
    moved.bytes[4] ^= 4;
    net.deliver(&moved);
    assert_eq!(net.dropped(1, Reason::InNoSession), 1);
    assert_eq!(net.ends[1].peer.address().unwrap().remote, elsewhere);
}

#[test]
fn while_an_interface_is_avoided_nothing_that_comes_by_it_leads_back_there() {
    let net = linked();
    let peer = &net.ends[1].peer;
    let heard_by = |interface| {
        let local = Some(Local { addr: "192.0.2.1".parse().unwrap(), interface });
        peer.set_address(Address { remote: "203.0.113.5:5000".parse().unwrap(), local });
        peer.address().unwrap().local.map(|local| local.interface)
    };
    assert_eq!(heard_by(1), Some(1));
    peer.avoid(1);
    assert_eq!(peer.address().unwrap().local, None);
    assert_eq!((heard_by(1), heard_by(2), heard_by(1)), (None, Some(2), None));
    peer.avoid(0);
    assert_eq!((heard_by(1), heard_by(0)), (Some(1), Some(0)));
}

#[test]
fn trap_17_a_responder_has_no_session_until_the_initiator_has_used_it() {
    let net = Net::new([Plan::default(), Plan::default()]);
    let [a, b] = &net.ends;
    let (mut out, now) = ([0; SMALL], net.now());
    let (from_a, from_b) = (Address::new(a.here), Address::new(b.here));
    let reply = b.peer.lane.handshake(now, &initiation(&net), &from_a, &mut out).unwrap().reply.unwrap();
    let response = out[..reply].to_vec();
    b.peer.lane.tick(now, &mut out);
    let view = b.peer.lane.view(now);
    assert_eq!((view.session, view.last_handshake, view.last_receive), (false, None, None));
    assert_eq!(seal(&net, 1, 0, 1, &mut SealBuffer::new(64, MTU)), Err(SealRefused::NoSession));
    let answer = a.peer.lane.handshake(now, &response, &from_b, &mut out).unwrap();
    assert_eq!((answer.session_began, answer.roam.map(|roam| *roam.address())), (true, Some(from_b)));
    assert!(a.peer.lane.view(now).session);
    let keepalive = &out[..answer.reply.unwrap()];
    let (mut opened, drops) = (OpenBuffer::new(4, 0), DropCounters::default());
    assert!(b.peer.lane.open_batch(now, std::iter::once(keepalive), &from_a, &mut opened, &drops).is_some());
    assert!(b.peer.lane.view(now).session && opened.packets().is_empty());
    assert_eq!(seal(&net, 1, 0, 1, &mut SealBuffer::new(64, MTU)), Ok(()));
}
