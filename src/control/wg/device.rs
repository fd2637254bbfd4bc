//! The device: what `wg set` has made of it, and the data plane that follows.

use std::cell::RefCell;
use std::error::Error as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::link::LinkState;
use super::peers::{Peers, Reserved};
use crate::config::uapi::{Change, DeviceAnswer, Refusal, Setting};
use crate::control::locked::locked;
use crate::control::setup::NO_THREADS;
use crate::control::uapi::Device;
use crate::data::{Inputs, Plane};
use crate::sys::minute::Minute;
use crate::sys::tun;
use crate::sys::udp::{self, BindError, Group};
use crate::tunnel::key::PrivateKey;
use crate::tunnel::{Gate, Identity, Peer, Table};

/// A port that was just given up may still be in a worker's hands.
const PORT_TRIES: usize = 20;
const PORT_WAIT: Duration = Duration::from_millis(5);

/// The running device.
pub(super) struct Live {
    plane: Plane,
    table: Arc<ArcSwap<Table>>,
    workers: usize,
    state: RefCell<State>,
    /// Makes the device be looked at.
    changed: Arc<Notify>,
    port_logged: Minute,
}

struct State {
    /// Who we are; without a key, a passing one that nobody knows.
    identity: Arc<Identity>,
    gate: Arc<Gate>,
    has_key: bool,
    /// The port that was asked for or chosen; 0 = none as yet.
    port: u16,
    mark: u32,
    sockets: Group,
    peers: Peers,
    link: LinkState,
    /// How often the port was found taken since it was wanted.
    tries: usize,
}

/// What a change needs and might not get.
struct Means {
    /// Instead of those in use.
    sockets: Option<Group>,
    reserved: Reserved,
}

impl Live {
    /// Starts the data threads, without a key, a port or a peer.
    pub(super) fn start(tun: tun::Device, changed: Arc<Notify>) -> anyhow::Result<Self> {
        let workers = tun.queues.len();
        let state = State::new(workers)?;
        let table = Arc::new(ArcSwap::from_pointee(state.table()));
        let notify = changed.clone();
        let inputs = Inputs {
            queues: tun.queues,
            offloads: tun.offloads,
            sockets: Group::closed(),
            table: table.clone(),
            changed: Arc::new(move || notify.notify_one()),
        };
        let plane = Plane::start(inputs).context(NO_THREADS)?;
        Ok(Self { plane, table, workers, state: RefCell::new(state), changed, port_logged: Minute::default() })
    }

    pub(super) fn stop(self) {
        self.plane.stop();
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.plane.failure()
    }

    /// The sockets' mark, and all peers.
    pub(super) fn peers(&self) -> (u32, Vec<Arc<Peer>>) {
        let state = self.state.borrow();
        (state.mark, state.peers.iter().cloned().collect())
    }

    /// Starts all handshakes over with the wall clock of now.
    pub(super) fn recreate(&self, now: Instant) {
        warn!("the clock stepped forward: all peers shake hands anew; traffic goes on meanwhile");
        self.state.borrow().peers.iter().for_each(|peer| peer.recreate(now));
        self.plane.wake_timers();
    }

    /// The next attempts need not wait.
    pub(super) fn hurry(&self) {
        self.state.borrow().peers.iter().for_each(|peer| peer.hurry());
        self.plane.wake_timers();
    }

    /// Follows the interface. Down, it has no port and no sessions, as in the kernel.
    pub(super) fn follow(&self, link: LinkState) {
        let mut state = self.state.borrow_mut();
        let before = std::mem::replace(&mut state.link, link);
        if before.up && !link.up {
            info!("the interface is down");
            state.tries = 0;
            let identity = state.identity.clone();
            state.peers.iter().for_each(|peer| peer.restart(&identity));
            self.use_sockets(&mut state, Group::closed());
        }
        if link.up && state.sockets.port == 0 {
            self.listen(&mut state);
        }
        if before != link {
            debug!(up = link.up, mtu = link.mtu.bytes(), "the interface has changed");
            self.publish(&state);
        }
    }

    /// Opens the port of an interface that is up. Tried again at every look, should it fail.
    fn listen(&self, state: &mut State) {
        match udp::bind(state.port, self.workers, state.mark) {
            Ok(sockets) => {
                state.tries = 0;
                info!(port = sockets.port, "listening");
                self.use_sockets(state, sockets);
                state.peers.iter().for_each(|peer| peer.hurry());
                self.plane.wake_timers();
            }
            Err(BindError::InUse { .. }) if state.tries < PORT_TRIES => {
                state.tries += 1;
                self.look_soon();
            }
            Err(error) if self.port_logged.is_due(Instant::now()) => {
                error!("{}; or set another with `wg set INTERFACE listen-port`", whole(&error));
            }
            Err(_) => {}
        }
    }

    fn look_soon(&self) {
        let changed = self.changed.clone();
        tokio::spawn(async move {
            sleep(PORT_WAIT).await;
            changed.notify_one();
        });
    }

    fn use_sockets(&self, state: &mut State, sockets: Group) {
        if sockets.port != 0 {
            state.port = sockets.port;
        }
        state.sockets = sockets.clone();
        self.plane.set_sockets(sockets);
    }

    /// The data plane gets what is true now.
    fn publish(&self, state: &State) {
        self.table.store(Arc::new(state.table()));
        self.plane.wake_timers();
    }

    /// Gets all that could be refused, before anything is changed.
    fn prepare(&self, state: &mut State, change: &Change) -> Result<Means, Refusal> {
        let reserved = state.peers.reserve(change)?;
        let mark = change.fwmark.unwrap_or(state.mark);
        let sockets = match state.port_wanted(change) {
            Some(port) => bind(port, self.workers, mark).map(Some).map_err(|error| {
                warn!("{}", whole(&error));
                if matches!(error, BindError::InUse { .. }) { Refusal::PortInUse } else { Refusal::Io }
            }),
            None if mark != state.mark => state.sockets.set_mark(mark).map(|()| None).map_err(|_| Refusal::Io),
            None => Ok(None),
        };
        match sockets {
            Ok(sockets) => Ok(Means { sockets, reserved }),
            Err(refusal) => {
                state.peers.release(reserved);
                Err(refusal)
            }
        }
    }
}

impl Device for Live {
    fn answer(&self) -> DeviceAnswer {
        let state = self.state.borrow();
        DeviceAnswer {
            private_key: state.has_key.then(|| state.identity.reveal_hex()),
            listen_port: state.port,
            fwmark: state.mark,
            peers: state.peers.answers(),
        }
    }

    fn change(&self, change: Change) -> Result<(), Refusal> {
        let mut state = self.state.borrow_mut();
        let stranger = match change.private_key {
            Setting::Clear if state.has_key => Some(stranger().map_err(|_| Refusal::Io)?),
            Setting::Keep | Setting::Clear | Setting::Set(_) => None,
        };
        let means = self.prepare(&mut state, &change)?;
        if let Some(sockets) = means.sockets {
            self.use_sockets(&mut state, sockets);
        }
        if let Some(port) = change.listen_port.filter(|_| !state.link.up) {
            state.port = port;
        }
        state.mark = change.fwmark.unwrap_or(state.mark);
        match (change.private_key, stranger) {
            (Setting::Set(key), _) => state.become_owner(key),
            (_, Some(stranger)) => state.become_identity(stranger, false),
            _ => {}
        }
        let identity = state.identity.clone();
        state.peers.apply(change.replace_peers, change.peers, &identity, means.reserved, Instant::now());
        self.publish(&state);
        Ok(())
    }
}

impl State {
    fn new(workers: usize) -> anyhow::Result<Self> {
        let identity = Arc::new(stranger().context("the kernel gives no random bytes")?);
        let gate = Arc::new(Gate::new(identity.public()));
        let peers = Peers::new(workers);
        Ok(Self {
            identity,
            gate,
            has_key: false,
            port: 0,
            mark: 0,
            sockets: Group::closed(),
            peers,
            link: LinkState::DOWN,
            tries: 0,
        })
    }

    /// Without a key nobody can be reached, so there is nobody.
    fn table(&self) -> Table {
        let has_key = |_: &_| self.has_key;
        let peers = self.peers.iter().filter(has_key).cloned().collect();
        let owners = self.peers.owners().filter(|_| self.has_key);
        let table = Table::new(self.identity.clone(), self.gate.clone(), peers, owners, self.link.mtu);
        if self.link.cut { table } else { table.following() }
    }

    /// The port to be opened for this change; none = those that are open will do, or none is to be.
    fn port_wanted(&self, change: &Change) -> Option<u16> {
        change.listen_port.filter(|port| self.link.up && (*port == 0 || *port != self.sockets.port))
    }

    fn become_owner(&mut self, key: PrivateKey) {
        let identity = Identity::new(key);
        if !self.has_key || identity.public() != self.identity.public() {
            // We are no peer of ourselves.
            self.peers.remove(identity.public());
            self.become_identity(identity, true);
        }
    }

    /// All sessions end: they were another's.
    fn become_identity(&mut self, identity: Identity, has_key: bool) {
        self.identity = locked(identity);
        self.gate = Arc::new(Gate::new(self.identity.public()));
        self.has_key = has_key;
        self.peers.iter().for_each(|peer| peer.restart(&self.identity));
    }
}

fn stranger() -> Result<Identity, getrandom::Error> {
    PrivateKey::generate().map(Identity::new)
}

/// The error and what the kernel said.
fn whole(error: &BindError) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn bind(port: u16, workers: usize, mark: u32) -> Result<Group, BindError> {
    let mut result = udp::bind(port, workers, mark);
    for _ in 0..PORT_TRIES {
        if !matches!(result, Err(BindError::InUse { .. })) {
            break;
        }
        thread::sleep(PORT_WAIT);
        result = udp::bind(port, workers, mark);
    }
    result
}
