//! The life of the daemon: open everything, drop privileges, keep things as they ought to be, take all away again.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::clock::ClockWatch;
use super::dead_ends;
use super::limits;
use super::log;
use super::metrics_server::MetricsServer;
use super::netlink::{self, Monitor, Netlink};
use super::periodic::Periodic;
use super::reconcile::Reconciler;
use super::report;
use super::resolve;
use super::routes;
use super::setup::{self, Keys, Opened};
use super::status::Status;
use super::status_server::{Answers, StatusServer};
use super::tunnels::{Question, Tunnels};
use super::uapi::{ReadOnly, UapiServer};
use super::watchdog::Watchdog;
use crate::config::Config;
use crate::data::Plane;
use crate::sys::{inherited, process, udp};
use crate::tunnel::Identity;

/// How often what no event announces is looked at: silent peers, the clock, heartbeats.
const LOOK: Duration = Duration::from_secs(2);

/// What the service manager calls the socket of `wg` (FileDescriptorName=).
const WG_SOCKET: &str = "wg";

/// What the command line adds to the configuration.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Where `linkspan status` asks.
    pub socket: PathBuf,
    /// Whether `wg show` may ask, too.
    pub wg: bool,
    /// Where the clock mark is kept; none = $STATE_DIRECTORY or /var/lib/linkspan.
    pub state_dir: Option<PathBuf>,
    /// What to log; none = $LINKSPAN_LOG, $RUST_LOG or "info".
    pub log: Option<String>,
}

/// Runs the daemon of `config` until SIGTERM or SIGINT. To be called before any other thread exists.
///
/// # Errors
/// When it could not start (nothing of it is left then), or could not go on. Each names the remedy.
pub fn run(config: &Config, options: &RunOptions) -> anyhow::Result<()> {
    let handed = inherited::descriptors().context("cannot take over the service manager's sockets (LISTEN_FDS)")?;
    let wg_socket = handed.into_iter().find(|(name, _)| name == WG_SOCKET).map(|(_, socket)| socket);
    let level = log::init(options.log.as_deref())?;
    process::harden()?;
    if !process::has_net_admin() {
        bail!("not permitted: start it as root, or give it the capability CAP_NET_ADMIN");
    }
    limits::check_open_files(limits::workers(config.interface.workers))?;
    let keys = Keys::read(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start (is there a limit on open files? see: ulimit -n)")?;
    runtime.block_on(live(config, options, level, keys, wg_socket))
}

async fn live(
    config: &Config,
    options: &RunOptions,
    level: log::Level,
    keys: Keys,
    wg_socket: Option<OwnedFd>,
) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    let mut routing = Reconciler::new(netlink.clone(), &config.interface.name);
    // From here on a signal finds somebody who cleans up.
    let mut signals = Signals::new()?;
    let opened = tokio::select! {
        opened = setup::open(config, options, keys, wg_socket, &mut routing) => opened.map(Some),
        () = signals.stop() => Ok(None),
    };
    match opened {
        Ok(Some(opened)) => {
            let (shared, keeper) = split(config, opened, level, routing, netlink);
            keeper.live(shared, signals).await
        }
        Ok(None) => {
            routing.roll_back().await;
            Ok(())
        }
        Err(error) => {
            routing.roll_back().await;
            Err(error)
        }
    }
}

fn split(
    config: &Config,
    opened: Opened,
    level: log::Level,
    routing: Reconciler,
    netlink: Netlink,
) -> (Shared, Keeper<'_>) {
    let Opened {
        plane,
        sockets,
        index,
        mark,
        clock,
        server,
        metrics,
        uapi,
        identity,
        monitor,
        tunnels,
        facts,
        changed,
    } = opened;
    let shared = Shared {
        plane,
        facts,
        level,
        server,
        metrics,
        uapi,
        identity,
        tunnels: RefCell::new(tunnels),
        clock_behind: Cell::default(),
        warnings: RefCell::default(),
    };
    let watchdog = Watchdog::new();
    let (endpoints, unsettled) = (Vec::new(), false);
    let keeper = Keeper {
        config,
        sockets,
        index,
        mark,
        netlink,
        routing,
        endpoints,
        unsettled,
        clock,
        watchdog,
        monitor,
        changed,
    };
    (shared, keeper)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let new = |kind| signal(kind).context("cannot handle signals");
        let (terminate, interrupt) = (new(SignalKind::terminate())?, new(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, reload: new(SignalKind::hangup())? })
    }

    /// Returns when the daemon is to stop.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reload.recv() => warn!("reload is not there yet in this version: restart to apply changes"),
            }
        }
    }
}

/// What the status reads while the keeper works. Cells are never borrowed across an await.
struct Shared {
    plane: Plane,
    facts: report::Facts,
    level: log::Level,
    server: StatusServer,
    metrics: Option<MetricsServer>,
    uapi: Option<UapiServer>,
    identity: Arc<Identity>,
    tunnels: RefCell<Tunnels>,
    clock_behind: Cell<Duration>,
    warnings: RefCell<Vec<String>>,
}

impl Answers for Shared {
    fn status(&self) -> Status {
        let now = Instant::now();
        self.tunnels.borrow_mut().look(now);
        let tunnels = self.tunnels.borrow();
        let warnings = tunnels.warnings(now).chain(self.warnings.borrow().iter().cloned()).collect();
        self.facts.status(&self.plane, &tunnels, self.clock_behind.get(), warnings)
    }

    fn log_level(&self) -> String {
        self.level.text()
    }

    fn set_log_level(&self, level: &str) -> anyhow::Result<()> {
        self.level.set(level)
    }
}

impl Shared {
    /// Answers Prometheus, for ever.
    async fn serve_metrics(&self) {
        match &self.metrics {
            Some(server) => server.serve(|| self.status()).await,
            None => pending().await,
        }
    }

    /// Answers `wg show`, for ever.
    async fn serve_wg(&self, config: &Config, sockets: udp::Group) {
        match &self.uapi {
            Some(server) => server.serve(&ReadOnly::new(config, self.identity.clone(), sockets, &self.tunnels)).await,
            None => pending().await,
        }
    }
}

/// Keeps everything as it ought to be.
struct Keeper<'c> {
    config: &'c Config,
    sockets: udp::Group,
    index: u32,
    mark: u32,
    netlink: Netlink,
    routing: Reconciler,
    /// The peers' addresses for which the routes were made.
    endpoints: Vec<IpAddr>,
    /// Something is not as it ought to be: try again at the next look, whether or not the kernel tells of a change.
    unsettled: bool,
    clock: ClockWatch,
    watchdog: Watchdog,
    monitor: Monitor,
    /// The data plane's call: a session began, a peer moved, a thread failed.
    changed: Arc<Notify>,
}

impl Keeper<'_> {
    /// Works until told to stop, then takes everything away. After a failure the routes of last resort stay.
    async fn live(mut self, shared: Shared, signals: Signals) -> anyhow::Result<()> {
        shared.facts.log();
        notify(NotifyState::Ready);
        let (config, sockets) = (self.config, self.sockets.clone());
        let outcome = tokio::select! {
            outcome = self.work(&shared, signals) => outcome,
            () = shared.server.serve(&shared) => Ok(()),
            () = shared.serve_metrics() => Ok(()),
            () = shared.serve_wg(config, sockets) => Ok(()),
        };
        notify(NotifyState::Stopping);
        self.clock.close(Instant::now());
        let cleared = if outcome.is_ok() { self.clear().await } else { Ok(()) };
        shared.plane.stop();
        info!("stopped");
        outcome.and(cleared)
    }

    async fn work(&mut self, shared: &Shared, mut signals: Signals) -> anyhow::Result<()> {
        let looks = Periodic::new(LOOK).context("cannot set a timer")?;
        let mut lookups = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = signals.stop() => return Ok(()),
                () = self.changed.notified() => {}
                news = self.monitor.changed() => {
                    news.context("listening to the kernel's routing failed")?;
                    self.keep_routes().await?;
                }
                Some((place, answer)) = lookups.next(), if !lookups.is_empty() => {
                    shared.tunnels.borrow_mut().answer(place, answer);
                    shared.plane.wake_timers();
                }
                ticked = looks.tick() => {
                    ticked.context("the timer failed")?;
                    self.look_at_clocks(shared);
                    let peers = shared.tunnels.borrow().iter().map(|watch| watch.peer.clone()).collect();
                    dead_ends::leave(&self.netlink, self.mark, peers).await;
                    if self.unsettled {
                        self.keep_routes().await?;
                    }
                }
            }
            self.look(shared).await?;
            let questions = shared.tunnels.borrow_mut().questions(Instant::now());
            lookups.extend(questions.into_iter().map(ask));
        }
    }

    /// After any event: states, and routes if a peer is somewhere else now.
    async fn look(&mut self, shared: &Shared) -> anyhow::Result<()> {
        if let Some(why) = shared.plane.failure() {
            bail!("{why}: the interface was deleted, most likely; start the daemon again");
        }
        shared.tunnels.borrow_mut().look(Instant::now());
        let endpoints = shared.tunnels.borrow().endpoints();
        let seeking = shared.tunnels.borrow().seek_a_name();
        if self.routing.seek(seeking) || endpoints != self.endpoints {
            self.endpoints = endpoints;
            self.keep_routes().await?;
        }
        let tunnels = shared.tunnels.borrow();
        let problems = self.routing.problems().chain(tunnels.problems()).map(str::to_owned);
        shared.clock_behind.set(self.clock.behind());
        *shared.warnings.borrow_mut() = self.clock.warning().into_iter().chain(problems).collect();
        Ok(())
    }

    fn look_at_clocks(&mut self, shared: &Shared) {
        let now = Instant::now();
        if self.clock.look(now) {
            shared.tunnels.borrow().recreate(now);
            shared.plane.wake_timers();
        }
        self.watchdog.feed(shared.plane.heartbeats().collect());
    }

    /// Puts routes, rules, addresses and the sockets' mark as they ought to be.
    async fn keep_routes(&mut self) -> anyhow::Result<()> {
        let mark = routes::mark(self.config, &self.endpoints);
        if mark != self.mark {
            self.sockets.set_mark(mark).context("cannot mark the sockets")?;
            self.mark = mark;
        }
        let kept = self.routing.keep(self.config, self.index, &self.endpoints).await;
        if let Err(netlink::Error::NoDevice) = kept {
            bail!("the interface was deleted: start the daemon again");
        }
        if let Err(error) = &kept {
            warn!("cannot keep addresses, routes and rules: {error}; trying again");
        }
        self.unsettled = kept.is_err() || self.routing.problems().next().is_some();
        Ok(())
    }

    async fn clear(&mut self) -> anyhow::Result<()> {
        let removed = self.routing.clear(Some(self.index)).await?;
        for problem in &removed.problems {
            warn!("{problem}");
        }
        Ok(())
    }
}

async fn ask(question: Question) -> (usize, io::Result<Vec<SocketAddr>>) {
    (question.place, resolve::lookup(&question.name, question.port).await)
}

/// Tells the service manager, if there is one.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("cannot reach the service manager: {error}");
    }
}
