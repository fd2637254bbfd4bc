//! `linkspan status`: what running daemons say of themselves; the exit code says it to scripts.

mod graph;
mod screen;
mod table;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};

use super::{Exit, names, out};
use crate::control::status::{State, Status};
use crate::control::status_client;

pub(super) use table::render;

/// Show the state of running tunnels
///
/// Without NAME, of all that run on this machine. Needs to be root, or in the group of the socket.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 every tunnel is up, 1 some are (degraded), 2 none is, or the daemon gives no answer. \
                        Of several interfaces, the worst counts; with --watch, at the end."
)]
pub(super) struct Args {
    /// The interface
    #[arg(value_parser = names::interface, conflicts_with = "socket")]
    name: Option<String>,
    /// The status socket of the daemon, where it is not /run/linkspan/NAME.sock
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Write JSON: one object for NAME or --socket, else a list of them; with --watch, in one line each time
    #[arg(long)]
    json: bool,
    /// Show it again each second, or each so many, until Ctrl-C: in place on a terminal, with rates and their course
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    let runtime = runtime()?;
    if let Some(seconds) = args.watch {
        return runtime.block_on(watch::watch(args, std::time::Duration::from_secs(seconds)));
    }
    let look = runtime.block_on(args.look());
    look.errors.iter().for_each(out::error);
    out::bytes(args.text(&look.found)?.as_bytes())?;
    Ok(look.exit)
}

/// What was found at one moment.
struct Look {
    found: Vec<Status>,
    /// One line each.
    errors: Vec<String>,
    exit: Exit,
}

impl Args {
    /// Asks all that are meant.
    async fn look(&self) -> Look {
        let sockets = names::sockets(self.socket.as_deref(), self.name.as_deref());
        if sockets.is_empty() {
            let error = format!("linkspan: nothing runs here: there is no socket in {}", names::RUN);
            return Look { found: Vec::new(), errors: vec![error], exit: Exit::Wrong };
        }
        let mut look = Look { found: Vec::new(), errors: Vec::new(), exit: Exit::Fine };
        for answer in join_all(sockets.iter().map(|socket| status_client::fetch(socket))).await {
            look.take(answer);
        }
        look
    }

    fn is_for_one(&self) -> bool {
        self.name.is_some() || self.socket.is_some()
    }

    /// What is written to the standard output.
    fn text(&self, found: &[Status]) -> anyhow::Result<String> {
        if !self.json {
            return Ok(found.iter().map(render).collect::<Vec<_>>().join("\n"));
        }
        match found.first() {
            Some(status) if self.is_for_one() => self.json_of(status),
            None if self.is_for_one() => Ok(String::new()),
            _ => self.json_of(found),
        }
    }

    fn json_of<T: serde::Serialize + ?Sized>(&self, value: &T) -> anyhow::Result<String> {
        let write = if self.watch.is_some() { serde_json::to_string } else { serde_json::to_string_pretty };
        Ok(write(value)? + "\n")
    }
}

impl Look {
    fn take(&mut self, answer: anyhow::Result<Status>) {
        match answer {
            Ok(status) => {
                self.exit = self.exit.max(exit_of(status.state));
                self.found.push(status);
            }
            Err(error) => {
                self.exit = Exit::Wrong;
                self.errors.push(format!("linkspan: {error:#}"));
            }
        }
    }
}

/// What the daemon behind `socket` says of itself.
///
/// # Errors
/// There is none, it may not be asked, or its answer is no status.
pub(super) fn ask(socket: &Path) -> anyhow::Result<Status> {
    runtime()?.block_on(status_client::fetch(socket))
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start (is there a limit on open files?)")
}

const fn exit_of(state: State) -> Exit {
    match state {
        State::Up => Exit::Fine,
        State::Degraded => Exit::Failed,
        State::Down => Exit::Wrong,
    }
}
