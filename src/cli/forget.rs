//! `linkspan forget`: the routing that a daemon left goes, when none is to follow it.

use super::{Exit, names, out};
use crate::control::forget;

/// Remove the routes and rules that a crash, or a service that is stopped, has left for the next start
///
/// Among them the routes that close the far networks: from then on packets for them take whatever other route there is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 done, or left because the service starts again, 1 failed.")]
pub(super) struct Args {
    /// The interface
    #[arg(value_parser = names::interface)]
    name: String,
    /// Do nothing if this unit of systemd failed or is about to start again, as an ExecStopPost= wants it
    #[arg(long, value_name = "UNIT")]
    unless_restarting: Option<String>,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    if let Some(unit) = &args.unless_restarting {
        let result = std::env::var("SERVICE_RESULT").ok();
        if forget::starts_again(unit, result.as_deref())? {
            out::line(format_args!("{unit} failed or starts again: its routes stay, and the far networks closed"))?;
            return Ok(Exit::Fine);
        }
    }
    for step in forget::forget(&args.name, &names::socket(&args.name))? {
        out::line(step)?;
    }
    Ok(Exit::Fine)
}
