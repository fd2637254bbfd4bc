//! One network namespace: a machine of the test network.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::{eventually, seconds};

/// A network namespace of a unique name, removed on drop.
#[derive(Debug)]
pub struct Host {
    name: String,
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);
const PREFIX: &str = "lst";
/// Where `ip netns exec` finds files that stand for those of /etc.
const ETC: &str = "/etc/netns";

/// What our programs hear from the service manager, and the tests might have from theirs.
const OF_A_MANAGER: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "STATE_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "JOURNAL_STREAM",
    "SERVICE_RESULT",
];
/// What else they read.
const SETTINGS: &[&str] = &[
    "LINKSPAN_LOG",
    "RUST_LOG",
    "LOG_LEVEL",
    "WG_LOG_LEVEL",
    "WG_LOG_FILE",
    "WG_PROCESS_FOREGROUND",
    "WG_THREADS",
    "WG_TUN_FD",
    "WG_UAPI_FD",
];

impl Host {
    /// An empty machine: loopback up, no duplicate address detection (addresses work at once).
    pub fn new(role: &str) -> Self {
        let name = format!("{PREFIX}{}-{}-{role}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let host = Self { name };
        host.sysctl("net/ipv6/conf/all/accept_dad", "0");
        host.sysctl("net/ipv6/conf/default/accept_dad", "0");
        host.sysctl("net/ipv6/conf/default/dad_transmits", "0");
        host.ip("link set lo up");
        host
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it, one command a line.
    pub fn ip(&self, commands: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("ip (iproute2) runs");
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}in {commands}", self.name);
    }

    /// Replaces the nftables table `inet NAME` by one of these lines; none = removed.
    pub fn nft(&self, table: &str, lines: &[String]) {
        let mut script = format!("add table inet {table}\ndelete table inet {table}\n");
        if !lines.is_empty() {
            script += &format!("table inet {table} {{\n{}\n}}\n", lines.join("\n"));
        }
        let mut command = self.command("nft", &["-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("nft (nftables) runs");
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "nft {script}");
    }

    /// Writes `/proc/sys/KEY` as seen from inside.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/{key}"), value).unwrap_or_else(|e| panic!("{key}: {e}")));
    }

    /// A command that will run inside; its process is the program itself, not a wrapper.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(arguments);
        OF_A_MANAGER.iter().chain(SETTINGS).for_each(|name| _ = command.env_remove(name));
        command
    }

    /// Runs a command inside, to its end.
    pub fn output(&self, within: Duration, program: &str, arguments: &[&str]) -> Finished {
        finish(self.command(program, arguments), within)
    }

    /// What a command says on standard output; it must succeed.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let finished = self.output(seconds(10), program, arguments);
        assert!(finished.status.success(), "{program} {arguments:?}: {finished:?}");
        finished.stdout
    }

    /// Runs `work` inside, on a thread of its own. Sockets made there stay there, wherever they are used.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.name);
                work()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts `work` inside, on a thread of its own.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let name = self.name.clone();
        thread::spawn(move || {
            enter(&name);
            work()
        })
    }

    /// A UDP socket inside; what it waits for must come within 5 s.
    pub fn udp(&self, local: &str) -> UdpSocket {
        // A port just left is free a moment later: a program that another test forks meanwhile still holds it.
        let socket =
            eventually(seconds(2), &format!("{}: {local}", self.name), || self.run(|| UdpSocket::bind(local)).ok());
        socket.set_read_timeout(Some(seconds(5))).unwrap();
        socket
    }

    pub fn listen(&self, local: SocketAddr) -> TcpListener {
        self.run(|| TcpListener::bind(local)).unwrap_or_else(|e| panic!("{}: {local}: {e}", self.name))
    }

    pub fn connect(&self, remote: SocketAddr, within: Duration) -> TcpStream {
        let stream = self.run(|| TcpStream::connect_timeout(&remote, within));
        let stream = stream.unwrap_or_else(|e| panic!("{}: {remote}: {e}", self.name));
        stream.set_read_timeout(Some(within)).unwrap();
        stream.set_write_timeout(Some(within)).unwrap();
        stream
    }

    /// What a daemon may leave behind: links, addresses, routes, rules, a line each. Two of these can be compared.
    pub fn footprint(&self) -> String {
        let questions: [&[&str]; 6] = [
            &["-br", "link"],
            &["-o", "address"],
            &["-4", "route", "show", "table", "all"],
            &["-6", "route", "show", "table", "all"],
            &["-4", "rule"],
            &["-6", "rule"],
        ];
        let [links, rest @ ..] = questions.map(|question| self.ask("ip", question));
        // Of a link only its name: its state follows its peer's a little later. So do link-local addresses.
        let links = links.lines().filter_map(|line| line.split_whitespace().next()).map(|name| format!("link {name}"));
        let by_itself = |line: &&str| ["fe80::", "ff00::/8", "expires"].iter().any(|word| line.contains(word));
        let rest = rest.join("\n");
        let rest = rest.lines().filter(|line| !by_itself(line)).map(|line| line.trim().to_owned());
        let mut lines: Vec<String> = links.chain(rest).collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    /// UDP datagrams that came to a full socket: UdpRcvbufErrors of /proc/net/snmp.
    pub fn full_sockets(&self) -> u64 {
        let text = self.ask("cat", &["/proc/net/snmp"]);
        let mut lines = text.lines().filter(|line| line.starts_with("Udp:")).map(|line| line.split(' '));
        let at = lines.next().unwrap().position(|name| name == "RcvbufErrors").unwrap();
        lines.next().unwrap().nth(at).unwrap().parse().unwrap()
    }

    /// What `/etc/hosts` holds for programs started inside from now on.
    pub fn etc_hosts(&self, lines: &str) {
        self.etc_file("hosts", lines);
    }

    /// What a file of `/etc` holds for programs started inside from now on.
    pub fn etc_file(&self, name: &str, text: &str) {
        // Another test may be removing the empty parent just now.
        eventually(seconds(1), "a folder for the namespace", || fs::create_dir_all(self.etc()).ok());
        fs::write(self.etc().join(name), text).unwrap();
    }

    fn etc(&self) -> PathBuf {
        PathBuf::from(ETC).join(&self.name)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes what test processes that were killed have left.
pub fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if left_behind(&name) {
            remove(&name);
        }
    }
}

/// Whether this is the name of a machine of a test process that is gone.
pub fn left_behind(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|n| n.parse::<u32>().ok());
    pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists())
}

fn remove(name: &str) {
    let _ = fs::remove_dir_all(PathBuf::from(ETC).join(name));
    // Only an empty one goes.
    let _ = fs::remove_dir(ETC);
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

fn enter(name: &str) {
    let namespace: OwnedFd = fs::File::open(format!("/run/netns/{name}")).expect("the namespace is there").into();
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().expect("ip runs").success(), "ip {arguments:?}");
}

/// Runs `command` to its end; it is killed when it takes longer than `within`.
pub fn finish(mut command: Command, within: Duration) -> Finished {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = thread::spawn(move || text(&mut stdout));
    let err = thread::spawn(move || text(&mut stderr));
    let mut guard = KillOnDrop(child);
    let status = eventually(within, &format!("{command:?} ends"), || guard.0.try_wait().unwrap());
    Finished { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

fn text(from: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.take(16 << 20).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

struct KillOnDrop(std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A wrapper for a command: a mount namespace of its own, where /dev/net is empty but for what `script` makes there.
pub fn own_dev_net(script: &str) -> Vec<String> {
    let script = format!("mount -t tmpfs -o mode=755 none /dev/net && {script} && exec \"$0\" \"$@\"");
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script].map(str::to_owned).to_vec()
}

/// "10.1.0.2" and 5 make 10.1.0.2:5; IPv6 too.
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
