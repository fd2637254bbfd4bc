//! The daemon as the service manager starts it: an unprivileged user, one capability, the key as a credential.

use std::collections::BTreeSet;
use std::fs;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use linkspan::tunnel::key::PresharedKey;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::daemon::{Daemon, LINKSPAN, write_secret};
use crate::harness::host::{finish, own_dev_net};
use crate::harness::prometheus::http_get;
use crate::harness::traffic::pings_pass;
use crate::harness::wg::{socket_of, unique_name, wg_ok};
use crate::harness::*;

const NOBODY: u32 = 65534;
const METRICS: &str = "127.0.0.1:9586";
const UNIT: &str = include_str!("../../systemd/linkspan@.service");

/// A's gateway with the folders, the credential, the socket and the notification socket that the units ask for.
struct Service<'n> {
    net: &'n Net,
    folder: PathBuf,
    manager: UnixDatagram,
    /// What the service manager is told, a message each.
    told: Receiver<String>,
    /// Of the interface.
    name: String,
}

/// Copies the program to where others may run it, too. Another process does it: a program that another test forks
/// meanwhile would have ours still open for writing, and what is open for writing cannot be run.
pub(super) fn copy_program(to: &Path) {
    let copied = Command::new("install").args(["-m", "755", LINKSPAN]).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Hears all that is said, whether or not the test listens: who notifies waits while ten messages lie there.
fn hear(manager: &UnixDatagram) -> Receiver<String> {
    let (manager, (sender, told)) = (manager.try_clone().unwrap(), channel());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match manager.recv(&mut buffer) {
                // It was shut down.
                Ok(0) => return,
                Ok(length) => drop(sender.send(String::from_utf8_lossy(&buffer[..length]).into_owned())),
                // The end of a child may interrupt it.
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
            }
        }
    });
    told
}

impl<'n> Service<'n> {
    fn new(net: &'n Net) -> Self {
        let folder = net.directory("service");
        let manager = UnixDatagram::bind(folder.join("notify")).unwrap();
        chown(folder.join("notify"), Some(NOBODY), None).unwrap();
        copy_program(&folder.join("linkspan"));
        Self { net, folder, told: hear(&manager), manager, name: unique_name() }
    }

    /// What linkspan@.socket makes.
    fn listen_for_wg(&self) -> UnixListener {
        let path = socket_of(&self.name);
        let listener = eventually(seconds(2), "the socket of `wg`", || {
            // A daemon that ends may just have removed the folder.
            fs::create_dir_all(path.parent().unwrap()).ok()?;
            UnixListener::bind(&path).ok()
        });
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        listener
    }

    /// The daemon, not started yet. Its key file is unreadable for its user, as the one in /etc is.
    fn daemon(&self) -> Daemon<'n> {
        let mut file = self.net.file(A, &[B]).with(&format!("metrics = {METRICS:?}"));
        file.name.clone_from(&self.name);
        let mut daemon = self.net.daemon(A, &file);
        daemon.wg = true;
        let state = daemon.directory().join("state");
        fs::create_dir_all(&state).unwrap();
        for own in [daemon.directory(), &state] {
            chown(own, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let credential = self.folder.join(format!("{}.key", self.name));
        write_secret(&credential, &fs::read_to_string(daemon.key_file()).unwrap(), 0o400);
        chown(credential, Some(NOBODY), None).unwrap();
        daemon
    }

    /// The start as the unit does it, by `tracer` (a program and its arguments) if that is not empty, and with the
    /// socket of `wg` as descriptor 3. The TUN device is open to all, as udev makes it; this machine need not have udev.
    fn command(&self, daemon: &Daemon<'_>, tracer: &[&str]) -> Command {
        let only = "-all,+net_admin";
        let user = NOBODY.to_string();
        let program = self.folder.join("linkspan");
        let run = daemon.run_arguments();
        let drop = ["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"];
        let keep = ["--inh-caps", only, "--ambient-caps", only, "--bounding-set", only];
        let open = own_dev_net("mknod -m 666 /dev/net/tun c 10 200");
        let mut words: Vec<&str> = open.iter().map(String::as_str).chain(tracer.iter().copied()).collect();
        words.extend(["sh", "-c", "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null"]);
        words.extend(["setpriv"].into_iter().chain(drop).chain(keep).chain([program.to_str().unwrap()]));
        words.extend(run.iter().map(String::as_str));
        let mut command = self.net.gateway(A).command(words[0], &words[1..]);
        command.env("CREDENTIALS_DIRECTORY", &self.folder).env("NOTIFY_SOCKET", self.folder.join("notify"));
        command.env("WATCHDOG_USEC", "15000000").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "wg");
        command.stdin(OwnedFd::from(self.listen_for_wg()));
        command
    }

    /// Waits for this word to the service manager, after those that were waited for before.
    fn told(&self, word: &str) {
        eventually(seconds(20), word, || {
            self.told.try_iter().any(|said| said.lines().any(|line| line == word)).then_some(())
        });
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.manager.shutdown(Shutdown::Both);
        let _ = fs::remove_file(socket_of(&self.name));
    }
}

#[test]
fn an_unprivileged_user_with_net_admin_alone_is_enough() {
    let Some(net) = Net::two_sites() else { return };
    let before = net.gateway(A).footprint();
    let service = Service::new(&net);
    let mut a = service.daemon();
    a.start_by(service.command(&a, &[]));
    let b = net.start(B, &net.file(B, &[A]));
    a.wait_up();
    b.wait_up();
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    pings_pass(net.lan(B), net.site(A).lan6(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    let status = fs::read_to_string(format!("/proc/{}/status", a.pid())).unwrap();
    assert!(status.lines().any(|line| line.split_whitespace().eq(["Uid:", "65534", "65534", "65534", "65534"])));
    let shown = wg_ok(&["show", &service.name]);
    assert!(shown.contains(&format!("peer: {}", net.site(B).public())), "{shown}");
    a.stop();
    assert_eq!(net.gateway(A).footprint(), before);
    assert!(!a.socket().exists());
    assert!(socket_of(&service.name).exists(), "the socket of `wg` is the service manager's");
    assert!(!a.log().contains("WARN") && !a.log().contains("ERROR"), "{}", a.log());
}

#[test]
fn ready_is_said_only_when_device_routes_and_sockets_are_up() {
    let Some(net) = Net::two_sites() else { return };
    let service = Service::new(&net);
    let mut a = service.daemon();
    a.start_by(service.command(&a, &[]));
    service.told("READY=1");
    let gateway = net.gateway(A);
    let into_the_tunnel = format!("dev {}", service.name);
    assert!(gateway.ask("ip", &["-br", "link", "show", &service.name]).contains("UP"));
    assert!(gateway.ask("ip", &["route", "get", "10.2.0.2"]).contains(&into_the_tunnel));
    assert!(gateway.ask("ip", &["-6", "route", "get", "fd00:2::2"]).contains(&into_the_tunnel));
    assert!(a.status().is_some());
    let taken = gateway.run(|| std::net::UdpSocket::bind("0.0.0.0:51820")).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    service.told("WATCHDOG=1");
    service.told("WATCHDOG=1");
    a.signal(Signal::SIGHUP);
    service.told("RELOADING=1");
    service.told("READY=1");
    a.signal(Signal::SIGTERM);
    service.told("STOPPING=1");
    assert!(a.wait_exit(seconds(5)).success());
}

/// The service manager's credential is as old as the start, and the daemon is not root.
#[test]
fn a_reload_keeps_keys_that_the_daemon_may_no_longer_read_and_says_so() {
    let Some(net) = Net::two_sites() else { return };
    let service = Service::new(&net);
    let mut a = service.daemon();
    let psk = service.folder.join("shared.psk");
    write_secret(&psk, &PresharedKey::generate().unwrap().reveal(), 0o400);
    chown(&psk, Some(NOBODY), None).unwrap();
    let mut file = net.file(A, &[B]);
    file.connections[0].tunnel.push(format!("preshared_key_file = {psk:?}"));
    a.write(&file);
    a.start_by(service.command(&a, &[]));
    service.told("READY=1");
    chown(&psk, Some(0), None).unwrap();
    a.write(&file.clone().with("mtu = 1380"));
    let said = a.reload();
    assert!(said.status.success() && said.stdout.contains("mtu auto -> 1380"), "{said:?}");
    assert!(said.stderr.contains("can no longer be read") && said.stderr.lines().count() == 1, "{said:?}");
    // A key that it never had is another matter.
    let other = service.folder.join("other.psk");
    write_secret(&other, &PresharedKey::generate().unwrap().reveal(), 0o400);
    file.connections[0].tunnel = vec![format!("preshared_key_file = {other:?}")];
    a.write(&file);
    let said = a.reload();
    assert!(said.status.code() == Some(1) && said.stderr.contains("permission denied"), "{said:?}");
    a.stop();
}

#[test]
fn without_the_socket_of_wg_the_tunnel_is_the_same_and_the_log_says_what_is_missing() {
    let Some(net) = Net::two_sites() else { return };
    let service = Service::new(&net);
    let mut a = service.daemon();
    let mut command = service.command(&a, &[]);
    command.env_remove("LISTEN_FDS");
    fs::remove_file(socket_of(&service.name)).unwrap();
    a.start_by(command);
    let b = net.start(B, &net.file(B, &[A]));
    a.wait_up();
    b.wait_up();
    let log = a.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(matches!(said[..], [line] if line.contains("`wg show`") && line.contains("linkspan@.socket")), "{log}");
    a.stop();
}

#[test]
fn a_socket_of_the_service_manager_that_is_not_there_is_refused() {
    let Some(net) = Net::two_sites() else { return };
    let service = Service::new(&net);
    let daemon = service.daemon();
    let mut command = service.command(&daemon, &[]);
    command.env("LISTEN_FDS", "7").env_remove("LISTEN_FDNAMES");
    let finished = finish(command, seconds(10));
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("LISTEN_FDS") && finished.stderr.lines().count() == 1, "{finished:?}");
}

#[test]
fn no_system_call_is_made_that_the_unit_forbids() {
    let Some(net) = Net::two_sites() else { return };
    let service = Service::new(&net);
    let mut a = service.daemon();
    let trace = service.folder.join("trace");
    let strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none", "-o", trace.to_str().unwrap()];
    a.start_by(service.command(&a, &strace));
    let b = net.start(B, &net.file(B, &[A]));
    a.wait_up_within(seconds(30));
    b.wait_up();
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    let page = http_get(net.gateway(A), METRICS.parse().unwrap(), "/metrics").expect("metrics");
    assert!(page.contains("linkspan_thread_busy_seconds_total{"), "{page}");
    // strace hands a signal on to nobody: the daemon is its child.
    let daemon = Pid::from_raw(eventually(seconds(5), "the daemon's process", || child_of(a.pid())));
    let mtu = fs::read_to_string(a.file()).unwrap().replace("[interface]\n", "[interface]\nmtu = 1380\n");
    fs::write(a.file(), mtu).unwrap();
    kill(daemon, Signal::SIGHUP).unwrap();
    service.told("RELOADING=1");
    service.told("READY=1");
    service.told("WATCHDOG=1");
    kill(daemon, Signal::SIGTERM).unwrap();
    assert!(a.wait_exit(seconds(10)).success(), "{}", a.log());
    let forbidden: Vec<_> = calls(&trace).difference(&allowed()).cloned().collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
}

fn child_of(pid: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next()?.parse().ok()
}

/// The calls in the trace from the moment on at which the daemon is the program. Lines are "PID call(...) = result".
fn calls(trace: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(trace).unwrap();
    let is_start = |line: &&str| line.contains("execve(") && line.contains("service/linkspan");
    let lines = text.lines().skip_while(|line| !is_start(line)).skip(1);
    let call = |line: &str| {
        let rest = line.split_once(' ')?.1.trim_start();
        let name = rest.strip_prefix("<... ").unwrap_or(rest).split(['(', ' ']).next()?;
        (!name.starts_with(['+', '-', '<'])).then(|| name.to_owned())
    };
    let calls: BTreeSet<_> = lines.filter_map(call).collect();
    assert!(calls.len() > 30, "{calls:?}");
    calls
}

/// What the unit's SystemCallFilter lines allow, read as systemd reads them.
fn allowed() -> BTreeSet<String> {
    // @default is always allowed; it holds what every program needs.
    let mut allowed = expand("@default");
    for line in UNIT.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (denied, words) = line.strip_prefix('~').map_or((false, line), |words| (true, words));
        let named: BTreeSet<_> = words.split_whitespace().flat_map(expand).collect();
        allowed = if denied { &allowed - &named } else { &allowed | &named };
    }
    allowed
}

/// The calls of a group such as "@process", or the call itself.
fn expand(word: &str) -> BTreeSet<String> {
    if !word.starts_with('@') {
        return [word.to_owned()].into();
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", word]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let members = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    members.flat_map(expand).collect()
}
