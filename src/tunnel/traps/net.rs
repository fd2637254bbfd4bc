//! Two peers over a virtual network. Time is virtual: with the feature `sim` also boringtun's.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::packet::cleartext::Cleartext;
use crate::packet::reason::DropCounters;
use crate::packet::{Mtu, Reason};
use crate::tunnel::gate::{Gate, Verdict};
use crate::tunnel::inner::tests::packet;
use crate::tunnel::key::{PresharedKey, PrivateKey};
use crate::tunnel::lane::SMALL;
use crate::tunnel::wire::{self, Kind};
use crate::tunnel::*;

pub(super) const TICK: Duration = Duration::from_millis(250);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MTU: Mtu = Mtu::DEFAULT;

/// Packets to be sealed.
#[derive(Default)]
pub(super) struct Packets(pub(super) VecDeque<Vec<u8>>, Vec<u8>);

impl Packets {
    pub(super) fn of(packets: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(packets.into_iter().collect(), Vec::new())
    }
}

impl Cleartext for Packets {
    fn next(&mut self) -> Option<&[u8]> {
        self.1 = self.0.pop_front()?;
        Some(&self.1)
    }

    fn left(&self) -> usize {
        self.0.len()
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An inner packet that can be told from others.
pub(super) fn marked(number: u32) -> Vec<u8> {
    let mut packet = packet(ip("10.0.0.1"), ip("10.0.0.2"), 64);
    packet[20..24].copy_from_slice(&number.to_be_bytes());
    packet
}

pub(super) fn at(text: &str) -> Address {
    Address::new(text.parse().unwrap())
}

/// How an end is configured.
pub(super) struct Plan {
    pub(super) wanted: bool,
    pub(super) configured: bool,
    pub(super) keepalive: Option<Duration>,
    /// When its timers first run: their phase.
    pub(super) phase: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { wanted: true, configured: true, keepalive: Some(Duration::from_secs(10)), phase: Duration::ZERO }
    }
}

/// One gateway with one peer.
pub(super) struct End {
    pub(super) peer: Peer,
    pub(super) gate: Gate,
    pub(super) identity: Arc<Identity>,
    pub(super) here: SocketAddr,
    pub(super) next_tick: Duration,
    pub(super) inbox: Vec<(Duration, Vec<u8>)>,
    pub(super) drops: DropCounters,
    /// When it sent an initiation.
    pub(super) initiations: Vec<Duration>,
}

/// A datagram under way.
#[derive(Clone)]
pub(super) struct Flying {
    pub(super) due: Duration,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// Two ends and what is between them.
pub(super) struct Net {
    base: Instant,
    pub(super) elapsed: Duration,
    pub(super) ends: [End; 2],
    pub(super) wire: VecDeque<Flying>,
    pub(super) latency: Duration,
    /// Nothing gets through.
    pub(super) black: bool,
    /// Everything that was ever sent.
    pub(super) tape: Vec<Flying>,
}

/// Moves boringtun's clock, if it is virtual.
pub(super) fn advance(by: Duration) {
    #[cfg(feature = "sim")]
    mock_instant::MockClock::advance(by);
    // Timestamps must grow between handshakes also when the clock is real.
    #[cfg(not(feature = "sim"))]
    std::thread::sleep(by.min(Duration::from_micros(10)));
}

pub(super) fn config(remote: PublicKeyOf<'_>, plan: &Plan, random: u16, psk: Option<PresharedKey>) -> PeerConfig {
    PeerConfig {
        id: PeerId(u32::from(random)),
        name: "site/a".into(),
        connection: 0,
        remote: *remote.public(),
        psk,
        keepalive: plan.keepalive,
        initiates: if plan.wanted { Initiates::Always } else { Initiates::WhenHeard },
        configured_endpoint: plan.configured,
        slots: [Slot::new(random, 3), Slot::new(random + 1, 3)],
        seed: u64::from(random),
    }
}

type PublicKeyOf<'i> = &'i Identity;

/// Two identities, the one with the smaller public key first.
pub(super) fn identities() -> [Arc<Identity>; 2] {
    let mut both = [(); 2].map(|()| Arc::new(Identity::new(PrivateKey::generate().unwrap())));
    both.sort_by_key(|identity| *identity.public());
    both
}

impl End {
    fn new(identity: &Arc<Identity>, remote: &Identity, here: &str, plan: &Plan, random: u16, now: Instant) -> Self {
        Self {
            peer: Peer::new(identity, config(remote, plan, random, None), now),
            gate: Gate::new(identity.public()),
            identity: Arc::clone(identity),
            here: here.parse().unwrap(),
            next_tick: plan.phase,
            inbox: Vec::new(),
            drops: DropCounters::default(),
            initiations: Vec::new(),
        }
    }

    /// What it does with a datagram; what it answers.
    fn receive(&mut self, now: Instant, flying: &Flying, elapsed: Duration) -> Option<Vec<u8>> {
        let from = Address::new(flying.from);
        if wire::kind(&flying.bytes) == Some(Kind::Transport) {
            let mut out = OpenBuffer::new(8, 1 << 16);
            let datagrams = std::iter::once(flying.bytes.as_slice());
            if let Some(roam) = self.peer.lane.open_batch(now, datagrams, &from, &mut out, &self.drops) {
                self.peer.roam(roam);
            }
            self.inbox.extend(out.iter().map(|packet| (elapsed, packet.to_vec())));
            return None;
        }
        let mut out = [0; SMALL];
        let verdict = self.gate.admit(flying.from.ip(), &flying.bytes, &mut [0; 64]);
        assert_eq!(verdict, Verdict::Pass);
        match self.peer.lane.handshake(now, &flying.bytes, &from, &mut out) {
            Ok(answer) => {
                answer.roam.map(|roam| self.peer.roam(roam));
                answer.reply.map(|len| out[..len].to_vec())
            }
            Err(reason) => {
                self.drops.add(reason, 1);
                None
            }
        }
    }
}

impl Net {
    /// Two ends that know each other as their plans say; the first has the smaller public key.
    pub(super) fn new(plans: [Plan; 2]) -> Self {
        let (base, [a, b], [plan_a, plan_b]) = (Instant::now(), identities(), plans);
        let ends = [
            End::new(&a, &b, "192.0.2.1:1000", &plan_a, 100, base),
            End::new(&b, &a, "192.0.2.2:2000", &plan_b, 200, base),
        ];
        if plan_a.configured {
            ends[0].peer.set_address(Address::new(ends[1].here));
        }
        if plan_b.configured {
            ends[1].peer.set_address(Address::new(ends[0].here));
        }
        let latency = Duration::from_millis(10);
        let wire = VecDeque::new();
        Self { base, elapsed: Duration::ZERO, ends, wire, latency, black: false, tape: Vec::new() }
    }

    pub(super) fn now(&self) -> Instant {
        self.base + self.elapsed
    }

    #[cfg(feature = "sim")]
    /// A second incarnation of an end, to be swapped in later. Made now, because under a virtual clock an engine's
    /// timestamps start from the real one.
    pub(super) fn spare(&self, which: usize, plan: &Plan) -> End {
        let (end, other) = (&self.ends[which], &self.ends[1 - which]);
        let spare =
            End::new(&end.identity, &other.identity, &end.here.to_string(), plan, [300, 400][which], self.now());
        if plan.configured {
            spare.peer.set_address(Address::new(other.here));
        }
        spare
    }

    pub(super) fn send(&mut self, which: usize, to: SocketAddr, bytes: Vec<u8>) {
        let end = &mut self.ends[which];
        if wire::kind(&bytes) == Some(Kind::Initiation) {
            end.initiations.push(self.elapsed);
        }
        let flying = Flying { due: self.elapsed + self.latency, from: end.here, to, bytes };
        self.tape.push(flying.clone());
        if !self.black {
            self.wire.push_back(flying);
        }
    }

    /// Sends inner packets; false = there is no session.
    pub(super) fn try_data(&mut self, which: usize, packets: impl IntoIterator<Item = Vec<u8>>) -> bool {
        let mut out = SealBuffer::new(64, MTU);
        let (peer, now) = (&self.ends[which].peer, self.now());
        let sealed = peer.lane.seal_batch(0, now, &mut Packets::of(packets), &mut out).is_ok();
        let to = peer.address();
        for datagram in out.datagrams().map(<[u8]>::to_vec) {
            self.send(which, to.as_ref().unwrap().remote, datagram);
        }
        sealed
    }

    pub(super) fn data(&mut self, which: usize, number: u32) {
        assert!(self.try_data(which, [marked(number)]), "no session at {:?}", self.elapsed);
    }

    /// Runs until `until`, from event to event, and calls `each` after each tick.
    pub(super) fn run_with(&mut self, until: Duration, mut each: impl FnMut(&mut Self, usize)) {
        loop {
            let arrival = self.wire.front().map_or(Duration::MAX, |flying| flying.due);
            let tick = self.ends.iter().map(|end| end.next_tick).min().unwrap();
            let next = arrival.min(tick);
            if next > until {
                self.pass(until);
                return;
            }
            self.pass(next);
            if arrival <= tick {
                self.arrive();
            } else {
                let which = usize::from(self.ends[0].next_tick > next);
                self.tick(which);
                each(self, which);
            }
        }
    }

    pub(super) fn run(&mut self, until: Duration) {
        self.run_with(until, |_, _| {});
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run(self.elapsed + time);
    }

    fn pass(&mut self, to: Duration) {
        advance(to.saturating_sub(self.elapsed));
        self.elapsed = to.max(self.elapsed);
    }

    fn arrive(&mut self) {
        let Some(flying) = self.wire.pop_front() else { return };
        self.deliver(&flying);
    }

    /// Hands a datagram to whoever lives where it goes; the reply goes on the wire.
    pub(super) fn deliver(&mut self, flying: &Flying) {
        let (now, elapsed) = (self.now(), self.elapsed);
        let Some(which) = self.ends.iter().position(|end| end.here == flying.to) else { return };
        if let Some(reply) = self.ends[which].receive(now, flying, elapsed) {
            self.send(which, flying.from, reply);
        }
    }

    fn tick(&mut self, which: usize) {
        let now = self.now();
        let end = &mut self.ends[which];
        end.next_tick += TICK;
        end.gate.each_second();
        let mut out = TickBuffer::default();
        end.peer.tick(now, &mut out);
        let to = end.peer.address();
        for datagram in out.datagrams().map(<[u8]>::to_vec) {
            self.send(which, to.as_ref().unwrap().remote, datagram);
        }
    }

    pub(super) fn session(&self, which: usize) -> bool {
        self.ends[which].peer.lane.view(self.now()).session
    }

    pub(super) fn both_up(&self) -> bool {
        self.ends.iter().all(|end| end.peer.state(self.now()) == State::Up)
    }

    pub(super) fn initiations(&self) -> usize {
        self.ends.iter().map(|end| end.initiations.len()).sum()
    }

    pub(super) fn dropped(&self, which: usize, reason: Reason) -> u64 {
        self.ends[which].drops.count(reason)
    }
}
