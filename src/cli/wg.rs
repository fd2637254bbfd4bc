//! `linkspan-wg`: an interface that `wg` configures. Goes to the background once `wg` can reach it.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser};

use super::{Exit, names, out};
use crate::control::wg::{self, WgOptions};
use crate::sys::process;

/// What tells a started copy of the program that it is to be the one in the background.
const BACKGROUND: &str = "--in-background";

/// Creates a WireGuard interface in user space, to be configured by wg(8)
///
/// Takes the place of wireguard-go and boringtun-cli: `WG_QUICK_USERSPACE_IMPLEMENTATION=linkspan-wg wg-quick up wg0`.
/// Ends when the interface is deleted or its socket, /var/run/wireguard/INTERFACE.sock, is removed.
#[derive(Debug, Parser)]
#[command(name = "linkspan-wg", version, max_term_width = 100)]
#[command(
    after_help = "Environment: LOG_LEVEL (silent, error, info, verbose); WG_PROCESS_FOREGROUND=1 is --foreground."
)]
struct Args {
    /// The interface to create
    #[arg(value_parser = names::interface)]
    interface: String,
    /// Stay in the foreground
    #[arg(short, long)]
    foreground: bool,
    /// Workers; 0 = one a core
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// How much to log: silent, error, info, verbose, or a filter as in $RUST_LOG [default: $LOG_LEVEL, or info]
    #[arg(short = 'v', long, value_name = "LEVEL")]
    verbosity: Option<String>,
    /// boringtun-cli's; privileges are always dropped
    #[arg(long, hide = true, num_args = 0..=1)]
    disable_drop_privileges: Option<Option<String>>,
    #[arg(long, hide = true)]
    disable_connected_udp: bool,
    #[arg(long, hide = true)]
    disable_multi_queue: bool,
    #[arg(long, hide = true)]
    in_background: bool,
}

/// The whole command.
#[must_use]
pub fn wg() -> ExitCode {
    match execute(Args::parse()) {
        Ok(exit) => exit,
        Err(error) => {
            out::error(format_args!("linkspan-wg: {error:#}"));
            Exit::Failed.into()
        }
    }
}

/// The definitions, for what is generated from them.
pub(super) fn definition() -> clap::Command {
    Args::command()
}

fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let foreground = args.foreground || std::env::var_os("WG_PROCESS_FOREGROUND").is_some_and(|value| value == "1");
    if !foreground && !args.in_background {
        return start_in_background();
    }
    let level = args.verbosity.or_else(|| std::env::var("LOG_LEVEL").ok()).filter(|level| !level.is_empty());
    let silent = level.is_none() && std::env::var_os("JOURNAL_STREAM").is_none();
    let log = level.as_deref().map(level_of);
    let workers = if args.disable_multi_queue { 1 } else { args.threads };
    if args.in_background {
        process::detach()?;
    }
    let ready = || if args.in_background { tell_parent(silent) } else { Ok(()) };
    wg::run(&WgOptions { name: args.interface, workers, log }, ready)?;
    Ok(Exit::Fine.into())
}

/// wireguard-go's words are ours, too.
fn level_of(word: &str) -> String {
    match word {
        "silent" => "off",
        "verbose" => "debug",
        other => other,
    }
    .to_owned()
}

/// Starts this program again and waits until that one is ready, or has failed and said why.
fn start_in_background() -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut command = Command::new(program);
    command.arg(BACKGROUND).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start in the background")?;
    let mut word = [0];
    let ready = child.stdout.take().is_some_and(|mut pipe| pipe.read_exact(&mut word).is_ok());
    if ready {
        return Ok(Exit::Fine.into());
    }
    let status = child.wait().context("lost the process in the background")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(Exit::Failed as u8);
    Ok(ExitCode::from(code.max(Exit::Failed as u8)))
}

/// `silent`: nobody asked for a log, so nobody's terminal or pipe is held open for it.
fn tell_parent(silent: bool) -> anyhow::Result<()> {
    let mut output = std::io::stdout();
    output.write_all(b"\n").and_then(|()| output.flush()).context("nobody waits for this process")?;
    process::leave_output(silent).context("cannot let go of the terminal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound_and_take_the_flags_of_others() {
        definition().debug_assert();
        for arguments in [
            &["linkspan-wg", "wg0"][..],
            &["linkspan-wg", "-f", "wg0"],
            &["linkspan-wg", "wg0", "--foreground"],
            &["linkspan-wg", "-t", "1", "--disable-drop-privileges", "-v", "debug", "wg0"],
            &["linkspan-wg", BACKGROUND, "wg0"],
        ] {
            assert!(Args::try_parse_from(arguments).is_ok_and(|args| args.interface == "wg0"), "{arguments:?}");
        }
        assert!(Args::try_parse_from(["linkspan-wg"]).is_err());
        assert!(Args::try_parse_from(["linkspan-wg", "a name"]).is_err());
    }

    #[test]
    fn log_levels_are_those_of_wireguard_go() {
        assert_eq!(["silent", "verbose", "error"].map(level_of), ["off", "debug", "error"]);
    }
}
