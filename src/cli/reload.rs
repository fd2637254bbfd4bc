//! `linkspan reload`: a running daemon reads its file again, and says what it did.

use std::path::PathBuf;

use super::{Exit, names, out};
use crate::control::reload::{Answer, Outcome, Wish};
use crate::control::status_client;

/// Make running tunnels follow their configuration files, whole or not at all
///
/// Without NAME, all that run on this machine. Sessions whose keys stay go on without a lost packet. A file that is
/// wrong, or that asks for what only a restart can change, changes nothing. `linkspan check --diff` shows beforehand
/// what would change.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the file is in force, 1 refused or failed, 2 the file is wrong. Of several, the \
                        worst counts."
)]
pub(super) struct Args {
    /// The interface
    #[arg(value_parser = names::interface, conflicts_with = "socket")]
    name: Option<String>,
    /// The status socket of the daemon, where it is not /run/linkspan/NAME.sock
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    wish(Wish::Reload, &names::sockets(args.socket.as_deref(), args.name.as_deref()))
}

/// Asks the daemon behind each of `sockets`, and shows what it answers.
pub(super) fn wish(wish: Wish, sockets: &[PathBuf]) -> anyhow::Result<Exit> {
    if sockets.is_empty() {
        out::error(format_args!("linkspan: nothing runs here: there is no socket in {}", names::RUN));
        return Ok(Exit::Failed);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut exit = Exit::Fine;
    for socket in sockets {
        let name = names::of_socket(socket);
        exit = exit.max(match runtime.block_on(status_client::reload(socket, wish)) {
            Ok(answer) => show(&name, &answer)?,
            Err(error) => {
                out::error(format_args!("linkspan: {error:#}"));
                Exit::Failed
            }
        });
    }
    Ok(exit)
}

fn show(name: &str, answer: &Answer) -> anyhow::Result<Exit> {
    for change in &answer.changes {
        out::line(change)?;
    }
    for note in &answer.notes {
        out::error(format_args!("{name}: {note}"));
    }
    match (answer.outcome, &answer.why) {
        // As `check` says it.
        (Outcome::WrongFile, Some(why)) => out::error(why),
        (_, Some(why)) => out::error(format_args!("{name}: {why}")),
        (Outcome::Applied, None) => out::line(format_args!("{name}: reloaded"))?,
        (Outcome::Unchanged, None) => out::line(format_args!("{name}: nothing has changed"))?,
        (_, None) => {}
    }
    Ok(match answer.outcome {
        Outcome::Applied | Outcome::Unchanged | Outcome::Different => Exit::Fine,
        Outcome::WrongFile => Exit::Wrong,
        Outcome::NeedsRestart | Outcome::Failed => Exit::Failed,
    })
}
