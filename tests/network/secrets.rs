//! Keys stay where they belong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;

use super::service::copy_program;
use crate::harness::daemon::write_secret;
use crate::harness::host::finish;
use crate::harness::traffic::pings_pass;
use crate::harness::wg::{socket_of, unique_name, wg};
use crate::harness::*;

/// A secret in every form in which it may slip out.
fn forms(base64: &str) -> Vec<Vec<u8>> {
    let raw = STANDARD.decode(base64).unwrap();
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    let debug = format!("{raw:?}");
    let upper = hex.to_uppercase();
    let unpadded = base64.trim_end_matches('=').to_owned();
    [hex, upper, debug, unpadded].into_iter().map(String::into_bytes).chain([raw]).collect()
}

fn leaks(place: &str, bytes: &[u8], secrets: &[Vec<u8>]) -> Option<String> {
    let found = secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_slice()));
    found.then(|| place.to_owned())
}

#[test]
fn no_key_is_in_the_log_the_status_the_environment_or_the_arguments() {
    let Some(net) = Net::two_sites() else { return };
    let psk = linkspan::tunnel::key::PresharedKey::generate().unwrap();
    let with_psk = |mut file: file::File, name: &str| {
        let path = net.directory("psk").join(name);
        write_secret(&path, &psk.reveal(), 0o600);
        file.connections[0].tunnel.push(format!("preshared_key_file = {path:?}"));
        file
    };
    let mut a = net.daemon(A, &with_psk(net.file(A, &[B]), "a"));
    // The library that holds the keys says nothing unless it is named.
    a.log_level = "trace,boringtun=trace";
    a.start();
    // The first word is this end's, so that the log shows what an initiator says, too.
    let sent = "DEBUG Sending handshake_initiation";
    eventually(seconds(10), "the first initiation", || a.log().contains(sent).then_some(()));
    let b = net.start(B, &with_psk(net.file(B, &[A]), "b"));
    a.wait_up();
    b.wait_up();
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "1"]);
    let secrets: Vec<_> = [&*net.site(A).key.reveal(), &*psk.reveal()].into_iter().flat_map(|key| forms(key)).collect();
    let proc = |file: &str| fs::read(format!("/proc/{}/{file}", a.pid())).unwrap();
    let places = [
        ("log", a.log().into_bytes()),
        ("status", a.ask_status(&[]).stdout.into_bytes()),
        ("status --json", a.ask_status(&["--json"]).stdout.into_bytes()),
        ("environ", proc("environ")),
        ("cmdline", proc("cmdline")),
    ];
    for words in ["DEBUG handshake message taken", sent, "New session"] {
        assert!(a.log().contains(words), "the log was not at its most talkative, no {words:?}: {}", a.log());
    }
    let found: Vec<_> = places.iter().filter_map(|(place, bytes)| leaks(place, bytes, &secrets)).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_pages_of_the_keys_are_locked_as_far_as_the_limit_allows() {
    let Some(net) = Net::two_sites() else { return };
    for (limit, is_locked) in [("--memlock=8388608", true), ("--memlock=0", false)] {
        let mut a = net.daemon(A, &net.file(A, &[B]));
        a.start_by(a.command(&["prlimit", limit]));
        a.wait("it answers", |_| true);
        let status = fs::read_to_string(format!("/proc/{}/status", a.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        assert_eq!(line.split_whitespace().nth(1).unwrap() != "0", is_locked, "{limit}: {line}");
        assert!(!a.log().contains("WARN"), "{}", a.log());
        a.stop();
    }
}

#[test]
fn the_daemon_is_not_dumpable_and_writes_no_core() {
    let Some(net) = Net::two_sites() else { return };
    let mut a = net.start(A, &net.file(A, &[B]));
    a.wait("it answers", |_| true);
    let pid = a.pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    // The same user with the same capability, but not more, may not look into it. Into itself it may.
    let spy = |path: &str| {
        let arguments = ["--bounding-set", "-all,+net_admin", "--inh-caps", "-all", "cat", path];
        net.gateway(A).output(seconds(5), "setpriv", &arguments)
    };
    assert!(spy("/proc/self/environ").status.success());
    assert!(!spy(&format!("/proc/{pid}/environ")).status.success());
    a.signal(Signal::SIGABRT);
    let status = a.wait_exit(seconds(5));
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
    assert!(!status.core_dumped());
}

#[test]
fn the_daemon_keeps_no_capability_but_one() {
    let Some(net) = Net::two_sites() else { return };
    let a = net.start(A, &net.file(A, &[B]));
    a.wait("it answers", |_| true);
    let status = fs::read_to_string(format!("/proc/{}/status", a.pid())).unwrap();
    let set = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    const NET_ADMIN: u64 = 1 << 12;
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(set(name) & !NET_ADMIN, 0, "{name}: {:x}", set(name));
    }
    assert_eq!(set("CapEff"), NET_ADMIN);
    assert!(status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"])));
}

#[test]
fn a_stranger_may_open_neither_socket() {
    let Some(net) = Net::two_sites() else { return };
    let mut file = net.file(A, &[B]);
    // The folder of wg's sockets is the machine's, whatever the network namespace.
    file.name = unique_name();
    let mut a = net.daemon(A, &file);
    a.wg = true;
    a.start();
    a.wait("it answers", |_| true);
    assert!(wg(&["show", &file.name]).status.success());
    for socket in [a.socket(), socket_of(&file.name)] {
        let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o660, "{}", socket.display());
    }
    let program = net.directory("bin").join("linkspan");
    copy_program(&program);
    let (program, socket) = (program.to_str().unwrap(), a.socket());
    // Where strangers may not even look into the folder of wg's sockets, wg finds none and says so.
    let folder = fs::metadata(socket_of(&file.name).parent().unwrap()).unwrap().permissions().mode();
    let hidden = folder & 0o001 == 0;
    for words in [[program, "status", "--socket", socket.to_str().unwrap()].as_slice(), &["wg", "show", &file.name]] {
        let refused = as_nobody(words);
        assert!(!refused.status.success());
        let said = |words| refused.stderr.to_lowercase().contains(words);
        assert!(said("permission denied") || hidden && said("unable to access interface"), "{words:?}: {refused:?}");
    }
}

/// What a program says to a user of no rights.
fn as_nobody(words: &[&str]) -> host::Finished {
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).args(words);
    finish(command, seconds(5))
}
