//! The unit as systemd's own tools judge it: its form, how exposed it leaves the machine, and the user it names.
#![cfg(not(feature = "sim"))]
// Helpers are tests, too: a failure is a panic.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

const UNIT: &str = include_str!("../systemd/linkspan@.service");
const SOCKET: &str = include_str!("../systemd/linkspan@.socket");
const PROGRAM: &str = "/usr/bin/linkspan";
/// In tenths, as `--threshold` takes it.
const MOST_EXPOSED: &str = "20";

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

/// What the tool says; none, and loudly, where it is not installed.
fn tool(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).env("SYSTEMD_PAGER", "").output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(std::env::var_os("LINKSPAN_REQUIRE_NETWORK").is_none(), "{program}: {error}");
            let _ = writeln!(std::io::stderr(), "SKIPPED: needs {program}");
            None
        }
    }
}

#[test]
fn the_unit_has_no_fault_that_systemd_knows() {
    let folder = tempfile::tempdir().unwrap();
    let unit = UNIT.replace(PROGRAM, env!("CARGO_BIN_EXE_linkspan"));
    fs::write(folder.path().join("linkspan@.service"), unit).unwrap();
    fs::write(folder.path().join("linkspan@.socket"), SOCKET).unwrap();
    for instance in ["wan0", "site-b"] {
        let path = |kind| folder.path().join(format!("linkspan@{instance}.{kind}")).to_str().unwrap().to_owned();
        let arguments = ["verify", "--man=no", &path("service"), &path("socket")];
        let Some(output) = tool("systemd-analyze", &arguments) else { return };
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

/// Set means that the socket comes with the service, and goes with it: one command starts both, one stops both.
#[test]
fn the_socket_of_wg_comes_and_goes_with_the_service_and_is_for_root() {
    let has = |unit: &str, line: &str| assert!(unit.lines().any(|each| each == line), "no {line}");
    has(UNIT, "Sockets=linkspan@%i.socket");
    has(SOCKET, "BindsTo=linkspan@%i.service");
    has(SOCKET, "ListenStream=/run/wireguard/%i.sock");
    has(SOCKET, "RemoveOnStop=yes");
    for (what, value) in [("User", "root"), ("Group", "root"), ("Mode", "0660")] {
        has(SOCKET, &format!("Socket{what}={value}"));
    }
}

#[test]
fn the_unit_leaves_little_of_the_machine_exposed() {
    let path = file("linkspan@.service");
    let threshold = format!("--threshold={MOST_EXPOSED}");
    let arguments = ["security", "--no-pager", "--offline=true", &threshold, path.to_str().unwrap()];
    let Some(output) = tool("systemd-analyze", &arguments) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_user_of_the_unit_is_made_by_sysusers() {
    let path = file("linkspan.sysusers.conf");
    let Some(output) = tool("systemd-sysusers", &["--dry-run", path.to_str().unwrap()]) else { return };
    assert!(output.status.success(), "{output:?}");
    let user = |line: &str| line.starts_with("u linkspan ");
    assert!(fs::read_to_string(path).unwrap().lines().any(user));
    assert!(UNIT.lines().any(|line| line == "User=linkspan"));
}
