//! What a start needs of this machine, looked at before anything is opened.

use std::thread;

use anyhow::bail;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More workers than this help nobody.
const WORKERS_MAX: usize = 64;
/// Descriptors of a worker: its queue, its eventfd, a socket of each family and two more while the port changes.
const FILES_OF_WORKER: usize = 6;
/// All others, with room for those who ask for the status.
const FILES: usize = 64;

/// How many workers to start; 0 asks for one a core.
pub(super) fn workers(asked: usize) -> usize {
    match asked {
        0 => thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
        asked => asked.min(WORKERS_MAX),
    }
}

/// Whether so many workers may open all that they need.
///
/// # Errors
/// With the remedy, when the limit is lower and cannot be raised. Not every step would say so: tokio's first panics.
pub(super) fn check_open_files(workers: usize) -> anyhow::Result<()> {
    let needed = (FILES + FILES_OF_WORKER * workers) as u64;
    let (limit, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if limit < needed && needed <= most {
        // A shell's limit is often far below what it may be.
        setrlimit(Resource::RLIMIT_NOFILE, needed, most)?;
    } else if limit < needed {
        bail!(
            "the limit of {limit} open files is too low for {workers} workers, {needed} are needed: raise it with \
             ulimit -n, or LimitNOFILE= of a service"
        );
    }
    Ok(())
}
