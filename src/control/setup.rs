//! From a configuration to a running plane, in the order that never leaves a gap: routes of last resort, interface,
//! privileges dropped, names, sockets, addresses and routes, peers, threads.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwap;
use nix::unistd::{User, geteuid};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{info, warn};

use super::clock::ClockWatch;
use super::daemon::RunOptions;
use super::locked::locked;
use super::metrics_server::MetricsServer;
use super::netlink::{Monitor, Netlink};
use super::reconcile::Reconciler;
use super::resolve::{Families, Resolver, lookup};
use super::status_server::StatusServer;
use super::tunnels::{Tunnels, Watch};
use super::uapi::UapiServer;
use super::{limits, report, routes, state};
use crate::config::{Config, Endpoint, Startup, key_file};
use crate::data::{Inputs, Plane};
use crate::packet::Mtu;
use crate::sys::{process, tun, udp};
use crate::tunnel::key::{PresharedKey, PrivateKey};
use crate::tunnel::{Gate, Identity, Initiates, Owner, Peer, PeerConfig, PeerId, Slots, Table};

/// The static user of the service; without it, root stays, with nothing but CAP_NET_ADMIN.
const USER: &str = "linkspan";
/// How a daemon that is not root's gets a socket where only root can make one.
const BY_SYSTEMD: &str = "systemd can make it: install linkspan@.socket beside linkspan@.service, and start that";
/// For when the kernel gives no thread.
pub(super) const NO_THREADS: &str =
    "cannot start the data threads (is their number limited? see ulimit -u, and TasksMax= of a service)";
/// How long the start waits for names. Later they are resolved beside the traffic.
const RESOLVE: Duration = Duration::from_secs(3);

/// Every secret of a configuration, read before anything is touched.
pub(super) struct Keys {
    private: PrivateKey,
    /// One a tunnel, in the order of the file.
    preshared: Vec<Option<PresharedKey>>,
}

impl Keys {
    pub(super) fn read(config: &Config) -> anyhow::Result<Self> {
        let private = key_file::private_key_of(&config.interface)?;
        let own = private.public();
        let mut preshared = Vec::new();
        for (connection, tunnel) in config.tunnels() {
            if tunnel.public_key == own {
                bail!(
                    "connection {}: public_key is this machine's own key; write the far machine's, as \
                     `linkspan pubkey` prints it there",
                    connection.name
                );
            }
            let file = tunnel.preshared_key_file.as_deref();
            preshared.push(file.map(key_file::read_preshared_key).transpose()?);
        }
        Ok(Self { private, preshared })
    }
}

/// All that is open once the daemon has started.
pub(super) struct Opened {
    pub(super) plane: Plane,
    pub(super) sockets: udp::Group,
    pub(super) index: u32,
    pub(super) mark: u32,
    pub(super) tunnels: Tunnels,
    pub(super) clock: ClockWatch,
    pub(super) server: StatusServer,
    /// None if the file names no port for it.
    pub(super) metrics: Option<MetricsServer>,
    /// None if `wg` is not to be served, or cannot be, which is no reason not to run.
    pub(super) uapi: Option<UapiServer>,
    pub(super) identity: Arc<Identity>,
    pub(super) monitor: Monitor,
    pub(super) facts: report::Facts,
    pub(super) changed: Arc<Notify>,
}

/// Opens everything. What it has put into the kernel's routing when it fails, `routing` takes back.
pub(super) async fn open(
    config: &Config,
    options: &RunOptions,
    keys: Keys,
    wg_socket: Option<OwnedFd>,
    routing: &mut Reconciler,
) -> anyhow::Result<Opened> {
    let server = StatusServer::bind(&options.socket)?;
    let metrics = MetricsServer::bind_if(config.interface.metrics).await?;
    let uapi = serve_wg(config, options, wg_socket);
    let configured: Vec<IpAddr> = config.tunnels().filter_map(|(_, tunnel)| address_of(&tunnel.endpoint)).collect();
    routing.before_device(config, &configured).await?.complete()?;

    let workers = limits::workers(config.interface.workers);
    let device = tun::open(&config.interface.name, workers, config.interface.offload)?;
    let offloads = device.offloads;
    if config.interface.offload && !(offloads.tcp && offloads.udp) {
        warn!(
            "the kernel takes super-packets only in part ({}): slower, all else is the same",
            report::words(offloads)
        );
    }
    // Before the first other thread, which would keep what it was born with.
    drop_privileges(config, options)?;
    let resolved = resolve_names(config).await;
    let endpoints: Vec<IpAddr> = configured.into_iter().chain(resolved.iter().flatten().map(|a| a.ip())).collect();
    let mark = routes::mark(config, &endpoints);
    let sockets = udp::bind(config.interface.listen_port, workers, mark)?;
    if sockets.v6.is_empty() {
        info!("this host has no IPv6: listening on IPv4 only");
    }
    let mtu = config.interface.mtu.unwrap_or(Mtu::DEFAULT);
    let up = Netlink::open()?.set_up(device.index, mtu).await;
    up.with_context(|| format!("cannot set up the interface with mtu {mtu}; is another program at it? start again"))?;
    let monitor = Monitor::open().context("cannot listen to the kernel's routing")?;
    routing.running(config, device.index, &endpoints).await?.complete()?;

    let clock = ClockWatch::new(options.state_dir.as_deref(), &config.interface.name);
    let families = Families { v4: !sockets.v4.is_empty(), v6: !sockets.v6.is_empty() };
    let identity = locked(Identity::new(keys.private));
    let peers = peers(config, &identity, keys.preshared, workers)?;
    let tunnels = Tunnels::new(watches(config, &peers, families, resolved));
    let facts = report::Facts::new(config, &identity, &device, sockets.port, workers, mtu);
    let gate = Arc::new(Gate::new(identity.public()));
    let table = Table::new(identity.clone(), gate, peers, owners(config), mtu);
    let changed = Arc::new(Notify::new());
    let call = changed.clone();
    let inputs = Inputs {
        queues: device.queues,
        offloads,
        sockets: sockets.clone(),
        table: Arc::new(ArcSwap::from_pointee(table)),
        changed: Arc::new(move || call.notify_one()),
    };
    let plane = Plane::start(inputs).context(NO_THREADS)?;
    // Only now: a start that fails has one line to say.
    let uapi = uapi.unwrap_or_else(|error| {
        warn!("`wg show` will not see this interface: {error:#}");
        None
    });
    Ok(Opened {
        plane,
        sockets,
        index: device.index,
        mark,
        tunnels,
        clock,
        server,
        metrics,
        uapi,
        identity,
        monitor,
        facts,
        changed,
    })
}

fn address_of(endpoint: &Option<Endpoint>) -> Option<IpAddr> {
    match endpoint {
        Some(Endpoint::Address(address)) => Some(address.ip()),
        Some(Endpoint::Name(..)) | None => None,
    }
}

/// The addresses of all endpoint names, one list a tunnel in the order of the file; empty where that takes too long.
async fn resolve_names(config: &Config) -> Vec<Vec<std::net::SocketAddr>> {
    let lookups = config.tunnels().map(|(_, tunnel)| async {
        match &tunnel.endpoint {
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
        let _ = lchown(state::clock_file(&state, &config.interface.name), Some(user.uid.into()), None);
    }
    process::drop_privileges(Some(USER))?;
    Ok(())
}

fn give(folder: &Path, user: &User) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    lchown(folder, Some(user.uid.into()), Some(user.gid.into()))
}

fn peers(
    config: &Config,
    identity: &Arc<Identity>,
    preshared: Vec<Option<PresharedKey>>,
    workers: usize,
) -> anyhow::Result<Vec<Arc<Peer>>> {
    let mut slots = Slots::default();
    let mut peers = Vec::new();
    for (number, ((connection, tunnel), psk)) in config.tunnels().zip(preshared).enumerate() {
        let place = config.connections.iter().position(|other| other.name == connection.name).unwrap_or_default();
        let peer = PeerConfig {
            id: PeerId(u32::try_from(number)?),
            name: format!("{}/{}", connection.name, tunnel.name),
            connection: u32::try_from(place)?,
            remote: tunnel.public_key,
            psk,
            keepalive: tunnel.keepalive,
            initiates: match connection.startup {
                Startup::Start => Initiates::Always,
                Startup::Add => Initiates::WhenHeard,
            },
            configured_endpoint: tunnel.endpoint.is_some(),
            slots: slots.pair(u8::try_from(number % workers)?)?,
            seed: getrandom::u64().context("the kernel gives no random bytes")?,
        };
        peers.push(locked(Peer::new(identity, peer, Instant::now())));
    }
    Ok(peers)
}

fn watches(
    config: &Config,
    peers: &[Arc<Peer>],
    families: Families,
    resolved: Vec<Vec<std::net::SocketAddr>>,
) -> Vec<Watch> {
    let tunnels = config.tunnels().zip(peers).zip(resolved);
    tunnels
        .map(|(((connection, tunnel), peer), addresses)| {
            let mut watch = Watch::new(peer.clone(), tunnel.endpoint.clone(), connection.startup);
            match &tunnel.endpoint {
                Some(Endpoint::Address(address)) => watch.set_endpoint(vec![*address]),
                Some(Endpoint::Name(name, port)) => {
                    let mut resolver = Resolver::new(name.clone(), *port, families);
                    if !addresses.is_empty()
                        && let Some(usable) = resolver.answer(Instant::now(), Ok(addresses))
                    {
                        watch.set_endpoint(usable);
                    }
                    watch.resolve_with(resolver);
                }
                None => {}
            }
            watch
        })
        .collect()
}

/// Whom each network belongs to: what is behind the far end to the connection, its inside address to the tunnel.
fn owners(config: &Config) -> Vec<(ipnet::IpNet, Owner)> {
    let mut owners = Vec::new();
    let mut id = 0;
    for (number, connection) in (0..).zip(&config.connections) {
        owners.extend(connection.networks.iter().map(|network| (*network, Owner::Connection(number))));
        for tunnel in &connection.tunnels {
            owners.extend(tunnel.inside.map(|inside| (inside.remote.into(), Owner::Tunnel(PeerId(id)))));
            id += 1;
        }
    }
    owners
}
