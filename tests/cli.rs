//! The command as scripts and admins meet it: exit codes, and what goes to which output.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use linkspan::control::status::{Connection, Handshakes, Interface, State, Status, Traffic, Tunnel, Wire};

const LINKSPAN: &str = env!("CARGO_BIN_EXE_linkspan");
/// RFC 7748, section 6.1.
const ALICE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

fn linkspan(arguments: &[&str]) -> Output {
    Command::new(LINKSPAN).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn linkspan_reading(input: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(LINKSPAN);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_wrong_command_line_is_2_and_help_is_0() {
    for wrong in [&[][..], &["fly"], &["run"], &["run", "a/b"], &["status", "a", "--socket", "b"], &["genkey", "a b"]] {
        assert_eq!(code(&linkspan(wrong)), 2, "{wrong:?}");
    }
    for right in [&["--help"][..], &["--version"], &["run", "--help"], &["status", "-h"]] {
        assert_eq!(code(&linkspan(right)), 0, "{right:?}");
    }
}

#[test]
fn the_help_of_commands_with_meaningful_exit_codes_tells_them() {
    for command in ["run", "check", "status", "demo"] {
        assert!(stdout(&linkspan(&[command, "--help"])).contains("Exit codes: 0"), "{command}");
    }
}

#[test]
fn keys_are_made_and_turned_public_as_by_wg() {
    let private = stdout(&linkspan(&["genkey"]));
    assert_eq!(private.len(), 45);
    assert_eq!(stdout(&linkspan_reading(&private, &["pubkey"])).len(), 45);
    assert_eq!(stdout(&linkspan_reading(ALICE, &["pubkey"])), format!("{ALICE_PUBLIC}\n"));
    assert_eq!(linkspan(&["genpsk"]).stdout.len(), 45);
}

#[test]
fn what_is_no_key_is_refused_without_being_repeated() {
    let refused = linkspan_reading("secret-but-no-key\n", &["pubkey"]);
    assert_eq!(code(&refused), 1);
    assert!(refused.stdout.is_empty());
    assert!(stderr(&refused).contains("not a key") && !stderr(&refused).contains("secret"), "{}", stderr(&refused));
}

#[test]
fn a_key_is_never_an_argument() {
    assert_eq!(code(&linkspan(&["pubkey", ALICE])), 2);
}

#[test]
fn genkey_with_a_name_writes_a_private_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["genkey", "wan0", "--dir", path(folder.path())];
    let file = folder.path().join("wan0.key");
    let made = linkspan(&arguments);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o137, 0);
    let private = fs::read_to_string(&file).unwrap();
    assert_eq!(stdout(&linkspan_reading(&private, &["pubkey"])), stdout(&made));

    let again = linkspan(&arguments);
    assert_eq!(code(&again), 1);
    assert!(stderr(&again).contains("wan0.key"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(&file).unwrap(), private);
}

#[test]
fn a_key_that_goes_into_a_file_everybody_may_read_comes_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        let file = folder.path().join(format!("{mode:o}"));
        let output = File::create(&file).unwrap();
        output.set_permissions(Permissions::from_mode(mode)).unwrap();
        let made = Command::new(LINKSPAN).arg("genkey").stdout(output).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(code(&made), 0);
        assert_eq!(stderr(&made).contains("warning"), warned, "{mode:o}");
        assert_eq!(fs::read(&file).unwrap().len(), 45);
    }
}

#[test]
fn check_names_what_is_right_and_ends_with_2_if_anything_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("right.toml"), folder.path().join("wrong.toml"));
    fs::write(
        &right,
        format!(
            "[[connection]]\nname = \"far\"\nnetworks = [\"10.20.0.0/16\"]\n\
             [[connection.tunnel]]\npublic_key = \"{ALICE_PUBLIC}\"\n"
        ),
    )
    .unwrap();
    fs::write(&wrong, "[interface]\nmut = 1420\n").unwrap();

    let checked = linkspan(&["check", path(&right)]);
    assert_eq!((code(&checked), stdout(&checked)), (0, format!("{}: ok\n", right.display())), "{}", stderr(&checked));

    let checked = linkspan(&["check", path(&wrong), path(&right)]);
    assert_eq!(code(&checked), 2);
    assert_eq!(stdout(&checked), format!("{}: ok\n", right.display()));
    assert!(stderr(&checked).contains("wrong.toml:2:1") && stderr(&checked).contains("mut"), "{}", stderr(&checked));

    let run = linkspan(&["run", "--config", path(&wrong)]);
    assert_eq!(code(&run), 2);
    assert_eq!(stderr(&run).lines().next(), stderr(&checked).lines().next());
}

#[test]
fn the_files_in_the_readme_are_right_once_the_keys_are_filled_in() {
    let folder = tempfile::tempdir().unwrap();
    let readme = include_str!("../README.md");
    let examples: Vec<_> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 2);
    for (i, example) in examples.iter().enumerate() {
        let file = folder.path().join(format!("wan{i}.toml"));
        fs::write(&file, example.replace("\"...\"", &format!("\"{ALICE_PUBLIC}\""))).unwrap();
        let checked = linkspan(&["check", path(&file)]);
        assert_eq!(code(&checked), 0, "{}", stderr(&checked));
    }
}

#[test]
fn the_exit_code_of_status_is_the_state() {
    let folder = tempfile::tempdir().unwrap();
    for (state, expected) in [(State::Up, 0), (State::Degraded, 1), (State::Down, 2)] {
        let socket = folder.path().join(state.word());
        answer(&socket, &status(state));
        let shown = linkspan(&["status", "--socket", path(&socket)]);
        assert_eq!(code(&shown), expected, "{}", stderr(&shown));
        assert!(stdout(&shown).starts_with(&format!("wan0: {};", state.word())), "{}", stdout(&shown));
    }
}

#[test]
fn status_as_json_is_the_daemons_own() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    answer(&socket, &status(State::Up));
    let shown = linkspan(&["status", "--json", "--socket", path(&socket)]);
    assert_eq!(code(&shown), 0);
    assert_eq!(serde_json::from_slice::<Status>(&shown.stdout).unwrap(), status(State::Up));
}

#[test]
fn a_watch_into_a_pipe_is_one_status_after_the_other_without_control_codes() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    answer_always(&socket, &status(State::Degraded));
    for (arguments, first) in [(&["--watch"][..], "wan0: degraded;"), (&["--watch=1", "--json"], "{\"version\"")] {
        let mut command = Command::new("timeout");
        command.args(["30", LINKSPAN, "status", "--socket", path(&socket)]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let shown: Vec<String> = lines.filter(|line| line.starts_with(first)).take(2).collect();
        assert_eq!(shown.len(), 2, "{arguments:?}");
        assert!(!shown.concat().contains('\u{1b}'), "{shown:?}");
        // The reader has gone: the next status ends it, with the exit code of the last.
        assert_eq!(child.wait().unwrap().code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn a_watch_on_a_terminal_is_in_place_and_ctrl_c_brings_the_cursor_back() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    answer_always(&socket, &status(State::Up));
    // script(1) is a terminal, hands Ctrl-C on, and ends as its program does; a shell between them would die of it.
    let watch = format!("exec {LINKSPAN} status --watch --socket {}", path(&socket));
    let mut command = Command::new("timeout");
    command.args(["--foreground", "30", "script", "-qefc", &watch, "/dev/null"]).env("SHELL", "/bin/sh");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut shown = String::new();
    while shown.matches("wan0: up;").count() < 2 {
        let mut part = [0; 4096];
        let length = output.read(&mut part).unwrap();
        assert!(length > 0, "{shown:?}");
        shown += &String::from_utf8_lossy(&part[..length]);
    }
    assert!(shown.contains("\u{1b}[?25l") && !shown.contains("\u{1b}[?25h"), "{shown:?}");
    assert!(shown.contains('\u{2581}'), "a graph of nothing: {shown:?}");
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest);
    let (_, after) = rest.split_once("\u{1b}[?25h\u{1b}[?1049l").unwrap_or_else(|| panic!("{rest:?}"));
    assert!(after.contains("wan0: up;") && !after.contains('\u{1b}'), "the last state stays: {after:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_log_level_is_asked_of_the_daemon_and_a_wrong_one_never() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    for wrong in
        [&["log-level", "wan0", "loud"][..], &["log-level", "wan0", "info", "--socket", "s"], &["log-level", "a/b"]]
    {
        assert_eq!(code(&linkspan(wrong)), 2, "{wrong:?}");
    }
    let asked = linkspan(&["log-level", "debug", "--socket", path(&socket)]);
    assert_eq!(code(&asked), 1);
    assert!(stderr(&asked).contains("no daemon is running"), "{}", stderr(&asked));
}

#[test]
fn without_a_daemon_the_status_is_down() {
    let shown = linkspan(&["status", "--socket", "/nowhere/at/all.sock"]);
    assert_eq!(code(&shown), 2);
    assert!(shown.stdout.is_empty());
    assert!(stderr(&shown).contains("/nowhere/at/all.sock"), "{}", stderr(&shown));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    for arguments in [&["completions", "bash"][..], &["man"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(LINKSPAN);
        let output = command.args(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((code(&output), stderr(&output)), (0, String::new()), "{arguments:?}");
    }
}

#[test]
fn man_pages_and_completions_are_written() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(code(&linkspan(&["man", path(folder.path())])), 0);
    assert!(fs::metadata(folder.path().join("linkspan-status.1")).unwrap().len() > 100);
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&linkspan(&["completions", shell])).contains("genkey"), "{shell}");
    }
}

#[test]
fn the_demo_asks_kindly_for_root() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("linkspan");
    // By another process: a program that another test forks meanwhile would have ours still open for writing.
    let copy = Command::new("install").args(["-m", "755", LINKSPAN, path(&program)]).status().unwrap();
    assert!(copy.success());
    let mut command = Command::new(program);
    command.arg("demo").current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let refused = command.output().unwrap();
    assert_eq!(code(&refused), 2);
    assert!(refused.stdout.is_empty());
    assert!(stderr(&refused).contains("sudo"), "{}", stderr(&refused));
}

/// A daemon that gives one answer.
fn answer(socket: &Path, status: &Status) {
    answer_often(socket, status, 1);
}

/// A daemon that gives that answer for as long as the test lasts.
fn answer_always(socket: &Path, status: &Status) {
    answer_often(socket, status, usize::MAX);
}

fn answer_often(socket: &Path, status: &Status, times: usize) {
    let listener = UnixListener::bind(socket).unwrap();
    let body = serde_json::to_string(status).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().take(times).map_while(Result::ok) {
            give(&stream, &body);
        }
    });
}

fn give(stream: &UnixStream, body: &str) {
    let request = BufReader::new(stream).lines().map_while(Result::ok);
    request.take_while(|line| !line.is_empty()).for_each(drop);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = stream;
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

fn status(state: State) -> Status {
    let tunnel = Tunnel {
        name: "tunnel".into(),
        public_key: ALICE_PUBLIC.into(),
        state,
        since: "2026-03-01T12:00:00Z".into(),
        since_s: 60,
        endpoint: None,
        configured_endpoint: Some("vpn.example.com:51820".into()),
        last_handshake_s: None,
        last_receive_s: None,
        mtu: 1420,
        sent: Traffic::default(),
        received: Traffic::default(),
        wire: Wire::default(),
        handshakes: Handshakes::default(),
    };
    let connection =
        Connection { name: "far".into(), networks: vec!["10.20.0.0/16".into()], state, tunnels: vec![tunnel] };
    let interface = Interface {
        name: "wan0".into(),
        index: 7,
        mtu: 1420,
        port: 51820,
        offloads: "tcp+udp".into(),
        public_key: ALICE_PUBLIC.into(),
        workers: 2,
    };
    Status {
        version: "0.1.0".into(),
        interface,
        uptime_s: 61,
        state,
        connections: vec![connection],
        drops: vec![],
        threads: vec![],
        clock_behind_s: 0,
        warnings: vec![],
    }
}
