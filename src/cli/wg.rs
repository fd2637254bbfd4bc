//! `linkspan-wg`: an interface that `wg` configures. Goes to the background once `wg` can reach it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, Parser};

use super::{Exit, names, out};
use crate::control::log;
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
#[command(after_help = "Environment, after the options: LOG_LEVEL or WG_LOG_LEVEL, WG_LOG_FILE, WG_THREADS; \
                        WG_PROCESS_FOREGROUND=1 is --foreground.")]
struct Args {
    /// The interface to create
    #[arg(value_parser = names::interface)]
    interface: String,
    /// Stay in the foreground
    #[arg(short, long)]
    foreground: bool,
    /// Workers; 0 = one a core [default: $WG_THREADS, or 0]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// How much to log: silent, error, info, verbose, or a filter as in $RUST_LOG [default: $LOG_LEVEL,
    /// $WG_LOG_LEVEL, or info]
    #[arg(short = 'v', long, value_name = "LEVEL")]
    verbosity: Option<String>,
    /// In the background, where to log; what is there stays [default: $WG_LOG_FILE, or the standard error]
    #[arg(short, long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// boringtun-cli's; privileges are always dropped
    #[arg(long, hide = true)]
    disable_drop_privileges: bool,
    #[arg(long, hide = true)]
    disable_connected_udp: bool,
    #[arg(long, hide = true, value_name = "FD", allow_hyphen_values = true)]
    uapi_fd: Option<String>,
    #[arg(long, hide = true, value_name = "FD", allow_hyphen_values = true)]
    tun_fd: Option<String>,
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
    let settings = Settings::of(args, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))?;
    if !settings.foreground && !settings.in_background {
        return start_in_background(settings.log_file.is_some());
    }
    // While the file's name means what it meant to the caller, and its rights are still here.
    let output = settings.output()?;
    if settings.in_background {
        process::detach()?;
    }
    let ready = || if settings.in_background { tell_parent(output.as_ref()) } else { Ok(()) };
    wg::run(&WgOptions { name: settings.interface, workers: settings.workers, log: settings.level }, ready)?;
    Ok(Exit::Fine.into())
}

/// What the arguments and the environment come to.
#[derive(Debug)]
struct Settings {
    interface: String,
    foreground: bool,
    in_background: bool,
    workers: usize,
    level: Option<String>,
    log_file: Option<PathBuf>,
}

impl Settings {
    fn of(args: Args, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        for (name, option, value) in
            [("WG_UAPI_FD", "--uapi-fd", &args.uapi_fd), ("WG_TUN_FD", "--tun-fd", &args.tun_fd)]
        {
            let value = value.clone().or_else(|| variable(name));
            // Theirs for none.
            if value.is_some_and(|value| value != "-1") {
                bail!("{option} and ${name} are not taken: linkspan-wg opens its interface and its socket itself");
            }
        }
        let workers = match (args.disable_multi_queue, args.threads, variable("WG_THREADS")) {
            (true, ..) => 1,
            (false, Some(threads), _) => threads,
            (false, None, Some(text)) => text.parse().context("$WG_THREADS is no number of threads")?,
            (false, None, None) => 0,
        };
        // A word of another program, $LOG_LEVEL is anybody's, does not stop the interface.
        let told = ["LOG_LEVEL", "WG_LOG_LEVEL"].iter().filter_map(|name| variable(name));
        let told = told.map(|word| level_of(&word)).find(|level| log::check(level).is_ok());
        Ok(Self {
            interface: args.interface,
            foreground: args.foreground || variable("WG_PROCESS_FOREGROUND").is_some_and(|value| value == "1"),
            in_background: args.in_background,
            workers,
            level: args.verbosity.as_deref().filter(|level| !level.is_empty()).map(level_of).or(told),
            log_file: args.log.or_else(|| variable("WG_LOG_FILE").map(PathBuf::from)),
        })
    }

    /// Where the log goes once this process is on its own; none = the standard error that it was given. Who asked for
    /// no log holds no terminal or pipe open for it.
    fn output(&self) -> anyhow::Result<Option<File>> {
        let nobody_asked = self.level.is_none() && std::env::var_os("JOURNAL_STREAM").is_none();
        let path = match &self.log_file {
            Some(path) if self.in_background => path,
            None if nobody_asked => Path::new("/dev/null"),
            Some(_) | None => return Ok(None),
        };
        let file = File::options().append(true).create(true).open(path);
        file.map(Some).with_context(|| format!("cannot write the log to {}", path.display()))
    }
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
fn start_in_background(with_log_file: bool) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut command = Command::new(program);
    command.arg(BACKGROUND).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    if with_log_file {
        // Else a process that the journal listens to would log there.
        command.env_remove("JOURNAL_STREAM");
    }
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

/// Then lets go of the terminal.
fn tell_parent(log: Option<&File>) -> anyhow::Result<()> {
    let mut output = std::io::stdout();
    output.write_all(b"\n").and_then(|()| output.flush()).context("nobody waits for this process")?;
    process::leave_output(log).context("cannot let go of the terminal")
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

    fn settings(arguments: &str, environment: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let args = Args::try_parse_from(["linkspan-wg"].into_iter().chain(arguments.split_whitespace()))?;
        let value =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        Settings::of(args, value)
    }

    #[test]
    fn no_flag_of_boringtun_cli_takes_the_name_of_the_interface_for_its_value() {
        for flag in ["--disable-drop-privileges", "--disable-connected-udp", "--disable-multi-queue", "-f"] {
            assert_eq!(settings(&format!("{flag} wg0"), &[]).unwrap().interface, "wg0", "{flag}");
        }
        let all = settings("--threads 4 --verbosity trace --log /tmp/a --uapi-fd -1 --tun-fd=-1 wg0", &[]).unwrap();
        assert_eq!((all.workers, all.level.as_deref(), all.log_file), (4, Some("trace"), Some("/tmp/a".into())));
        assert_eq!(settings("-l /tmp/b wg0", &[]).unwrap().log_file, Some("/tmp/b".into()));
    }

    #[test]
    fn an_interface_or_a_socket_made_by_others_is_refused() {
        for (arguments, variable) in [("--uapi-fd 3 wg0", "X"), ("--tun-fd 4 wg0", "X"), ("wg0", "WG_TUN_FD")] {
            let error = settings(arguments, &[(variable, "5")]).unwrap_err().to_string();
            assert!(error.contains("opens its interface and its socket itself"), "{error}");
        }
    }

    #[test]
    fn what_the_options_do_not_say_the_environment_does() {
        let all = [("WG_THREADS", "2"), ("WG_LOG_LEVEL", "debug"), ("WG_LOG_FILE", "/tmp/a"), ("WG_UAPI_FD", "-1")];
        let told = settings("wg0", &all).unwrap();
        assert_eq!((told.workers, told.level.as_deref(), told.log_file), (2, Some("debug"), Some("/tmp/a".into())));
        let told = settings("-t 3 -v error -l /tmp/b wg0", &all).unwrap();
        assert_eq!((told.workers, told.level.as_deref(), told.log_file), (3, Some("error"), Some("/tmp/b".into())));
        assert_eq!(settings("wg0", &[("LOG_LEVEL", "silent"), all[1]]).unwrap().level.as_deref(), Some("off"));
        assert_eq!(settings("wg0", &[("LOG_LEVEL", "NOTICE"), all[1]]).unwrap().level.as_deref(), Some("debug"));
        assert!(settings("wg0", &[("WG_THREADS", "many")]).is_err());
    }

    #[test]
    fn log_levels_are_those_of_wireguard_go() {
        assert_eq!(["silent", "verbose", "error"].map(level_of), ["off", "debug", "error"]);
    }
}
