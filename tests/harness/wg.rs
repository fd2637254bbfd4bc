//! `linkspan-wg` in a gateway, configured by Debian's `wg`. Its socket is in the one folder of the whole machine, so
//! every interface has a name of its own.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use linkspan::tunnel::key::{PrivateKey, PublicKey};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::write_secret;
use super::host::{Finished, Host, finish};
use super::net::Net;
use super::{eventually, seconds};

/// The program under test.
pub const LINKSPAN_WG: &str = env!("CARGO_BIN_EXE_linkspan-wg");

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A name that nobody else has.
pub fn unique_name() -> String {
    format!("lw{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Where `wg` finds the interface.
pub fn socket_of(name: &str) -> PathBuf {
    PathBuf::from(format!("/var/run/wireguard/{name}.sock"))
}

/// Runs `wg` on this machine: it speaks to sockets, wherever the interface is.
pub fn wg(arguments: &[&str]) -> Finished {
    let mut command = Command::new("wg");
    command.args(arguments);
    finish(command, seconds(20))
}

/// The same; it must succeed. Gives what it says.
pub fn wg_ok(arguments: &[&str]) -> String {
    let finished = wg(arguments);
    assert!(finished.status.success(), "wg {arguments:?}: {finished:?}");
    finished.stdout
}

/// Says a request on `stream`, with a pause after each piece; what comes back until the next empty line.
pub fn converse(stream: &mut UnixStream, pieces: &[&str]) -> String {
    for piece in pieces {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(if pieces.len() > 1 { 20 } else { 0 }));
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    String::from_utf8(answer).unwrap()
}

/// An interface with its process in the foreground. Killed on drop.
pub struct WgInterface<'n> {
    pub name: String,
    pub key: PrivateKey,
    net: &'n Net,
    child: Child,
    log: PathBuf,
}

impl Net {
    /// `linkspan-wg` in `host`; what it keeps over a restart goes with the network.
    pub fn wg_command(&self, host: &Host, arguments: &[&str]) -> Command {
        let mut command = host.command(LINKSPAN_WG, arguments);
        command.env("STATE_DIRECTORY", self.directory("wg"));
        command
    }

    /// Starts an interface in `host` and waits until `wg` can reach it. It has no key as yet.
    pub fn wg_interface(&self, host: &Host) -> WgInterface<'_> {
        let name = unique_name();
        let log = self.directory("wg").join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = self.wg_command(host, &["--foreground", "--verbosity", "debug", &name]);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        let interface = WgInterface { name, key: PrivateKey::generate().unwrap(), net: self, child, log };
        eventually(seconds(15), "the socket accepts", || UnixStream::connect(socket_of(&interface.name)).ok());
        interface
    }
}

impl WgInterface<'_> {
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// `wg set NAME` and these words.
    pub fn set(&self, words: &str) {
        let words: Vec<&str> = words.split_whitespace().collect();
        wg_ok(&[&["set", &self.name], &words[..]].concat());
    }

    /// Takes its key into use.
    pub fn set_key(&self) {
        self.set(&format!("private-key {}", self.secret("key", &self.key.reveal()).display()));
    }

    /// A file with a secret, for `wg`.
    pub fn secret(&self, what: &str, text: &str) -> PathBuf {
        let path = self.net.directory("wg").join(format!("{}.{what}", self.name));
        write_secret(&path, &format!("{text}\n"), 0o600);
        path
    }

    /// `wg COMMAND NAME FILE` with this text in the file.
    pub fn conf(&self, command: &str, text: &str) {
        let path = self.secret("conf", text);
        wg_ok(&[command, &self.name, path.to_str().unwrap()]);
    }

    /// `wg show NAME WHAT`.
    pub fn show(&self, what: &str) -> String {
        wg_ok(&["show", &self.name, what]).trim().to_owned()
    }

    /// Bytes received and sent, of all peers.
    pub fn transfer(&self) -> (u64, u64) {
        let text = self.show("transfer");
        let numbers = text.lines().map(|line| {
            let mut words = line.split_whitespace().skip(1).map(|word| word.parse::<u64>().unwrap());
            (words.next().unwrap(), words.next().unwrap())
        });
        numbers.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Says `request` on the socket; what comes back until the next empty line.
    pub fn say(&self, request: &str) -> String {
        converse(&mut self.talk(), &[request])
    }

    /// A connection to its socket.
    pub fn talk(&self) -> UnixStream {
        let stream = UnixStream::connect(socket_of(&self.name)).unwrap();
        stream.set_read_timeout(Some(seconds(5))).unwrap();
        stream
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        eventually(within, "linkspan-wg ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for WgInterface<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(socket_of(&self.name));
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}---", self.name, self.log());
        }
    }
}
