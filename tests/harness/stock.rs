//! Userspace WireGuards in a gateway, other people's and `linkspan-wg`, set up by `wg` as an administrator does it.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::daemon::write_secret;
use super::host::{Finished, Host};
use super::net::{Net, PORT, Site};
use super::wg::LINKSPAN_WG;
use super::{eventually, seconds};

/// Ours, or one of the programs that `tests/interop/install` provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    LinkspanWg,
    WireguardGo,
    Boringtun,
    Gotatun,
}

/// What `wg` is told of the far end beside its key and networks.
#[derive(Default)]
pub struct Peering<'k> {
    pub endpoint: Option<std::net::SocketAddr>,
    pub preshared_key: Option<&'k str>,
    /// Seconds.
    pub keepalive: Option<u16>,
}

/// A running one. Ended on drop.
pub struct Stock<'n> {
    host: &'n Host,
    /// Its interface.
    pub name: String,
    directory: PathBuf,
    child: Child,
}

/// Where what others wrote lies, once it is installed.
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

/// Whether a file is there that `tests/run` brings. Says loudly when not, as [`super::root`] does.
pub fn installed(file: &Path) -> bool {
    use std::io::Write as _;
    let is_there = file.exists();
    if !is_there {
        let what = format!("{} is not there: tests/run brings it", file.display());
        assert!(std::env::var_os("LINKSPAN_REQUIRE_NETWORK").is_none(), "{what}");
        let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
    }
    is_there
}

impl Program {
    pub fn path(self) -> PathBuf {
        match self {
            Self::LinkspanWg => LINKSPAN_WG.into(),
            Self::WireguardGo => "/usr/bin/wireguard-go".into(),
            Self::Boringtun => peers().join("bin/boringtun-cli"),
            Self::Gotatun => peers().join("bin/gotatun"),
        }
    }

    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::LinkspanWg => &["-f", "-v", "debug"],
            Self::WireguardGo => &["-f"],
            Self::Boringtun => &["-f", "--disable-drop-privileges", "-t", "1"],
            Self::Gotatun => &["-f", "--disable-drop-privileges"],
        }
    }
}

impl Net {
    /// Starts `program` as site `here`'s tunnel to site `far`, with routes to what is behind that.
    pub fn stock(&self, program: Program, here: usize, far: usize, peering: &Peering<'_>) -> Stock<'_> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let host = self.gateway(here);
        // The control socket's folder is the machine's, not the namespace's.
        let name = format!("st{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let directory = self.directory(&name);
        let log = fs::File::create(directory.join("log")).unwrap();
        let arguments: Vec<&str> = program.arguments().iter().copied().chain([name.as_str()]).collect();
        let mut command = host.command(program.path().to_str().unwrap(), &arguments);
        command.env("STATE_DIRECTORY", &directory);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let stock = Stock { host, name, directory, child };
        // The file is there before anybody listens.
        eventually(seconds(30), "its control socket", || UnixStream::connect(stock.socket()).ok());
        stock.configure(self.site(here), self.site(far), peering);
        stock
    }
}

impl Stock<'_> {
    fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/var/run/wireguard/{}.sock", self.name))
    }

    /// A file with a secret, for `wg`.
    pub fn secret(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        write_secret(&path, &format!("{text}\n"), 0o600);
        path.to_str().unwrap().to_owned()
    }

    fn configure(&self, here: &Site, far: &Site, peering: &Peering<'_>) {
        let key = self.secret("private", &here.key.reveal());
        let preshared = peering.preshared_key.map(|key| self.secret("preshared", key));
        let public = far.public().to_string();
        let port = PORT.to_string();
        let networks = far.networks().join(",");
        let mut words = vec!["set", &self.name, "private-key", &key, "listen-port", &port, "peer", &public];
        words.extend(["allowed-ips", &networks]);
        let endpoint = peering.endpoint.map(|endpoint| endpoint.to_string());
        let keepalive = peering.keepalive.map(|seconds| seconds.to_string());
        let options = [("endpoint", endpoint), ("preshared-key", preshared), ("persistent-keepalive", keepalive)];
        for (word, value) in &options {
            words.extend(value.iter().flat_map(|value| [*word, value.as_str()]));
        }
        let finished = self.wg(&words);
        assert!(finished.status.success(), "{words:?}: {finished:?}");
        let routes = far.networks().into_iter().map(|network| format!("route add {network} dev {}\n", self.name));
        self.host.ip(&format!("link set {} mtu 1420 up\n{}", self.name, routes.collect::<String>()));
    }

    /// `wg` with these arguments.
    pub fn wg(&self, arguments: &[&str]) -> Finished {
        self.host.output(seconds(15), "wg", arguments)
    }

    /// `wg set` of its only peer, and these words.
    pub fn set_peer(&self, peer: &Site, words: &[&str]) {
        let key = peer.public().to_string();
        let finished = self.wg(&[&["set", &self.name, "peer", &key], words].concat());
        assert!(finished.status.success(), "{words:?}: {finished:?}");
    }

    /// Where it sends its only peer's datagrams.
    pub fn endpoint(&self) -> String {
        self.of_peer("endpoints")
    }

    /// When its only peer last shook hands, in seconds since the epoch; 0 = never.
    pub fn handshake(&self) -> u64 {
        self.of_peer("latest-handshakes").parse().unwrap_or(0)
    }

    fn of_peer(&self, what: &str) -> String {
        let told = self.wg(&["show", &self.name, what]).stdout;
        told.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }
}

impl Drop for Stock<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.socket());
        if std::thread::panicking() {
            eprintln!(
                "--- log of {}\n{}---",
                self.name,
                fs::read_to_string(self.directory.join("log")).unwrap_or_default()
            );
        }
    }
}
