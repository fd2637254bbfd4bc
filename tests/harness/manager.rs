//! An imitation of the service manager for one service: hears what it notifies, keeps the descriptors that it stores,
//! and hands them to its next start (sd_pid_notify_with_fds(3), sd_listen_fds(3)).

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::daemon::{Daemon, LINKSPAN};
use super::{eventually, seconds};

/// SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;

pub struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    /// What is stored, with its name; two may have the same.
    store: Vec<(String, OwnedFd)>,
}

impl Manager {
    /// Listens in `folder`.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { path, socket, store: Vec::new() }
    }

    /// Starts `daemon` with all that is stored.
    pub fn start(&self, daemon: &mut Daemon<'_>) {
        let mut command = self.command(daemon);
        command.stdin(Stdio::null());
        daemon.start_by(command);
    }

    fn command(&self, daemon: &Daemon<'_>) -> Command {
        let run = daemon.run_arguments();
        let mut words = vec!["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\"", LINKSPAN];
        words.extend(run.iter().map(String::as_str));
        words.push("--keep");
        let mut command = daemon.host().command("sh", &words);
        let names: Vec<&str> = self.store.iter().map(|(name, _)| name.as_str()).collect();
        command.env("NOTIFY_SOCKET", &self.path);
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let fds: Vec<RawFd> = self.store.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        // SAFETY: only dup2, which is safe after a fork; the descriptors live in `self`, which outlives the start.
        unsafe { command.pre_exec(move || hand_over(&fds)) };
        command
    }

    /// Takes in all that has been said, until this word has.
    pub fn told(&mut self, word: &str) {
        eventually(seconds(20), word, || self.hear().into_iter().any(|line| line == word).then_some(()));
    }

    /// What is stored now, by name.
    pub fn stored(&mut self) -> Vec<String> {
        while !self.hear().is_empty() {}
        let mut names: Vec<String> = self.store.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Stores something of the test's own.
    pub fn keep(&mut self, name: &str, fd: OwnedFd) {
        self.store.push((name.to_owned(), fd));
    }

    /// The service is stopped for good.
    pub fn forget(&mut self) {
        while !self.hear().is_empty() {}
        self.store.clear();
    }

    /// The lines of the next message; none if there is none.
    fn hear(&mut self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let mut space = nix::cmsg_space!([RawFd; 64]);
        let mut pieces = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let Ok(message) = recvmsg::<()>(self.socket.as_raw_fd(), &mut pieces, Some(&mut space), flags) else {
            return Vec::new();
        };
        let mut came = Vec::new();
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just made them for this process, and nobody else knows them.
                came.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let length = message.bytes;
        let lines: Vec<String> = String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect();
        self.take(&lines, came);
        lines
    }

    fn take(&mut self, lines: &[String], came: Vec<OwnedFd>) {
        let says = |word: &str| lines.iter().any(|line| line == word);
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
        if says("FDSTORE=1") {
            self.store.extend(came.into_iter().map(|fd| (name.clone(), fd)));
        } else if says("FDSTOREREMOVE=1") {
            self.store.retain(|(other, _)| *other != name);
        }
    }
}

/// Makes them the descriptors from [`FIRST`] on, in order.
fn hand_over(fds: &[RawFd]) -> std::io::Result<()> {
    // First out of each other's way.
    let mut high = Vec::with_capacity(fds.len());
    for fd in fds {
        // SAFETY: an open descriptor and plain integers.
        high.push(unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 200) });
    }
    for (at, fd) in (FIRST..).zip(&high) {
        // SAFETY: plain integers; whatever was open at `at` belongs to this forked child alone.
        if unsafe { libc::dup2(*fd, at) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
