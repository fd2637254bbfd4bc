//! Network namespaces: enter one by its path, or start a new, empty one.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

/// Moves the calling thread into the network namespace at `path`, as `/run/netns/NAME` or `/proc/PID/ns/net`.
///
/// Only this thread moves, and the threads and programs it starts afterwards.
///
/// # Errors
///
/// When `path` is not there or is no network namespace, or without CAP_SYS_ADMIN.
pub fn enter(path: &Path) -> io::Result<()> {
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

/// Whether `namespace` is the network namespace of the calling thread.
///
/// # Errors
///
/// When /proc cannot be read.
pub fn is_here(namespace: &File) -> io::Result<bool> {
    let (one, other) = (namespace.metadata()?, std::fs::metadata("/proc/thread-self/ns/net")?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Moves the calling thread into a new network namespace, which holds a loopback interface that is down.
///
/// The namespace goes away with the last thread and descriptor that uses it.
///
/// # Errors
///
/// Without CAP_SYS_ADMIN.
pub fn unshare_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::process::Command;

    /// Runs `ip` with `arguments`, in the namespace of the calling thread.
    pub(crate) fn ip(arguments: &str) {
        let done = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
        assert!(done.success(), "ip {arguments}: {done}");
    }

    /// Runs `test` in a thread with a network namespace of its own, loopback up. Without root the test is skipped.
    pub(crate) fn in_own_network(test: impl FnOnce() + Send + 'static) {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("LINKSPAN_REQUIRE_NETWORK").is_none(), "this test needs root");
            eprintln!("SKIPPED: needs root");
            return;
        }
        let thread = std::thread::spawn(|| {
            unshare_network().unwrap();
            ip("link set lo up");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn interfaces() -> Vec<String> {
        nix::net::if_::if_nameindex().unwrap().iter().map(|i| i.name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_new_namespace_has_loopback_only() {
        in_own_network(|| assert_eq!(interfaces(), ["lo"]));
    }

    #[test]
    fn a_thread_can_go_back_by_path() {
        in_own_network(|| {
            ip("link add ls-here type veth peer name ls-there");
            let home = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
            let kept = File::open(&home).unwrap();
            unshare_network().unwrap();
            assert_eq!(interfaces(), ["lo"]);
            enter(Path::new(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept)))).unwrap();
            assert!(interfaces().contains(&"ls-here".to_owned()));
        });
    }

    #[test]
    fn a_path_that_is_no_namespace_is_an_error() {
        assert!(enter(Path::new("/nonexistent/netns")).is_err());
    }
}
