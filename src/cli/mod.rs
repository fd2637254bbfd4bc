//! The command: one file per subcommand, which prints, asks and exits. Nobody else writes to the terminal.
//!
//! A subcommand returns its [`Exit`] or an error; [`main`] prints the error in one line. Help texts, man pages
//! and completions all come from the definitions here.

mod check;
mod completions;
mod demo;
mod forget;
mod genkey;
mod genpsk;
mod import;
mod log_level;
mod man;
mod names;
mod out;
mod pubkey;
mod reload;
mod run;
mod status;
mod units;
mod wg;

use std::process::ExitCode;

pub use wg::wg;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Joins two sites over an untrusted network with userspace WireGuard.
///
/// One configuration file is one interface and one process: /etc/linkspan/NAME.toml. `linkspan demo` shows it
/// all working on this machine.
#[derive(Debug, Parser)]
#[command(name = "linkspan", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 the command line or a configuration file is wrong. \
                        `status` and `demo` have their own: see their --help.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Status(status::Args),
    LogLevel(log_level::Args),
    Reload(reload::Args),
    Forget(forget::Args),
    Genkey(genkey::Args),
    Pubkey(pubkey::Args),
    Genpsk(genpsk::Args),
    Import(import::Args),
    Demo(demo::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// How a subcommand ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    /// 0
    Fine = 0,
    /// 1: it failed; for `status`, degraded.
    Failed = 1,
    /// 2: it was asked for wrongly; for `status`, down.
    Wrong = 2,
    /// 130, as a shell says of a command that Ctrl-C ended.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The whole command: reads the arguments of the process, and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command.execute() {
        Ok(exit) => exit.into(),
        Err(error) => {
            out::error(format_args!("linkspan: {error:#}"));
            Exit::Failed.into()
        }
    }
}

impl Command {
    fn execute(self) -> anyhow::Result<Exit> {
        match self {
            Self::Run(args) => run::execute(args),
            Self::Check(args) => check::execute(&args),
            Self::Status(args) => status::execute(&args),
            Self::LogLevel(args) => log_level::execute(&args),
            Self::Reload(args) => reload::execute(&args),
            Self::Forget(args) => forget::execute(&args),
            Self::Genkey(args) => genkey::execute(&args),
            Self::Pubkey(args) => pubkey::execute(&args),
            Self::Genpsk(args) => genpsk::execute(&args),
            Self::Import(args) => import::execute(&args),
            Self::Demo(args) => demo::execute(&args),
            Self::Completions(args) => completions::execute(&args),
            Self::Man(args) => man::execute(&args),
        }
    }
}

/// The definitions, for what is generated from them.
fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        definition().debug_assert();
    }

    #[test]
    fn every_subcommand_says_what_it_does() {
        for command in definition().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn run_takes_a_name_or_a_file_but_not_both_and_not_neither() {
        for (arguments, fine) in [
            (&["linkspan", "run", "wan0"][..], true),
            (&["linkspan", "run", "--config", "a.toml"][..], true),
            (&["linkspan", "run", "wan0", "--config", "a.toml"][..], false),
            (&["linkspan", "run"][..], false),
        ] {
            assert_eq!(Cli::try_parse_from(arguments).is_ok(), fine, "{arguments:?}");
        }
    }
}
