//! The life of `linkspan-wg`: one interface without a file, configured by `wg` over its socket while it runs.
//!
//! Everything of the daemon but its configuration: no routes, no addresses, no names. Ends when the interface or the
//! socket is removed.

mod device;
mod link;
mod peers;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::clock::{ClockWatch, Look};
use super::limits;
use super::log;
use super::netlink::{Monitor, Netlink};
use super::periodic::Periodic;
use super::uapi::{Removal, UapiServer};
use super::ways::Ways;
use crate::packet::Mtu;
use crate::sys::{process, tun};

use device::Live;
use link::LinkWatch;

/// How often what no event announces is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What the command line says.
#[derive(Debug, Clone)]
pub struct WgOptions {
    /// The interface to be made.
    pub name: String,
    /// Worker pairs; 0 = one per core.
    pub workers: usize,
    /// What to log.
    pub log: Option<String>,
}

/// Runs until SIGTERM or SIGINT, or until the interface or the socket is removed. `ready` is called once the socket
/// accepts. To be called before any other thread exists.
///
/// # Errors
/// When it could not start (nothing of it is left then), or could not go on. Each names the remedy.
pub fn run(options: &WgOptions, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    log::init(options.log.as_deref())?;
    process::harden()?;
    if !process::has_net_admin() {
        bail!("not permitted: start it as root, or give it the capability CAP_NET_ADMIN");
    }
    limits::check_open_files(limits::workers(options.workers))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(live(options, ready))
}

async fn live(options: &WgOptions, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stop = Stop::new()?;
    let workers = limits::workers(options.workers);
    let tun = tun::open(&options.name, workers, true)?;
    let server = UapiServer::bind(&options.name)?;
    let first = tun.queues.first().context("the interface has no queue")?;
    let handle = first.handle().context("cannot hold the interface")?;
    let (monitor, everywhere) = Monitor::open_for_links().context("cannot listen to the kernel's links")?;
    let netlink = Netlink::open()?;
    let index = tun.index;
    netlink.set_mtu(index, Mtu::DEFAULT).await?;
    process::drop_privileges_but_low_ports()?;

    let changed = Arc::new(Notify::new());
    let device = Live::start(tun, changed.clone())?;
    let clock = ClockWatch::new(None, &options.name);
    let links = LinkWatch::new(handle, netlink.clone(), monitor, everywhere);
    let mut keeper = Keeper { links, tun: index, ways: Ways::new(netlink), clock: RefCell::new(clock), changed };
    let watches = Watches::new(&server)?;
    ready()?;
    info!(interface = options.name, workers, "the interface is there: configure it with wg");
    let outcome = tokio::select! {
        outcome = keeper.work(&device, watches, stop) => outcome,
        () = server.serve(&device) => Ok(()),
    };
    // The socket first: who sees it gone may start another.
    drop(server);
    keeper.clock.borrow_mut().close(Instant::now());
    device.stop();
    info!("stopped");
    outcome
}

/// What needs a watch of its own in the kernel, which may have none left.
struct Watches<'s> {
    removal: Removal<'s>,
    looks: Periodic,
}

impl<'s> Watches<'s> {
    fn new(server: &'s UapiServer) -> anyhow::Result<Self> {
        let removal = server.removal().context(
            "cannot watch for the removal of the socket: raise fs.inotify.max_user_instances (sysctl), or end what \
             holds them",
        )?;
        Ok(Self { removal, looks: Periodic::new(LOOK).context("cannot set a timer")? })
    }
}

struct Stop([tokio::signal::unix::Signal; 3]);

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let new = |kind| signal(kind).context("cannot handle signals");
        Ok(Self([new(SignalKind::terminate())?, new(SignalKind::interrupt())?, new(SignalKind::hangup())?]))
    }

    async fn wait(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Follows what happens around the device.
struct Keeper {
    links: LinkWatch,
    /// Its index where the sockets are; 0 if it was moved away.
    tun: u32,
    ways: Ways,
    clock: RefCell<ClockWatch>,
    changed: Arc<Notify>,
}

impl Keeper {
    /// Works until there is a reason to end, which is a failure or not.
    async fn work(&mut self, device: &Live, watches: Watches<'_>, mut stop: Stop) -> anyhow::Result<()> {
        let Watches { removal, looks } = watches;
        loop {
            tokio::select! {
                () = stop.wait() => return Ok(()),
                () = removal.wait() => {
                    info!("the socket was removed");
                    return Ok(());
                }
                () = self.changed.notified() => {}
                news = self.links.changed() => news.context("listening to the kernel's links failed")?,
                ticked = looks.tick() => {
                    ticked.context("the timer failed")?;
                    self.look_at_clock(device);
                    let (mark, peers) = device.peers();
                    self.ways.look(self.tun, mark, peers).await;
                }
            }
            if self.links.is_deleted() {
                info!("the interface was deleted");
                return Ok(());
            }
            if let Some(why) = device.failure() {
                bail!("{why}");
            }
            match self.links.look().await {
                Ok(Some(link)) => {
                    self.tun = link.index;
                    device.follow(link);
                }
                // On its way to another namespace, or out of this world: the next event tells.
                Ok(None) => {}
                Err(error) => warn!("cannot see the interface: {error:#}"),
            }
        }
    }

    fn look_at_clock(&self, device: &Live) {
        let now = Instant::now();
        match self.clock.borrow_mut().look(now) {
            Look::Recreate => device.recreate(now),
            Look::RightAgain => device.hurry(),
            Look::Fine => {}
        }
    }
}
