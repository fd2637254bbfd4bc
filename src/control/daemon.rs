//! The life of the daemon: open everything, drop privileges, keep things as they ought to be, take all away again.

mod apply;
mod shared;

use std::cell::{Cell, RefCell};
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
use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use super::clock::{ClockWatch, Look};
use super::keys::Keys;
use super::limits;
use super::log;
use super::netlink::{self, Monitor, Netlink};
use super::periodic::Periodic;
use super::recall::Recall;
use super::reconcile::Reconciler;
use super::reload;
use super::resolve;
use super::routes;
use super::setup::{self, Opened};
use super::tunnels::Question;
use super::watchdog::Watchdog;
use super::ways::Ways;
use crate::config::Config;
use crate::sys::{inherited, process};

use shared::Shared;

/// How often what no event announces is looked at: silent peers, the clock, heartbeats.
const LOOK: Duration = Duration::from_secs(2);

/// What the service manager calls the socket of `wg` (FileDescriptorName=).
const WG_SOCKET: &str = "wg";

/// What the service manager handed over.
pub(super) struct Handed {
    pub(super) wg_socket: Option<OwnedFd>,
    /// Queues of the TUN that the last process left there; whatever else there is, by its name.
    pub(super) kept: Vec<(String, OwnedFd)>,
}

impl Handed {
    fn sort(all: Vec<(String, OwnedFd)>) -> Self {
        let (wg, kept) = all.into_iter().partition::<Vec<_>, _>(|(name, _)| name == WG_SOCKET);
        Self { wg_socket: wg.into_iter().next().map(|(_, socket)| socket), kept }
    }
}

/// What the command line adds to the configuration.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Where the configuration came from: a reload reads it again.
    pub file: PathBuf,
    /// Where `linkspan status` asks.
    pub socket: PathBuf,
    /// Whether `wg show` may ask, too.
    pub wg: bool,
    /// Where the clock mark is kept; none = $STATE_DIRECTORY or /var/lib/linkspan.
    pub state_dir: Option<PathBuf>,
    /// Leave the interface, its addresses and all routing to the next start: the service manager keeps the queues, and
    /// [`forget`](super::forget) cleans up after the last one.
    pub keep: bool,
    /// What to log; none = $LINKSPAN_LOG, $RUST_LOG or "info".
    pub log: Option<String>,
}

/// Runs the daemon of `config` until SIGTERM or SIGINT. To be called before any other thread exists.
///
/// # Errors
/// When it could not start (nothing of it is left then), or could not go on. Each names the remedy.
pub fn run(config: &Config, options: &RunOptions) -> anyhow::Result<()> {
    let handed = inherited::descriptors().context("cannot take over the service manager's sockets (LISTEN_FDS)")?;
    let handed = Handed::sort(handed);
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
    runtime.block_on(live(config, options, level, keys, handed))
}

async fn live(
    config: &Config,
    options: &RunOptions,
    level: log::Level,
    keys: Keys,
    handed: Handed,
) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    let mut routing = Reconciler::new(netlink.clone(), &config.interface.name);
    // From here on a signal finds somebody who cleans up.
    let mut signals = Signals::new()?;
    let opened = tokio::select! {
        opened = setup::open(config, options, keys, handed, &mut routing) => opened.map(Some),
        () = signals.stop() => Ok(None),
    };
    match opened {
        Ok(Some(opened)) => {
            let (wishes, reloads) = mpsc::channel(1);
            let (shared, keeper) = split(options, opened, level, wishes, routing, netlink);
            keeper.live(shared, signals, reloads).await
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
    options: &RunOptions,
    opened: Opened,
    level: log::Level,
    wishes: mpsc::Sender<reload::Request>,
    routing: Reconciler,
    netlink: Netlink,
) -> (Shared, Keeper) {
    let Opened { plane, table, in_force, index, mark, clock, recall, server, metrics, uapi, monitor, changed } = opened;
    let shared = Shared {
        plane,
        table,
        level,
        wishes,
        server,
        metrics,
        uapi,
        in_force: RefCell::new(in_force),
        clock_behind: Cell::default(),
        warnings: RefCell::default(),
    };
    let watchdog = Watchdog::new();
    let (endpoints, unsettled) = (Vec::new(), false);
    let keeper = Keeper {
        file: options.file.clone(),
        keep: options.keep,
        recall,
        index,
        mark,
        ways: Ways::new(netlink.clone()),
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

/// What a signal asks for.
enum Told {
    Stop,
    Reload,
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
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.reload.recv() => Told::Reload,
        }
    }
}

/// Keeps everything as it ought to be.
struct Keeper {
    file: PathBuf,
    /// The next start goes on where this process ends.
    keep: bool,
    recall: Recall,
    index: u32,
    mark: u32,
    netlink: Netlink,
    ways: Ways,
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

impl Keeper {
    /// Works until told to stop, then takes everything away. After a failure the routes of last resort stay.
    async fn live(
        mut self,
        shared: Shared,
        signals: Signals,
        reloads: mpsc::Receiver<reload::Request>,
    ) -> anyhow::Result<()> {
        shared.in_force.borrow().facts.log();
        notify(&[NotifyState::Ready]);
        let outcome = tokio::select! {
            outcome = self.work(&shared, signals, reloads) => outcome,
            () = shared.server.serve(&shared) => Ok(()),
            () = shared.serve_metrics() => Ok(()),
            () = shared.serve_wg() => Ok(()),
        };
        notify(&[NotifyState::Stopping]);
        self.clock.close(Instant::now());
        self.recall.write(&shared.in_force.borrow().tunnels);
        let cleared = if outcome.is_ok() && !self.keep { self.clear().await } else { Ok(()) };
        shared.plane.stop();
        info!("stopped");
        outcome.and(cleared)
    }

    async fn work(
        &mut self,
        shared: &Shared,
        mut signals: Signals,
        mut reloads: mpsc::Receiver<reload::Request>,
    ) -> anyhow::Result<()> {
        let looks = Periodic::new(LOOK).context("cannot set a timer")?;
        let mut lookups = FuturesUnordered::new();
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => return Ok(()),
                    Told::Reload => drop(self.reload(shared).await),
                },
                Some((wish, asker)) = reloads.recv() => {
                    // Who asked may have gone away.
                    let _ = asker.send(self.grant(wish, shared).await);
                }
                () = self.changed.notified() => {}
                news = self.monitor.changed() => {
                    news.context("listening to the kernel's routing failed")?;
                    self.keep_routes(shared).await?;
                }
                Some((question, answer)) = lookups.next(), if !lookups.is_empty() => {
                    shared.in_force.borrow_mut().tunnels.answer(&question, answer);
                    shared.plane.wake_timers();
                }
                ticked = looks.tick() => {
                    ticked.context("the timer failed")?;
                    self.look_at_clocks(shared);
                    self.recall.write_at_times(&shared.in_force.borrow().tunnels, Instant::now());
                    let peers = shared.in_force.borrow().peers();
                    self.ways.look(self.index, self.mark, peers).await;
                    if self.unsettled {
                        self.keep_routes(shared).await?;
                    }
                }
            }
            self.look(shared).await?;
            let questions = shared.in_force.borrow_mut().tunnels.questions(Instant::now());
            lookups.extend(questions.into_iter().map(ask));
        }
    }

    /// After any event: states, and routes if a peer is somewhere else now.
    async fn look(&mut self, shared: &Shared) -> anyhow::Result<()> {
        if let Some(why) = shared.plane.failure() {
            bail!("{why}: the interface was deleted, most likely; start the daemon again");
        }
        shared.in_force.borrow_mut().tunnels.look(Instant::now());
        let endpoints = shared.in_force.borrow().tunnels.endpoints();
        let seeking = shared.in_force.borrow().tunnels.seek_a_name();
        if self.routing.seek(seeking) || endpoints != self.endpoints {
            self.endpoints = endpoints;
            self.keep_routes(shared).await?;
        }
        let in_force = shared.in_force.borrow();
        let problems = self.routing.problems().chain(in_force.tunnels.problems()).map(str::to_owned);
        shared.clock_behind.set(self.clock.behind());
        *shared.warnings.borrow_mut() = self.clock.warning().into_iter().chain(problems).collect();
        Ok(())
    }

    fn look_at_clocks(&mut self, shared: &Shared) {
        let now = Instant::now();
        let look = self.clock.look(now);
        if look != Look::Fine {
            let tunnels = &shared.in_force.borrow().tunnels;
            if look == Look::Recreate {
                tunnels.recreate(now)
            } else {
                tunnels.hurry()
            }
            shared.plane.wake_timers();
        }
        self.watchdog.feed(shared.plane.heartbeats().collect());
    }

    /// Puts routes, rules, addresses and the sockets' mark as they ought to be.
    async fn keep_routes(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let config = shared.config();
        let mark = routes::mark(&config, &self.endpoints);
        if mark != self.mark {
            shared.in_force.borrow().sockets.set_mark(mark).context("cannot mark the sockets")?;
            self.mark = mark;
        }
        let kept = self.routing.keep(&config, self.index, &self.endpoints).await;
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

async fn ask(question: Question) -> (Question, io::Result<Vec<SocketAddr>>) {
    let answer = resolve::lookup(&question.name, question.port).await;
    (question, answer)
}

/// Tells the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("cannot reach the service manager: {error}");
    }
}
