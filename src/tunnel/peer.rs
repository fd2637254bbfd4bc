//! A peer: one tunnel's far machine, with its lane, its address, what waits for a session, and its schedule.

mod changes;
mod schedule;
mod staging;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use parking_lot::Mutex;

use super::address::Address;
use super::counters::Counters;
use super::id::{PeerId, Slot};
use super::identity::Identity;
use super::key::{PresharedKey, PublicKey};
use super::lane::{Emitted, Lane, LaneView, Roam, SMALL};
use crate::packet::Reason;
use crate::packet::reason::DropCounters;
use schedule::{Act, Policy, Schedule};
use staging::Staging;

/// A peer that was not heard for so long although it should be is down.
const UNHEARD: Duration = Duration::from_secs(25);

/// A caller is answered for so long: it calls again each 5 s until it is heard.
const CALLING: Duration = Duration::from_secs(12);

/// What makes a peer.
pub struct PeerConfig {
    /// Its number.
    pub id: PeerId,
    /// "connection/tunnel", for people.
    pub name: String,
    /// The number of the connection it belongs to.
    pub connection: u32,
    /// Its public key.
    pub remote: PublicKey,
    /// The preshared key, if any.
    pub psk: Option<PresharedKey>,
    /// Be heard at least this often; none = off.
    pub keepalive: Option<Duration>,
    /// When we initiate.
    pub initiates: Initiates,
    /// Its endpoint is configured; else it is learned from its datagrams.
    pub configured_endpoint: bool,
    /// The slots of its session indices.
    pub slots: [Slot; 2],
    /// Where its jitter comes from.
    pub seed: u64,
}

/// When a session is begun from our side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Initiates {
    /// At the start, and for ever while there is none.
    Always,
    /// Only soon after the peer was heard: it comes to us.
    WhenHeard,
    /// WireGuard's own rules (paper, section 6): when there is something to send, persistent keepalives included.
    OnDemand,
}

/// Whether a tunnel carries traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It has a session that the peer confirmed, and the peer was heard of late.
    Up,
    /// It has not.
    Down,
}

/// One tunnel's far machine: one WireGuard peer.
pub struct Peer {
    id: PeerId,
    name: ArcSwap<String>,
    connection: u32,
    key: PublicKey,
    secrets: Mutex<Secrets>,
    address: ArcSwapOption<Address>,
    /// Number of the interface that is avoided; 0 = none.
    avoided: AtomicU32,
    /// Where its last initiation came from, whoever sent that, and when.
    caller: Mutex<Option<(IpAddr, Instant)>>,
    staging: Staging,
    schedule: Mutex<Schedule>,
    /// Its sessions.
    pub lane: Lane,
    /// Its packets and bytes.
    pub counters: Counters,
}

/// What a new session is made with.
struct Secrets {
    identity: Arc<Identity>,
    psk: Option<PresharedKey>,
}

/// What a tick gives to send: two datagrams at the most.
#[derive(Debug, Clone)]
pub struct TickBuffer {
    datagrams: [([u8; SMALL], usize); 2],
}

impl Default for TickBuffer {
    fn default() -> Self {
        Self { datagrams: [([0; SMALL], 0); 2] }
    }
}

impl TickBuffer {
    /// The datagrams, each to be sent to the peer's address.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.datagrams.iter().filter_map(|(bytes, len)| bytes.get(..*len)).filter(|datagram| !datagram.is_empty())
    }

    fn clear(&mut self) {
        for (_, len) in &mut self.datagrams {
            *len = 0;
        }
    }
}

impl Peer {
    /// A peer without a session or an address.
    #[must_use]
    pub fn new(identity: &Arc<Identity>, config: PeerConfig, now: Instant) -> Self {
        let policy = Policy {
            initiates: config.initiates,
            configured: config.configured_endpoint,
            smaller: *identity.public() < config.remote,
            keepalive: config.keepalive,
        };
        let lane = Lane::new(identity, config.remote, config.psk.as_ref(), config.slots, now);
        Self {
            id: config.id,
            name: ArcSwap::from_pointee(config.name),
            connection: config.connection,
            key: config.remote,
            secrets: Mutex::new(Secrets { identity: Arc::clone(identity), psk: config.psk }),
            address: ArcSwapOption::empty(),
            avoided: AtomicU32::new(0),
            caller: Mutex::new(None),
            staging: Staging::default(),
            schedule: Mutex::new(Schedule::new(policy, config.seed)),
            lane,
            counters: Counters::default(),
        }
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// "connection/tunnel".
    #[must_use]
    pub fn name(&self) -> Arc<String> {
        self.name.load_full()
    }

    /// The number of its connection.
    #[must_use]
    pub const fn connection(&self) -> u32 {
        self.connection
    }

    /// Its public key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Where its datagrams go, if that is known.
    #[must_use]
    pub fn address(&self) -> Option<Arc<Address>> {
        self.address.load_full()
    }

    /// The same, cheaper: for one send.
    #[must_use]
    pub fn load_address(&self) -> Guard<Option<Arc<Address>>> {
        self.address.load()
    }

    /// What the configuration or the name service says. An attempt that went elsewhere no longer delays the next.
    pub fn set_address(&self, address: Address) {
        if self.move_to(&address) {
            self.schedule.lock().hurry();
        }
    }

    /// It was heard at this address a moment ago, by a process that is no more: its sessions are to be made anew.
    pub fn recall(&self, address: Address, now: Instant) {
        self.schedule.lock().recall(now);
        self.set_address(address);
    }

    /// Follows an authenticated datagram; whether that is a change.
    pub fn roam(&self, roam: Roam) -> bool {
        self.move_to(roam.address())
    }

    /// An initiation of it came from `caller`: whether that is news. It may be a replay, and moves nothing; but the answer
    /// must find its way there.
    pub fn called_from(&self, caller: IpAddr, now: Instant) -> bool {
        let before = self.caller(now);
        *self.caller.lock() = Some((caller, now));
        before != Some(caller)
    }

    /// Where the last initiation of it came from, if that is not long ago.
    #[must_use]
    pub fn caller(&self, now: Instant) -> Option<IpAddr> {
        self.caller.lock().filter(|(_, at)| now.saturating_duration_since(*at) < CALLING).map(|(caller, _)| caller)
    }

    /// The local side of `gone` is no more: the kernel chooses, until the peer is heard again. Nothing happens if the
    /// peer has moved meanwhile.
    pub fn forget_local(&self, gone: &Address) {
        self.address.rcu(|now| match now {
            Some(address) if **address == *gone => Some(Arc::new(Address::new(gone.remote))),
            other => other.clone(),
        });
    }

    /// The way on which the peer was last heard may be a dead end that the kernel does not tell of: a datagram sent
    /// by an interface that has no route to the peer is not refused, its addressee is looked for on the link.
    fn let_the_kernel_choose(&self) {
        if let Some(address) = self.address() {
            self.forget_local(&address);
        }
    }

    /// The kernel chooses the local side from now on, even where the peer is heard by `interface`, until this is called
    /// again: what is under way would lead back there. 0 avoids none.
    pub fn avoid(&self, interface: u32) {
        self.avoided.store(interface, Relaxed);
        if let Some(address) = self.address().filter(|address| self.is_avoided(address)) {
            self.forget_local(&address);
        }
    }

    fn is_avoided(&self, address: &Address) -> bool {
        let avoided = self.avoided.load(Relaxed);
        avoided != 0 && address.local.is_some_and(|local| local.interface == avoided)
    }

    fn move_to(&self, address: &Address) -> bool {
        let address = &if self.is_avoided(address) { Address::new(address.remote) } else { *address };
        let changed = self.address.load().as_deref() != Some(address);
        if changed {
            self.address.store(Some(Arc::new(*address)));
        }
        changed
    }

    /// Keeps a copy of an inner packet until there is a session, for a second at the most.
    ///
    /// # Errors
    /// [`Reason::OutStageFull`] when 32 are waiting already.
    pub fn stage(&self, now: Instant, packet: &[u8]) -> Result<(), Reason> {
        self.staging.push(now, packet)
    }

    /// Whether packets wait for a session; cheap.
    #[must_use]
    pub fn has_staged(&self) -> bool {
        !self.staging.is_empty()
    }

    /// The packets that waited, in order; those that did for too long are counted as [`Reason::OutNoSession`].
    pub fn take_staged(&self, now: Instant, drops: &DropCounters) -> Vec<Vec<u8>> {
        self.staging.take(now, drops)
    }

    /// Drops and counts packets that have waited too long; to be called with each tick.
    pub fn expire_staged(&self, now: Instant, drops: &DropCounters) {
        self.staging.expire(now, drops);
    }

    /// A packet was staged: whether a tick right now would initiate, or finds a session that has begun meanwhile.
    #[must_use]
    pub fn is_worth_a_tick(&self, now: Instant) -> bool {
        let view = self.lane.view(now);
        let mut schedule = self.schedule.lock();
        schedule.demand(now);
        let initiates = schedule.is_active(now, &view) && !schedule.must_wait(now) && self.address.load().is_some();
        view.session || initiates
    }

    /// Whether nothing happens by itself: no session, nobody who wants one, nothing that waits.
    #[must_use]
    pub fn is_resting(&self, now: Instant) -> bool {
        let view = self.lane.view(now);
        !view.session && !self.has_staged() && !self.schedule.lock().is_active(now, &view)
    }

    /// Does what is due; to be called each 250 ms, by one thread. What `out` holds then goes to its address.
    pub fn tick(&self, now: Instant, out: &mut TickBuffer) {
        out.clear();
        let [(timer, timer_len), (own, own_len)] = &mut out.datagrams;
        let emitted = self.lane.tick(now, timer);
        let mut schedule = self.schedule.lock();
        if let Some(Emitted::Initiation(_)) = emitted {
            schedule.wish();
        }
        if self.address.load().is_none() {
            return;
        }
        let view = self.lane.view(now);
        let act = schedule.next(now, &view);
        if act == Act::Initiate {
            self.counters.add_initiation(schedule.is_in_vain());
            if schedule.is_in_vain() {
                self.let_the_kernel_choose();
            }
        }
        match (act, emitted) {
            (Act::Initiate, Some(Emitted::Initiation(len))) => *timer_len = len,
            (act, Some(Emitted::Keepalive(len))) => {
                *timer_len = len;
                *own_len = self.act(act, now, own);
            }
            (act, _) => *own_len = self.act(act, now, own),
        }
    }

    fn act(&self, act: Act, now: Instant, out: &mut [u8; SMALL]) -> usize {
        let made = match act {
            Act::Nothing => None,
            Act::Initiate => self.lane.initiate(out),
            Act::Keepalive => self.lane.keepalive(now, out),
        };
        made.unwrap_or(0)
    }

    /// Whether it carries traffic.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        let view = self.lane.view(now);
        if view.session && !self.is_unheard(&view) { State::Up } else { State::Down }
    }

    fn is_unheard(&self, view: &LaneView) -> bool {
        self.schedule.lock().silence(view).is_some_and(|silence| silence >= UNHEARD)
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id)
            .field("name", &self.name())
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
