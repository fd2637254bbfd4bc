//! `linkspan log-level`: what a running daemon logs, shown or changed.

use std::path::{Path, PathBuf};

use super::{Exit, names, out};
use crate::control::{log, status_client};

/// Show or change what running daemons log
///
/// Without NAME, of all that run on this machine; without LEVEL, shows it. It lasts until the daemon ends: for good, give
/// `run` its --log, or set LINKSPAN_LOG. Needs to be root, or in the group of the socket.
#[derive(Debug, clap::Args)]
#[command(override_usage = "linkspan log-level [OPTIONS] [NAME] [LEVEL]")]
pub(super) struct Args {
    /// The interface
    #[arg(value_name = "NAME")]
    first: Option<String>,
    /// error, warn, info, debug or trace
    #[arg(value_name = "LEVEL")]
    second: Option<String>,
    /// The status socket of the daemon, where it is not /run/linkspan/NAME.sock
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Whose level, and which; none = shown.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    name: Option<String>,
    level: Option<String>,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    let request = match args.request() {
        Ok(request) => request,
        Err(wrong) => {
            out::error(format_args!("linkspan: {wrong}"));
            return Ok(Exit::Wrong);
        }
    };
    let sockets = names::sockets(args.socket.as_deref(), request.name.as_deref());
    if sockets.is_empty() {
        out::error(format_args!("linkspan: nothing runs here: there is no socket in {}", names::RUN));
        return Ok(Exit::Failed);
    }
    let mut exit = Exit::Fine;
    for socket in &sockets {
        match ask(socket, request.level.as_deref()) {
            Ok(level) => out::line(format_args!("{}: {level}", names::of_socket(socket)))?,
            Err(error) => {
                exit = Exit::Failed;
                out::error(format_args!("linkspan: {error:#}"));
            }
        }
    }
    Ok(exit)
}

impl Args {
    /// One word alone is a level if it can be one, or if the socket says whose.
    fn request(&self) -> Result<Request, String> {
        let (name, level) = match (&self.first, &self.second) {
            (Some(word), None) if self.socket.is_some() || log::check(word).is_ok() => (None, Some(word)),
            (name, level) => (name.as_ref(), level.as_ref()),
        };
        if name.is_some() && self.socket.is_some() {
            return Err("give NAME or --socket, not both".to_owned());
        }
        if let Some(level) = level {
            log::check(level).map_err(|error| error.to_string())?;
        }
        let name = name.map(|name| names::interface(name)).transpose()?;
        Ok(Request { name, level: level.cloned() })
    }
}

fn ask(socket: &Path, level: Option<&str>) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match level {
            Some(level) => status_client::set_log_level(socket, level).await,
            None => status_client::log_level(socket).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str], socket: Option<&str>) -> Result<Request, String> {
        let mut words = words.iter().map(|word| (*word).to_owned());
        Args { first: words.next(), second: words.next(), socket: socket.map(PathBuf::from) }.request()
    }

    #[test]
    fn a_word_alone_is_a_level_if_it_can_be_one_and_else_a_name() {
        let expected = |name: Option<&str>, level: Option<&str>| {
            Ok(Request { name: name.map(str::to_owned), level: level.map(str::to_owned) })
        };
        assert_eq!(request(&[], None), expected(None, None));
        assert_eq!(request(&["debug"], None), expected(None, Some("debug")));
        assert_eq!(request(&["wan0"], None), expected(Some("wan0"), None));
        assert_eq!(request(&["wan0", "debug"], None), expected(Some("wan0"), Some("debug")));
        assert_eq!(request(&["debug", "debug"], None), expected(Some("debug"), Some("debug")));
        assert_eq!(request(&["info,linkspan=trace"], Some("s")), expected(None, Some("info,linkspan=trace")));
    }

    #[test]
    fn nonsense_is_refused_before_anybody_is_asked() {
        assert!(request(&["wan0", "loud"], None).unwrap_err().contains("not a log level"));
        assert!(request(&["wan0", "debug"], Some("s")).unwrap_err().contains("not both"));
        assert!(request(&["loud"], Some("s")).unwrap_err().contains("not a log level"));
        assert!(request(&["a/b"], None).is_err());
    }
}
