//! From a configuration to a running plane, in the order that never leaves a gap: routes of last resort, interface,
//! privileges dropped, names, sockets, addresses and routes, peers, threads.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwap;
use nix::unistd::{User, geteuid};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{info, warn};

use super::clock::ClockWatch;
use super::daemon::{Handed, RunOptions};
use super::in_force::InForce;
use super::keys::Keys;
use super::locked::locked;
use super::metrics_server::MetricsServer;
use super::netlink::{Monitor, Netlink};
use super::recall::Recall;
use super::reconcile::Reconciler;
use super::resolve::{Families, lookup};
use super::roster::{self, Roster};
use super::status_server::StatusServer;
use super::store::Store;
use super::tunnels::Tunnels;
use super::uapi::UapiServer;
use super::{limits, report, routes, state};
use crate::config::{Config, Endpoint};
use crate::data::{Inputs, Plane};
use crate::packet::Mtu;
use crate::sys::tun::Offloads;
use crate::sys::{process, udp};
use crate::tunnel::{Gate, Identity, Table};

/// The static user of the service; without it, root stays, with nothing but CAP_NET_ADMIN.
const USER: &str = "linkspan";
/// How a daemon that is not root's gets a socket where only root can make one.
const BY_SYSTEMD: &str = "systemd can make it: install linkspan@.socket beside linkspan@.service, and start that";
/// For when the kernel gives no thread.
pub(super) const NO_THREADS: &str =
    "cannot start the data threads (is their number limited? see ulimit -u, and TasksMax= of a service)";
/// How long the start waits for names. Later they are resolved beside the traffic.
const RESOLVE: Duration = Duration::from_secs(3);

/// All that is open once the daemon has started.
pub(super) struct Opened {
    pub(super) plane: Plane,
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) in_force: InForce,
    pub(super) index: u32,
    pub(super) mark: u32,
    pub(super) clock: ClockWatch,
    pub(super) recall: Recall,
    pub(super) server: StatusServer,
    /// None if the file names no port for it.
    pub(super) metrics: Option<MetricsServer>,
    /// None if `wg` is not to be served, or cannot be, which is no reason not to run.
    pub(super) uapi: Option<UapiServer>,
    pub(super) monitor: Monitor,
    pub(super) changed: Arc<Notify>,
}

/// Opens everything. What it has put into the kernel's routing when it fails, `routing` takes back.
pub(super) async fn open(
    config: &Config,
    options: &RunOptions,
    mut keys: Keys,
    handed: Handed,
    routing: &mut Reconciler,
) -> anyhow::Result<Opened> {
    let server = StatusServer::bind(&options.socket)?;
    let uapi = serve_wg(config, options, handed.wg_socket);
    routing.before_device(config, &configured(config).collect::<Vec<_>>()).await?.complete()?;

    let workers = limits::workers(config.interface.workers);
    let (device, store) = Store::open(&config.interface, workers, handed.kept, options.keep)?;
    let offloads = device.offloads;
    tell_if_less(config, offloads);
    // Before the first other thread, which would keep what it was born with.
    drop_privileges(config, options)?;
    let recall = Recall::read(options.state_dir.as_deref(), &config.interface.name);
    let resolved = resolve_unless_recalled(config, &recall, store.is_restart()).await;
    let endpoints = endpoints(config, &recall, &resolved);
    let mark = routes::mark(config, &endpoints);
    let sockets = listen(config, workers, mark)?;
    let mtu = config.interface.mtu.unwrap_or(Mtu::DEFAULT);
    let up = Netlink::open()?.set_up(device.index, mtu).await;
    up.with_context(|| format!("cannot set up the interface with mtu {mtu}; is another program at it? start again"))?;
    let monitor = Monitor::open().context("cannot listen to the kernel's routing")?;
    routing.running(config, device.index, &endpoints).await?.complete()?;
    if store.is_restart() {
        routing.take_strange_addresses(config, device.index).await?;
    }

    let clock = ClockWatch::new(options.state_dir.as_deref(), &config.interface.name);
    let identity = locked(Identity::new(keys.private));
    let gate = Arc::new(Gate::new(identity.public()));
    let mut roster = Roster::new(workers);
    let peers = roster.enrol(config, &identity, &[], &mut keys.preshared)?;
    let mut tunnels = Tunnels::default();
    tunnels.follow(config, &peers, families(&sockets), resolved);
    tunnels.recall(&recall, families(&sockets), store.is_restart());
    let facts = report::Facts::new(config, &identity, &device, sockets.port, workers, mtu);
    let owners = roster::owners(config, &peers);
    let table = Arc::new(ArcSwap::from_pointee(Table::new(identity.clone(), gate.clone(), peers, owners, mtu)));
    let changed = Arc::new(Notify::new());
    let call = changed.clone();
    store.keep(&device.queues);
    let inputs = Inputs {
        queues: device.queues,
        offloads,
        sockets: sockets.clone(),
        table: table.clone(),
        changed: Arc::new(move || call.notify_one()),
    };
    let plane = Plane::start(inputs).context(NO_THREADS)?;
    // Only now: a start that fails has one line to say.
    let uapi = uapi.unwrap_or_else(|error| without_wg(&error));
    let metrics = MetricsServer::open_if(config.interface.metrics).await;
    let in_force = InForce { config: Rc::new(config.clone()), identity, gate, sockets, roster, tunnels, facts };
    let index = device.index;
    Ok(Opened { plane, table, in_force, index, mark, clock, recall, server, metrics, uapi, monitor, changed })
}

/// The endpoints that are addresses.
fn configured(config: &Config) -> impl Iterator<Item = IpAddr> {
    config.tunnels().filter_map(|(_, tunnel)| address_of(tunnel.endpoint.as_ref()))
}

/// Where far ends may be. Those recalled, too: else the first datagrams to them might go into the tunnel.
fn endpoints(config: &Config, recall: &Recall, resolved: &[Vec<SocketAddr>]) -> Vec<IpAddr> {
    let recalled = config.tunnels().filter_map(|(_, tunnel)| recall.of(&tunnel.public_key));
    let found = recalled.chain(resolved.iter().flatten().copied()).map(|address| address.ip());
    configured(config).chain(found).collect()
}

fn tell_if_less(config: &Config, offloads: Offloads) {
    if config.interface.offload && !(offloads.tcp && offloads.udp) {
        let words = report::words(offloads);
        warn!("the kernel takes super-packets only in part ({words}): slower, all else is the same");
    }
}

fn listen(config: &Config, workers: usize, mark: u32) -> anyhow::Result<udp::Group> {
    let sockets = udp::bind(config.interface.listen_port, workers, mark)?;
    if sockets.v6.is_empty() {
        info!("this host has no IPv6: listening on IPv4 only");
    }
    Ok(sockets)
}

fn without_wg(error: &anyhow::Error) -> Option<UapiServer> {
    warn!("`wg show` will not see this interface: {error:#}");
    None
}

/// Who was heard a moment ago is there still, most likely: at a `restart`, the name is looked up beside the traffic.
async fn resolve_unless_recalled(config: &Config, recall: &Recall, restart: bool) -> Vec<Vec<SocketAddr>> {
    let asked = config.tunnels().map(|(_, tunnel)| {
        let recalled = restart && recall.of(&tunnel.public_key).is_some();
        tunnel.endpoint.as_ref().filter(|_| !recalled)
    });
    resolve_names(asked).await
}

/// What `sockets` can reach.
pub(super) fn families(sockets: &udp::Group) -> Families {
    Families { v4: !sockets.v4.is_empty(), v6: !sockets.v6.is_empty() }
}

pub(super) fn address_of(endpoint: Option<&Endpoint>) -> Option<IpAddr> {
    match endpoint {
        Some(Endpoint::Address(address)) => Some(address.ip()),
        Some(Endpoint::Name(..)) | None => None,
    }
}

/// The addresses of endpoints that are names, a list for each; empty where that takes too long.
pub(super) async fn resolve_names(endpoints: impl Iterator<Item = Option<&Endpoint>>) -> Vec<Vec<SocketAddr>> {
    let lookups = endpoints.map(|endpoint| async move {
        match endpoint {
            Some(Endpoint::Name(name, port)) => {
                timeout(RESOLVE, lookup(name, *port)).await.ok().and_then(Result::ok).unwrap_or_default()
            }
            Some(Endpoint::Address(_)) | None => Vec::new(),
        }
    });
    futures_util::future::join_all(lookups).await
}

/// By the socket that was handed over, or one of our own. None if nobody wants it.
fn serve_wg(config: &Config, options: &RunOptions, handed: Option<OwnedFd>) -> anyhow::Result<Option<UapiServer>> {
    if !options.wg {
        return Ok(None);
    }
    if let Some(socket) = handed {
        return UapiServer::adopt(socket).map(Some);
    }
    // The folder is root's alone, so whoever else this process becomes could not take the socket away again.
    if other_user().is_some() {
        bail!("the user {USER} could not remove its socket; {BY_SYSTEMD}");
    }
    let bound = UapiServer::bind(&config.interface.name).map(Some);
    if geteuid().is_root() { bound } else { bound.map_err(|error| anyhow!("{error:#}; {BY_SYSTEMD}")) }
}

/// Whom this process becomes, if it is root's now.
fn other_user() -> Option<User> {
    geteuid().is_root().then(|| User::from_name(USER).ok().flatten()).flatten()
}

/// From here on the process can do nothing that the tunnel does not need.
fn drop_privileges(config: &Config, options: &RunOptions) -> anyhow::Result<()> {
    if let Some(user) = other_user() {
        let state = state::directory(options.state_dir.as_deref());
        // The user must be able to remove its socket, and to go on with what root wrote.
        let folders = [options.socket.parent(), Some(&state)];
        for folder in folders.into_iter().flatten().filter(|folder| folder.ends_with(USER)) {
            give(folder, &user).with_context(|| format!("cannot give {} to the user {USER}", folder.display()))?;
        }
        for file in state::files(&state, &config.interface.name) {
            let _ = lchown(file, Some(user.uid.into()), None);
        }
    }
    process::drop_privileges(Some(USER))?;
    Ok(())
}

fn give(folder: &Path, user: &User) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    lchown(folder, Some(user.uid.into()), Some(user.gid.into()))
}
