//! A failed start: one line with the remedy, the right exit code, and nothing left behind.

use std::fs;

use crate::harness::daemon::{Daemon, LINKSPAN, write_secret};
use crate::harness::host::{Finished, own_dev_net};
use crate::harness::wg::{socket_of, unique_name};
use crate::harness::*;

/// Root without the right to pass by modes: as a user whom a file may be closed to.
const BOUND_BY_MODES: [&str; 5] = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"];

/// One site's gateway, on which nothing runs yet, and its footprint.
struct Start {
    net: Net,
    before: String,
}

impl Start {
    fn new() -> Option<Self> {
        let net = Net::new(2, net::Links::default())?;
        let before = net.gateway(A).footprint();
        Some(Self { net, before })
    }

    /// With every socket that a daemon may have, and so with a name of its own.
    fn daemon(&self) -> Daemon<'_> {
        self.daemon_of(self.net.file(A, &[B]))
    }

    fn daemon_of(&self, mut file: file::File) -> Daemon<'_> {
        file.name = unique_name();
        let mut daemon = self.net.daemon(A, &file);
        daemon.wg = true;
        daemon
    }

    /// The start must fail with `code`, in one line that holds all of `words`, and leave nothing.
    fn refuses(&self, daemon: &Daemon<'_>, wrapper: &[&str], code: i32, words: &[&str]) {
        self.judge(&daemon.fails(wrapper), code, words);
        for socket in [daemon.socket(), socket_of(daemon.name())] {
            assert!(!socket.exists(), "{} is left", socket.display());
        }
    }

    fn judge(&self, finished: &Finished, code: i32, words: &[&str]) {
        let said: Vec<&str> = finished.stderr.lines().chain(finished.stdout.lines()).collect();
        assert_eq!(finished.status.code(), Some(code), "{finished:?}");
        let last = said.last().expect("it says why");
        for word in words {
            assert!(last.to_lowercase().contains(&word.to_lowercase()), "no {word:?} in {last:?}");
        }
        assert_eq!(said.len(), 1, "one line: {said:#?}");
        assert!(!finished.stderr.contains("panicked"));
        assert_eq!(self.net.gateway(A).footprint(), self.before, "something is left behind");
    }
}

#[test]
fn a_missing_configuration_is_refused() {
    let Some(start) = Start::new() else { return };
    let finished = start.net.gateway(A).output(seconds(5), LINKSPAN, &["run", "--config", "/nonexistent/ls0.toml"]);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    let first = finished.stderr.lines().next().unwrap();
    assert!(first.starts_with("/nonexistent/ls0.toml: there is no such file (write it;"), "{first}");
    assert!(finished.stderr.contains("[[connection]]"), "and how: {finished:?}");
}

#[test]
fn a_bad_configuration_is_refused_with_its_place() {
    let Some(start) = Start::new() else { return };
    let daemon = start.net.daemon(A, &start.net.file(A, &[B]).with("mtu = 12"));
    let finished = daemon.fails(&[]);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(finished.stderr.contains("ls0.toml:4:"), "file, line and column: {finished:?}");
    assert_eq!(start.net.gateway(A).footprint(), start.before);
}

#[test]
fn a_missing_key_file_is_refused() {
    let Some(start) = Start::new() else { return };
    let daemon = start.daemon();
    fs::remove_file(daemon.key_file()).unwrap();
    start.refuses(&daemon, &[], 1, &[".key", "genkey"]);
}

#[test]
fn a_key_file_that_everybody_may_read_is_refused() {
    let Some(start) = Start::new() else { return };
    let daemon = start.daemon();
    let key = fs::read_to_string(daemon.key_file()).unwrap();
    write_secret(&daemon.key_file(), &key, 0o644);
    start.refuses(&daemon, &[], 1, &[".key", "chmod"]);
}

#[test]
fn a_key_file_that_the_daemon_may_not_read_is_refused() {
    let Some(start) = Start::new() else { return };
    let daemon = start.daemon();
    std::os::unix::fs::chown(daemon.key_file(), Some(65534), Some(65534)).unwrap();
    start.refuses(&daemon, &BOUND_BY_MODES, 1, &[".key: permission denied", "chown"]);
}

#[test]
fn a_key_file_without_a_key_is_refused() {
    let Some(start) = Start::new() else { return };
    let daemon = start.daemon();
    write_secret(&daemon.key_file(), "secret, but no key\n", 0o600);
    start.refuses(&daemon, &[], 1, &[".key", "base64"]);
}

#[test]
fn a_missing_preshared_key_file_is_refused() {
    let Some(start) = Start::new() else { return };
    let mut file = start.net.file(A, &[B]);
    file.connections[0].tunnel.push("preshared_key_file = \"/nonexistent/psk\"".into());
    start.refuses(&start.daemon_of(file), &[], 1, &["/nonexistent/psk", "genpsk"]);
}

#[test]
fn a_port_in_use_is_refused() {
    let Some(start) = Start::new() else { return };
    for local in ["0.0.0.0:51820", "[::]:51820"] {
        let _other = start.net.gateway(A).udp(local);
        start.refuses(&start.daemon(), &[], 1, &["51820", "in use"]);
    }
}

#[test]
fn a_port_in_use_by_another_daemon_of_the_same_user_is_refused() {
    let Some(mut start) = Start::new() else { return };
    let mut file = start.net.file(A, &[B]);
    file.name = "ls1".into();
    let first = start.net.start(A, &file);
    first.wait("it answers", |_| true);
    let before = start.net.gateway(A).footprint();
    let second = start.daemon().fails(&[]);
    assert_eq!(start.net.gateway(A).footprint(), before);
    drop(first);
    start.before = start.net.gateway(A).footprint();
    start.judge(&second, 1, &["51820", "in use"]);
}

#[test]
fn an_interface_of_that_name_is_refused() {
    let Some(mut start) = Start::new() else { return };
    let name = start.daemon().name().to_owned();
    start.net.gateway(A).ip(&format!("link add name {name} type veth peer name other\n"));
    start.before = start.net.gateway(A).footprint();
    let mut file = start.net.file(A, &[B]);
    file.name.clone_from(&name);
    start.refuses(&start.net.daemon(A, &file), &[], 1, &[&name, "exists"]);
}

#[test]
fn the_same_interface_a_second_time_is_refused_and_the_first_goes_on() {
    let Some(start) = Start::new() else { return };
    let mut file = start.net.file(A, &[B]);
    let first = start.net.start(A, &file);
    first.wait("it answers", |_| true);
    let before = start.net.gateway(A).footprint();
    file.listen_port += 1;
    let second = start.net.daemon(A, &file).fails(&[]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert_eq!(start.net.gateway(A).footprint(), before);
    first.wait("it still answers", |_| true);
}

#[test]
fn a_start_without_the_capability_is_refused() {
    let Some(start) = Start::new() else { return };
    let wrapper = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"];
    start.refuses(&start.daemon(), &wrapper, 1, &["CAP_NET_ADMIN"]);
}

fn words(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

#[test]
fn a_missing_dev_net_tun_is_refused() {
    let Some(start) = Start::new() else { return };
    let wrapper = own_dev_net("true");
    start.refuses(&start.daemon(), &words(&wrapper), 1, &["/dev/net/tun", "modprobe tun"]);
}

#[test]
fn a_dev_net_tun_that_is_closed_to_the_user_is_refused() {
    let Some(start) = Start::new() else { return };
    let daemon = start.daemon();
    let mut wrapper = own_dev_net("mknod -m 600 /dev/net/tun c 10 200 && chown nobody /dev/net/tun");
    wrapper.extend(BOUND_BY_MODES.map(str::to_owned));
    start.refuses(&daemon, &words(&wrapper), 1, &["/dev/net/tun is closed", "chmod 666"]);
}

#[test]
fn a_socket_that_cannot_be_made_is_refused() {
    let Some(start) = Start::new() else { return };
    let daemon = start.daemon();
    // A directory in the socket's place.
    fs::create_dir_all(daemon.socket().join("in-the-way")).unwrap();
    let finished = daemon.fails(&[]);
    fs::remove_dir_all(daemon.socket()).unwrap();
    start.judge(&finished, 1, &["status.sock"]);
}

#[test]
fn too_few_open_files_are_named_with_the_remedy() {
    let Some(start) = Start::new() else { return };
    for limit in [6, 16, 64] {
        start.refuses(&start.daemon(), &["prlimit", &format!("--nofile={limit}:{limit}")], 1, &["ulimit -n"]);
    }
}

#[test]
fn an_address_that_cannot_be_set_is_refused() {
    let Some(start) = Start::new() else { return };
    // No IPv6 at all on this gateway, but an IPv6 address wanted.
    for which in ["all", "default"] {
        start.net.gateway(A).sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
    let before = start.net.gateway(A).footprint();
    let file = start.net.file(A, &[B]).with("addresses = [\"169.254.12.1/30\", \"fd99::1/64\"]");
    let finished = start.net.daemon(A, &file).fails(&[]);
    let start = Start { before, ..start };
    start.judge(&finished, 1, &["fd99::1"]);
}
