//! `linkspan run`: the daemon itself, in the foreground, as the service manager starts it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use super::{Exit, names, out};
use crate::config;
use crate::control::daemon::{self, RunOptions};
use crate::control::log;

/// Run the tunnel of one interface in the foreground, until SIGTERM or Ctrl-C
///
/// Needs CAP_NET_ADMIN and /dev/net/tun; started as root, keeps nothing but CAP_NET_ADMIN once set up.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 stopped cleanly, 1 could not start or go on, 2 the configuration is wrong.")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["name", "config"])))]
pub(super) struct Args {
    /// The interface, configured in /etc/linkspan/NAME.toml
    #[arg(value_parser = names::interface)]
    name: Option<String>,
    /// Another configuration file; the interface has its name, without ".toml"
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to answer `linkspan status` [default: /run/linkspan/NAME.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where to keep what must survive a restart [default: $STATE_DIRECTORY, or /var/lib/linkspan]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// What to log: error, warn, info, debug or trace [default: $LINKSPAN_LOG, or info]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log: Option<String>,
    /// Leave interface and routes to the next start, as linkspan@.service does: the service manager must keep the queues
    /// of the interface (FileDescriptorStoreMax=), and run `linkspan forget` after a stop
    #[arg(long)]
    keep: bool,
    /// Stop when the process that started this one, of this number, ends
    #[arg(long, hide = true, value_name = "PID")]
    stop_with_parent: Option<i32>,
    /// Do without the socket of `wg`: nothing is made outside --socket and --state-dir
    #[arg(long, hide = true)]
    no_wg: bool,
}

/// Argument parser: what the log understands.
fn level(text: &str) -> Result<String, String> {
    log::check(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn execute(args: Args) -> anyhow::Result<Exit> {
    if let Some(parent) = args.stop_with_parent {
        set_pdeathsig(Signal::SIGTERM).context("cannot tie this process to its parent")?;
        if getppid().as_raw() != parent {
            bail!("the process that started this one has ended");
        }
    }
    let file = args.config.unwrap_or_else(|| names::config_file(args.name.as_deref().unwrap_or_default()));
    let config = match config::load(&file) {
        Ok(config) => config,
        Err(problems) => {
            out::error(&problems);
            return Ok(Exit::Wrong);
        }
    };
    let socket = args.socket.unwrap_or_else(|| names::socket(&config.interface.name));
    let Args { state_dir, keep, log, .. } = args;
    daemon::run(&config, &RunOptions { file, socket, wg: !args.no_wg, state_dir, keep, log })?;
    Ok(Exit::Fine)
}
