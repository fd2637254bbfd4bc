//! Outer datagrams, as the inbound worker judges them: the gate, handshakes, opening, admission.
//!
//! Input: what to do (1), then bytes: see [`run`]. Whatever they are, nothing forged is opened, and the tunnel lives.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linkspan::packet::cleartext::Packets;
use linkspan::packet::coalesce::{Coalescer, Written};
use linkspan::packet::mss::{self, Checksum};
use linkspan::packet::reason::DropCounters;
use linkspan::packet::{Mtu, ecn};
use linkspan::tunnel::gate::Verdict;
use linkspan::tunnel::key::PrivateKey;
use linkspan::tunnel::lane::SMALL;
use linkspan::tunnel::wire::{self, Kind};
use linkspan::tunnel::{
    Address, Gate, Identity, Initiates, OpenBuffer, Owner, Peer, PeerConfig, PeerId, SealBuffer, Slot, Table,
};

use super::Input;

/// boringtun's clock is the real one: the session is made anew long before it ends.
const LIFETIME: Duration = Duration::from_secs(60);

/// One gateway.
struct End {
    identity: Arc<Identity>,
    table: Table,
}

/// Two gateways with a session; only the first one is under attack.
struct World {
    here: End,
    far: End,
    born: Instant,
    /// The index of the session, as it stands in datagrams to `here`.
    index: [u8; 4],
    opened: OpenBuffer,
    sealed: SealBuffer,
    drops: DropCounters,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// 0: the bytes are a datagram; 1: the same, with the session's index put in; 2: they change a sound datagram;
/// 3: they change a sound initiation; else: they are an inner packet of the authenticated peer.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let what = input.byte() % 5;
    WORLD.with_borrow_mut(|world| {
        world.renew();
        match what {
            0 => world.receive(input.0),
            1 => world.receive(&world.addressed(input.0)),
            2 => world.forge(&mut input),
            3 => world.knock_changed(&mut input),
            _ => world.inner(input.0),
        }
        assert!(world.is_alive());
    });
}

impl End {
    fn new(identity: &Arc<Identity>, remote: &Identity, number: u8) -> Self {
        let config = PeerConfig {
            id: PeerId(0),
            name: "site/a".into(),
            connection: 0,
            remote: *remote.public(),
            psk: None,
            keepalive: None,
            initiates: Initiates::Always,
            configured_endpoint: true,
            slots: [Slot::new(100 * u16::from(number), 0), Slot::new(100 * u16::from(number) + 1, 0)],
            seed: 1,
        };
        let peer = Arc::new(Peer::new(identity, config, Instant::now()));
        let network = format!("10.{}.0.0/16", 3 - number).parse().unwrap();
        let gate = Arc::new(Gate::new(identity.public()));
        let networks = [(network, Owner::Connection(0))];
        let table = Table::new(Arc::clone(identity), gate, vec![peer], networks, Mtu::DEFAULT);
        Self { identity: Arc::clone(identity), table }
    }

    fn peer(&self) -> &Peer {
        &self.table.peers()[0]
    }
}

fn address() -> Address {
    Address::new("192.0.2.2:51820".parse().unwrap())
}

impl World {
    fn new() -> Self {
        let [a, b] = [(); 2].map(|()| Arc::new(Identity::new(PrivateKey::generate().unwrap())));
        let mut world = Self {
            here: End::new(&a, &b, 1),
            far: End::new(&b, &a, 2),
            born: Instant::now(),
            index: [0; 4],
            opened: OpenBuffer::new(64, 1 << 17),
            sealed: SealBuffer::new(1, Mtu::MAX),
            drops: DropCounters::default(),
        };
        world.link();
        world
    }

    fn link(&mut self) {
        let (now, mut out) = (Instant::now(), [0; SMALL]);
        let (here, far) = (&self.here.peer().lane, &self.far.peer().lane);
        let len = far.initiate(&mut out).unwrap();
        let initiation = out[..len].to_vec();
        let len = here.handshake(now, &initiation, &address(), &mut out).unwrap().reply.unwrap();
        let response = out[..len].to_vec();
        let len = far.handshake(now, &response, &address(), &mut out).unwrap().reply.unwrap();
        let keepalive = out[..len].to_vec();
        self.index.copy_from_slice(&keepalive[4..8]);
        let from = address();
        let roam = here.open_batch(now, std::iter::once(&keepalive[..]), &from, &mut self.opened, &self.drops);
        assert!(roam.is_some());
    }

    fn renew(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.born) > LIFETIME {
            *self = Self::new();
        }
        for end in [&self.here, &self.far] {
            end.table.gate().each_second();
            // Its initiations are not sent anywhere.
            end.peer().lane.tick(now, &mut [0; SMALL]);
        }
        self.opened.clear();
    }

    /// `bytes` with the session's index where its kind has it.
    fn addressed(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let at = if bytes.first() == Some(&2) { 8 } else { 4 };
        if let Some(index) = bytes.get_mut(at..at + 4) {
            index.copy_from_slice(&self.index);
        }
        bytes
    }

    fn receive(&mut self, datagram: &[u8]) {
        match wire::kind(datagram) {
            Some(Kind::Transport) => assert!(!self.open(datagram), "nothing forged is opened"),
            Some(Kind::Initiation | Kind::Response | Kind::Cookie) => self.knock(datagram),
            None => assert!(!self.open(datagram)),
        }
    }

    /// Whether it was authenticated.
    fn open(&mut self, datagram: &[u8]) -> bool {
        let Some(peer) = wire::receiver_index(datagram).and_then(|index| self.here.table.by_index(index)) else {
            return false;
        };
        let (now, from) = (Instant::now(), address());
        peer.lane.open_batch(now, std::iter::once(datagram), &from, &mut self.opened, &self.drops).is_some()
    }

    fn knock(&self, message: &[u8]) {
        let mut cookie = [0; wire::COOKIE];
        let passed = self.here.table.gate().admit([192, 0, 2, 2].into(), message, &mut cookie) == Verdict::Pass;
        if passed && wire::kind(message) == Some(Kind::Initiation) {
            assert_eq!(self.here.identity.peer_of(message), None, "nobody can claim a key without knowing ours");
        }
        let answer = self.here.peer().lane.handshake(Instant::now(), message, &address(), &mut [0; SMALL]);
        assert!(answer.is_err(), "nothing forged is answered");
    }

    fn forge(&mut self, input: &mut Input<'_>) {
        let Some(sound) = self.seal(&beacon()) else { return };
        let mut forged = sound.clone();
        change(&mut forged, input);
        let is_sound = is_equal(&forged, &sound);
        assert_eq!(self.open(&forged), is_sound);
        // From here on it is a replay, should the fuzzer have seen it.
        assert_eq!(self.open(&sound), !is_sound);
    }

    fn knock_changed(&self, input: &mut Input<'_>) {
        let mut out = [0; SMALL];
        let Some(len) = self.far.peer().lane.initiate(&mut out) else { return };
        let sound = out[..len].to_vec();
        let mut forged = sound.clone();
        change(&mut forged, input);
        // mac2 is not looked at while there is no load.
        if !is_equal(&forged[..forged.len().min(132)], &sound[..132]) {
            self.knock(&forged);
        }
    }

    fn seal(&mut self, inner: &[u8]) -> Option<Vec<u8>> {
        self.sealed.clear();
        let mut one = Packets::new(std::iter::once(inner));
        drop(self.far.peer().lane.seal_batch(0, Instant::now(), &mut one, &mut self.sealed).ok()?);
        self.sealed.datagrams().next().map(<[u8]>::to_vec)
    }

    fn inner(&mut self, packet: &[u8]) {
        let Some(datagram) = self.seal(packet) else { return };
        assert!(self.open(&datagram), "what the peer sealed is authentic");
        let mut coalescer = Coalescer::new(true, true);
        for index in 0..self.opened.packets().len() {
            let Ok(admitted) = self.here.table.admit(self.here.peer(), &self.opened, index) else { continue };
            let packet = self.opened.admitted_mut(&admitted);
            if ecn::decapsulate(3, packet).is_ok() {
                mss::clamp(packet, Mtu::DEFAULT, Checksum::Complete);
                coalescer.push(self.opened.arena(), admitted.range());
            }
        }
        coalescer.flush(self.opened.arena_mut(), |_, _, pieces| {
            assert_eq!(pieces.len(), 1);
            Written::Whole
        });
    }

    fn is_alive(&mut self) -> bool {
        let sound = self.seal(&beacon());
        self.opened.clear();
        sound.is_some_and(|datagram| self.open(&datagram)) && self.opened.packets().len() == 1
    }
}

/// Length (2) of what is kept, then offset (1) and new byte, as often as there are bytes.
fn change(datagram: &mut Vec<u8>, input: &mut Input<'_>) {
    let keep = usize::from(input.short());
    if keep != 0 {
        datagram.resize(keep, 0);
    }
    while !input.is_empty() && !datagram.is_empty() {
        let at = usize::from(input.byte()) % datagram.len();
        datagram[at] = input.byte();
    }
}

/// Byte by byte: a comparison of slices would show the fuzzer a datagram that it could never have made.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// A small UDP packet from the far network to here.
fn beacon() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0x66, 0xc5, 10, 2, 0, 2, 10, 1, 0, 2];
    packet.extend_from_slice(&[0x1b, 0x58, 0x1b, 0x59, 0, 12, 0, 0, 1, 2, 3, 4]);
    packet
}
