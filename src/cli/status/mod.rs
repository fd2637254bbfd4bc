//! `linkspan status`: what running daemons say of themselves; the exit code says it to scripts.

mod table;

use std::path::{Path, PathBuf};

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
                        Of several interfaces, the worst counts."
)]
pub(super) struct Args {
    /// The interface
    #[arg(value_parser = names::interface, conflicts_with = "socket")]
    name: Option<String>,
    /// The status socket of the daemon, where it is not /run/linkspan/NAME.sock
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Write JSON: one object for NAME or --socket, else a list of them
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    let sockets = args.sockets();
    if sockets.is_empty() {
        out::error(format_args!("linkspan: nothing runs here: there is no socket in {}", names::RUN));
    }
    let mut exit = if sockets.is_empty() { Exit::Wrong } else { Exit::Fine };
    let mut found = Vec::new();
    for socket in &sockets {
        match ask(socket) {
            Ok(status) => {
                exit = exit.max(exit_of(status.state));
                found.push(status);
            }
            Err(error) => {
                exit = Exit::Wrong;
                out::error(format_args!("linkspan: {error:#}"));
            }
        }
    }
    if args.json {
        args.print_json(&found)?
    } else {
        print_tables(&found)?
    }
    Ok(exit)
}

impl Args {
    fn sockets(&self) -> Vec<PathBuf> {
        match (&self.socket, &self.name) {
            (Some(socket), _) => vec![socket.clone()],
            (None, Some(name)) => vec![names::socket(name)],
            (None, None) => names::files(Path::new(names::RUN), "sock"),
        }
    }

    fn is_for_one(&self) -> bool {
        self.name.is_some() || self.socket.is_some()
    }

    fn print_json(&self, found: &[Status]) -> anyhow::Result<()> {
        match found.first() {
            Some(status) if self.is_for_one() => out::line(serde_json::to_string_pretty(status)?),
            None if self.is_for_one() => Ok(()),
            _ => out::line(serde_json::to_string_pretty(found)?),
        }
    }
}

/// What the daemon behind `socket` says of itself.
///
/// # Errors
/// There is none, it may not be asked, or its answer is no status.
pub(super) fn ask(socket: &Path) -> anyhow::Result<Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(status_client::fetch(socket))
}

fn print_tables(found: &[Status]) -> anyhow::Result<()> {
    let tables: Vec<_> = found.iter().map(render).collect();
    out::bytes(tables.join("\n").as_bytes())
}

const fn exit_of(state: State) -> Exit {
    match state {
        State::Up => Exit::Fine,
        State::Degraded => Exit::Failed,
        State::Down => Exit::Wrong,
    }
}
