//! `linkspan check`: all that is wrong with configuration files, at once.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Exit, names, out, reload};
use crate::config;
use crate::control::reload::Wish;

/// Check configuration files, and show everything that is wrong at once
///
/// Reads the files only: no key, no network, no privilege is needed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all are right, 2 something is wrong (FILE:LINE:COLUMN: what, and what would be right). \
                  With --diff: 1 if the daemon would refuse the reload, or none answers."
)]
pub(super) struct Args {
    /// Interfaces (NAME, for /etc/linkspan/NAME.toml) or files [default: all of /etc/linkspan]
    #[arg(value_name = "NAME|FILE")]
    what: Vec<String>,
    /// A file, as for `run`; may be given several times
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Ask the running daemons of these interfaces what a reload would change: + added, - removed, ~ other than now
    #[arg(long, conflicts_with = "config")]
    diff: bool,
    /// With --diff: the status socket of a daemon, where it is not /run/linkspan/NAME.sock
    #[arg(long, value_name = "PATH", requires = "diff", conflicts_with = "what")]
    socket: Option<PathBuf>,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    if args.diff {
        return reload::wish(Wish::Compare, &sockets(args)?);
    }
    let files = files(args);
    if files.is_empty() {
        out::error(none_in(Path::new(names::ETC)));
        return Ok(Exit::Wrong);
    }
    let mut exit = Exit::Fine;
    for file in &files {
        match config::load(file) {
            Ok(_) => out::line(format_args!("{}: ok", file.display()))?,
            Err(problems) => {
                out::error(&problems);
                exit = Exit::Wrong;
            }
        }
    }
    Ok(exit)
}

/// Why there is nothing to check, and the remedy.
fn none_in(folder: &Path) -> String {
    let shown = folder.display();
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            format!("linkspan: {shown} may not be read: be root, or in the group linkspan")
        }
        _ => format!(
            "linkspan: there is no configuration in {shown} (write {shown}/NAME.toml; `linkspan check NAME` shows the \
             smallest)"
        ),
    }
}

fn files(args: &Args) -> Vec<PathBuf> {
    if args.what.is_empty() && args.config.is_empty() {
        return names::files(Path::new(names::ETC), "toml");
    }
    args.what.iter().map(|word| file(word)).chain(args.config.iter().cloned()).collect()
}

/// Of the daemons that run, or are named: a file alone says nothing about what runs.
fn sockets(args: &Args) -> anyhow::Result<Vec<PathBuf>> {
    match &args.socket {
        Some(socket) => Ok(vec![socket.clone()]),
        None if args.what.is_empty() => Ok(names::files(Path::new(names::RUN), "sock")),
        None => {
            let name = |word: &String| names::interface(word).map(|name| names::socket(&name));
            args.what.iter().map(name).collect::<Result<_, _>>().map_err(anyhow::Error::msg)
        }
    }
}

/// What can be the name of an interface is one; anything else ("./wan0", "wan0.toml") is a file.
fn file(word: &str) -> PathBuf {
    match names::interface(word) {
        Ok(name) => names::config_file(&name),
        Err(_) => PathBuf::from(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_given_as_for_run() {
        let args = Args { what: vec!["wan0".into()], config: vec!["lab".into()], diff: false, socket: None };
        assert_eq!(files(&args), [Path::new("/etc/linkspan/wan0.toml"), Path::new("lab")]);
    }

    #[test]
    fn a_bare_name_is_an_interface_and_anything_else_a_file() {
        assert_eq!(file("wan0"), Path::new("/etc/linkspan/wan0.toml"));
        assert_eq!(file("wan0.toml"), Path::new("wan0.toml"));
        assert_eq!(file("./wan0"), Path::new("./wan0"));
    }
}
