//! A reload: the kernel is given what the new configuration needs beside what is there, then the data plane gets the
//! new table at once, and only then is taken away what nobody needs any more. What fails before that is undone.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tracing::{info, warn};

use super::{Keeper, Shared, notify};
use crate::config::{Config, Endpoint, Tunnel};
use crate::control::in_force::InForce;
use crate::control::locked::locked;
use crate::control::reload::{self, Answer, Outcome, Plan, Wish};
use crate::control::{roster, routes, setup};
use crate::packet::Mtu;
use crate::sys::udp::{self, Group};
use crate::tunnel::{Gate, Identity, Peer, Table};

/// All that a reload needs and might not get, before anything that is there is touched.
struct Means {
    /// Another port's, or those in use.
    sockets: Group,
    /// None = the one in use.
    identity: Option<Arc<Identity>>,
    peers: Vec<Arc<Peer>>,
    /// What the endpoints' names stand for, those that have changed.
    resolved: Vec<Vec<SocketAddr>>,
    /// Where far ends are now, or will be.
    endpoints: Vec<IpAddr>,
}

impl Keeper {
    pub(super) async fn grant(&mut self, wish: Wish, shared: &Shared) -> Answer {
        match wish {
            Wish::Reload => self.reload(shared).await,
            Wish::Compare => match self.plan(shared) {
                Ok(plan) if plan.changes.is_empty() => Answer::new(Outcome::Unchanged, &plan),
                Ok(plan) => Answer::new(Outcome::Different, &plan),
                Err(refused) => refused,
            },
        }
    }

    /// Whole or not at all; says in the log, too, what it did.
    pub(super) async fn reload(&mut self, shared: &Shared) -> Answer {
        tell_manager_of_reload();
        let answer = match self.plan(shared) {
            Ok(plan) if plan.changes.is_empty() => Answer::new(Outcome::Unchanged, &plan),
            Ok(plan) => self.apply(shared, plan).await,
            Err(refused) => refused,
        };
        log(&answer);
        notify(&[NotifyState::Ready]);
        answer
    }

    fn plan(&self, shared: &Shared) -> Result<Plan, Answer> {
        reload::plan(&self.file, &shared.in_force.borrow())
    }

    async fn apply(&mut self, shared: &Shared, mut plan: Plan) -> Answer {
        let answer = Answer::new(Outcome::Applied, &plan);
        let failed = |error: anyhow::Error| Answer {
            outcome: Outcome::Failed,
            ..answer.clone().because(format!("nothing was changed: {error:#}"))
        };
        let means = match self.gather(shared, &mut plan).await {
            Ok(means) => means,
            Err(error) => return failed(error),
        };
        if let Err(error) = self.extend(&plan.config, &means).await {
            self.undo(shared, &plan.config, &means.peers).await;
            return failed(error);
        }
        let before = shared.config();
        self.commit(shared, plan, means);
        self.settle(shared, &before).await;
        answer
    }

    async fn gather(&self, shared: &Shared, plan: &mut Plan) -> anyhow::Result<Means> {
        let resolved = setup::resolve_names(moved(&plan.config, &shared.config())).await;
        let mut in_force = shared.in_force.borrow_mut();
        let port = plan.config.interface.listen_port;
        let sockets = if port == in_force.config.interface.listen_port {
            in_force.sockets.clone()
        } else {
            udp::bind(port, in_force.roster.workers(), self.mark)?
        };
        let identity = plan.keys.private.take().map(|key| locked(Identity::new(key)));
        let who = identity.clone().unwrap_or_else(|| in_force.identity.clone());
        let known = in_force.peers();
        let peers = in_force.roster.enrol(&plan.config, &who, &known, &mut plan.keys.preshared)?;
        let mut endpoints = in_force.tunnels.endpoints();
        endpoints.extend(plan.config.tunnels().filter_map(|(_, tunnel)| setup::address_of(tunnel.endpoint.as_ref())));
        endpoints.extend(resolved.iter().flatten().map(|address| address.ip()));
        Ok(Means { sockets, identity, peers, resolved, endpoints })
    }

    /// The kernel gets all that `config` needs, and keeps all that is in force.
    async fn extend(&mut self, config: &Config, means: &Means) -> anyhow::Result<()> {
        let mark = routes::mark(config, &means.endpoints);
        means.sockets.set_mark(mark).context("cannot mark the sockets")?;
        let mtu = config.interface.mtu.unwrap_or(Mtu::DEFAULT);
        self.netlink.set_mtu(self.index, mtu).await.with_context(|| format!("the kernel refuses mtu {mtu}"))?;
        self.routing.extend(config, self.index, &means.endpoints).await?.complete()?;
        Ok(())
    }

    /// Back to what is in force.
    async fn undo(&mut self, shared: &Shared, refused: &Config, enrolled: &[Arc<Peer>]) {
        let config = shared.config();
        let (known, sockets) = (shared.in_force.borrow().peers(), shared.in_force.borrow().sockets.clone());
        shared.in_force.borrow_mut().roster.release(enrolled, &known);
        let _ = sockets.set_mark(self.mark);
        let mtu = self.netlink.set_mtu(self.index, config.interface.mtu.unwrap_or(Mtu::DEFAULT)).await;
        let addresses = self.routing.take_addresses(self.index, refused, &config).await;
        let routing = self.routing.running(&config, self.index, &self.endpoints).await;
        for error in [mtu.err(), addresses.err(), routing.err()].into_iter().flatten() {
            warn!("cannot undo all that a refused reload did: {error}; trying again");
        }
        self.unsettled = true;
    }

    /// From here on the new configuration is in force. Nothing in it can fail.
    fn commit(&mut self, shared: &Shared, plan: Plan, means: Means) {
        let Plan { config, keys, .. } = plan;
        let now = Instant::now();
        let mut guard = shared.in_force.borrow_mut();
        let in_force = &mut *guard;
        let before = in_force.peers();
        let mut begins = means.identity.is_some() || means.peers.iter().any(|peer| !is_among(peer, &before));
        if let Some(identity) = means.identity {
            in_force.gate = Arc::new(Gate::new(identity.public()));
            means.peers.iter().for_each(|peer| peer.take_identity(&identity, now));
            in_force.identity = identity;
        }
        begins |= roster::follow(&config, &means.peers, keys.preshared, now);
        if begins {
            self.clock.joined(now);
        }
        in_force.tunnels.follow(&config, &means.peers, setup::families(&means.sockets), means.resolved);
        in_force.roster.release(&before, &means.peers);
        let moved = means.sockets.port != in_force.sockets.port;
        in_force.sockets = means.sockets;
        in_force.config = Rc::new(config);
        publish(shared, in_force, &means.peers);
        if moved {
            shared.plane.set_sockets(in_force.sockets.clone());
            means.peers.iter().for_each(|peer| peer.announce());
        }
        shared.plane.wake_timers();
    }

    /// What nobody needs any more goes. What that takes is tried again until it is done.
    async fn settle(&mut self, shared: &Shared, before: &Config) {
        let config = shared.config();
        self.endpoints = shared.in_force.borrow().tunnels.endpoints();
        self.mark = shared.in_force.borrow().sockets.mark();
        let addresses = self.routing.take_addresses(self.index, before, &config).await;
        let kept = self.keep_routes(shared).await;
        for error in [addresses.err().map(anyhow::Error::from), kept.err()].into_iter().flatten() {
            warn!("after the reload: {error:#}; trying again");
            self.unsettled = true;
        }
    }
}

fn is_among(peer: &Arc<Peer>, others: &[Arc<Peer>]) -> bool {
    others.iter().any(|other| Arc::ptr_eq(other, peer))
}

/// The data plane gets what is true now.
fn publish(shared: &Shared, in_force: &mut InForce, peers: &[Arc<Peer>]) {
    let InForce { config, identity, gate, sockets, facts, .. } = in_force;
    let mtu = config.interface.mtu.unwrap_or(Mtu::DEFAULT);
    facts.follow(config, identity, sockets.port, mtu);
    let owners = roster::owners(config, peers);
    shared.table.store(Arc::new(Table::new(identity.clone(), gate.clone(), peers.to_vec(), owners, mtu)));
}

/// The endpoint of each tunnel whose far end the new configuration puts somewhere else; none for the others.
fn moved<'c>(new: &'c Config, old: &Config) -> impl Iterator<Item = Option<&'c Endpoint>> {
    let before: Vec<&Tunnel> = old.tunnels().map(|(_, tunnel)| tunnel).collect();
    let same = |tunnel: &Tunnel| {
        before.iter().any(|old| old.public_key == tunnel.public_key && old.endpoint == tunnel.endpoint)
    };
    let moved: Vec<_> = new.tunnels().map(|(_, tunnel)| tunnel.endpoint.as_ref().filter(|_| !same(tunnel))).collect();
    moved.into_iter()
}

fn tell_manager_of_reload() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!("cannot tell the service manager of the reload: {error}"),
    }
}

fn log(answer: &Answer) {
    for change in &answer.changes {
        info!("{change}");
    }
    for note in &answer.notes {
        warn!("{note}");
    }
    match (&answer.why, answer.outcome) {
        (Some(why), _) => warn!("reload refused: {why}"),
        (None, Outcome::Unchanged) => info!("reload: nothing has changed"),
        (None, _) => info!("reload: the file is in force"),
    }
}
