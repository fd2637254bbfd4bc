//! `linkspan demo`: two sites on this one machine, joined by two real daemons; what a newcomer runs first.
//!
//! Five machines are five network namespaces without a name. All of it goes away with the process, and before
//! that in order: the daemons, the namespaces, the folder with their files.

mod daemon;
mod folder;
mod place;
mod stop;
mod topology;
mod traffic;

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use nix::unistd::geteuid;

use self::daemon::{Daemon, Files};
use self::folder::Folder;
use self::place::Place;
use self::stop::Stop;
use self::topology::{A, B, Topology};
use super::{Exit, out, status, units};
use crate::control::status::State;

const UP_PATIENCE: Duration = Duration::from_secs(8);
const STREAM: Duration = Duration::from_secs(3);
const PINGS: usize = 100;

/// Show a tunnel between two sites, all on this machine
///
/// Builds two sites in network namespaces, runs two real daemons, pings and measures through their tunnel, and
/// removes all of it again. Touches none of this machine's own interfaces, addresses and routes. Needs root, and
/// takes about ten seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 it worked, 1 a step failed, 2 not root, 130 interrupted.")]
pub(super) struct Args {}

pub(super) fn execute(_args: &Args) -> anyhow::Result<Exit> {
    if !geteuid().is_root() {
        let program = std::env::current_exe().map_or_else(|_| "linkspan".into(), |path| path.display().to_string());
        out::error(format_args!(
            "linkspan: the demo makes network namespaces, so it needs root: sudo {program} demo\n\
             It changes nothing of this machine's own network, and removes what it made."
        ));
        return Ok(Exit::Wrong);
    }
    let stop = Stop::watch()?;
    let start = Instant::now();
    out::line(topology::PICTURE)?;
    let exit = show(&stop)?;
    out::line(format_args!("Everything is removed again, after {:.1} s in all.", start.elapsed().as_secs_f64()))?;
    Ok(exit)
}

/// Builds, shows and removes everything.
fn show(stop: &Stop) -> anyhow::Result<Exit> {
    let mut demo = Demo::build()?;
    let shown = demo.steps(stop);
    demo.stop_daemons();
    match shown {
        _ if stop.requested() => {
            out::error("linkspan: interrupted");
            Ok(Exit::Interrupted)
        }
        Ok(()) => Ok(Exit::Fine),
        Err(error) => {
            out::error(format_args!("linkspan: {error:#}"));
            demo.print_logs();
            Ok(Exit::Failed)
        }
    }
}

/// Everything there is; dropped in this order.
struct Demo {
    daemons: [Daemon; 2],
    topology: Topology,
    started: Instant,
    _folder: Folder,
}

impl Demo {
    fn build() -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let topology = Topology::build()?;
        let (a, b) = (Files::new(folder.path(), A)?, Files::new(folder.path(), B)?);
        a.configure(A, B, &b, topology.ipv6)?;
        b.configure(B, A, &a, topology.ipv6)?;
        let started = Instant::now();
        let daemons = [Daemon::start(&topology.a.gateway, a)?, Daemon::start(&topology.b.gateway, b)?];
        Ok(Self { daemons, topology, started, _folder: folder })
    }

    fn steps(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let up = self.wait_until_up(stop)?;
        row("tunnel up at both ends after", &units::milliseconds(up))?;
        let ipv6 = self.topology.ipv6;
        let [v4, v6] = B.host();
        self.ping(v4, stop)?;
        if ipv6 {
            self.ping(v6, stop)?;
        }
        let (a, b) = (&self.topology.a.host, &self.topology.b.host);
        measure("TCP, one stream, A to B, IPv4", a, b, v4, stop)?;
        let [v4, v6] = A.host();
        if ipv6 {
            measure("TCP, one stream, B to A, IPv6", b, a, v6, stop)?;
        } else {
            measure("TCP, one stream, B to A, IPv4", b, a, v4, stop)?;
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        out::line(format_args!("    (all five machines, senders and receivers share {cores} CPU cores)\n"))?;
        self.print_status()
    }

    /// Waits until both daemons say that their tunnel is up; how long that took since their start.
    fn wait_until_up(&mut self, stop: &Stop) -> anyhow::Result<Duration> {
        while !self.daemons.iter().all(is_up) {
            for daemon in &mut self.daemons {
                if let Some(status) = daemon.ended() {
                    bail!("the daemon of {} ended by itself: {status}", daemon.name());
                }
            }
            ensure!(!stop.requested(), "interrupted");
            ensure!(self.started.elapsed() < UP_PATIENCE, "the tunnel is not up after {} s", UP_PATIENCE.as_secs());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(self.started.elapsed())
    }

    fn ping(&self, to: IpAddr, stop: &Stop) -> anyhow::Result<()> {
        let noted = stop.clone();
        let pings = self.topology.a.host.run(move || traffic::ping(to, PINGS, &noted))?;
        let Some(median) = pings.median() else { bail!("no ping from LAN host A to {to} was answered") };
        let answered = format!("{} of {} answered", pings.answered(), pings.sent);
        row(
            &format!("ping, A to B, {}", family(to)),
            &format!("{} round trip, {answered}", units::milliseconds(median)),
        )
    }

    fn print_status(&self) -> anyhow::Result<()> {
        for daemon in &self.daemons {
            if let Some(status) = daemon.status() {
                out::line(status::render(&status))?;
            }
        }
        Ok(())
    }

    fn print_logs(&self) {
        for daemon in &self.daemons {
            out::error(format_args!("\nThe end of the log of {}:\n{}", daemon.name(), daemon.log_tail()));
        }
    }

    /// Both at once, so that dropping one does not wait for the other.
    fn stop_daemons(&mut self) {
        self.daemons.iter_mut().for_each(Daemon::ask_to_stop);
    }
}

fn is_up(daemon: &Daemon) -> bool {
    daemon.status().is_some_and(|status| status.state == State::Up)
}

fn measure(what: &str, from: &Place, to: &Place, at: IpAddr, stop: &Stop) -> anyhow::Result<()> {
    let carried = traffic::stream(from, to, at, STREAM, stop)?;
    ensure!(!stop.requested(), "interrupted");
    row(what, &units::rate(carried.bytes, carried.time))
}

const fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn row(what: &str, result: &str) -> anyhow::Result<()> {
    out::line(format_args!("    {what:32} {result}"))
}
