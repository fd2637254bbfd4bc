//! `linkspan demo` as a newcomer runs it: it works, and whatever happens, nothing of it is left.
//!
//! Needs root, as the demo does; without, the tests say that they were skipped.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

fn may_run() -> bool {
    if !geteuid().is_root() {
        assert!(std::env::var_os("LINKSPAN_REQUIRE_NETWORK").is_none(), "the demo needs root");
        // Not eprintln: the test runner would swallow it.
        let _ = writeln!(std::io::stderr(), "SKIPPED: the demo needs root");
    }
    geteuid().is_root()
}

fn start() -> Option<Child> {
    if !may_run() {
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_linkspan"));
    command.arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command.spawn().unwrap())
}

/// Waits for the first line of the demo's output with `word` in it.
fn wait_for(demo: &mut Child, word: &str) {
    let lines = BufReader::new(demo.stdout.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains(word)), "no \"{word}\"");
}

/// The demo's daemons, found by their arguments, which name the demo's folder.
fn daemons(demo: u32) -> usize {
    let folder = format!("/linkspan-demo-{demo}/");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let arguments = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    arguments.filter(|arguments| String::from_utf8_lossy(arguments).contains(&folder)).count()
}

/// What `wg` could ask of the demo's daemons: nothing. Its folder belongs to the machine.
fn assert_the_folder_of_wg_is_untouched() {
    for name in ["site-a", "site-b"] {
        assert!(!Path::new("/var/run/wireguard").join(format!("{name}.sock")).exists(), "a socket in wg's folder");
    }
}

fn assert_no_daemon_is_left(demo: u32) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while daemons(demo) > 0 {
        assert!(Instant::now() < deadline, "a daemon is left");
        thread::sleep(Duration::from_millis(20));
    }
}

fn assert_nothing_is_left(demo: u32) {
    assert_the_folder_of_wg_is_untouched();
    assert_no_daemon_is_left(demo);
    for parent in ["/run", "/tmp"] {
        assert!(!Path::new(parent).join(format!("linkspan-demo-{demo}")).exists(), "the folder is left");
    }
}

#[test]
fn the_demo_works_and_leaves_nothing() {
    let Some(demo) = start() else { return };
    let (id, started) = (demo.id(), Instant::now());
    let shown = demo.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&shown.stderr));
    assert!(started.elapsed() < Duration::from_secs(60));
    for word in ["tunnel up at both ends after", "100 of 100 answered", "bit/s", "site-a: up", "site-b: up"] {
        assert!(text.contains(word), "no \"{word}\" in:\n{text}");
    }
    assert_nothing_is_left(id);
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let Some(mut demo) = start() else { return };
        let id = demo.id();
        wait_for(&mut demo, "tunnel up");
        assert_eq!(daemons(id), 2);
        assert_the_folder_of_wg_is_untouched();
        kill(Pid::from_raw(id.try_into().unwrap()), signal).unwrap();
        assert_eq!(demo.wait().unwrap().code(), Some(130), "{signal}");
        assert_nothing_is_left(id);
    }
}

/// In a /run of its own, where whatever is left is seen; interrupted once its daemons are up.
#[test]
fn a_demo_leaves_nothing_in_run() {
    if !may_run() {
        return;
    }
    // Not SIGINT: what a script has in the background ignores that.
    let script = "mount -t tmpfs -o mode=755 none /run
        \"$0\" demo >\"$1\" &
        turns=0; until grep -q 'tunnel up' \"$1\"; do turns=$((turns + 1)); [ $turns -lt 300 ] || break; sleep .1; done
        kill -TERM $!; wait $! || echo \"ended with $?\"
        find /run -mindepth 1";
    let said = tempfile::NamedTempFile::new().unwrap();
    let words = ["--mount", "--propagation", "private", "sh", "-ec", script, env!("CARGO_BIN_EXE_linkspan")];
    let shown = Command::new("unshare").args(words).arg(said.path()).output().unwrap();
    let said = fs::read_to_string(said.path()).unwrap();
    assert!(shown.status.success() && said.contains("tunnel up"), "{shown:?} {said}");
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "ended with 130\n", "and nothing is left");
}

#[test]
fn a_killed_demo_takes_its_daemons_along() {
    let Some(mut demo) = start() else { return };
    let id = demo.id();
    wait_for(&mut demo, "tunnel up");
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert_no_daemon_is_left(id);
    // The next demo would remove it.
    let _ = fs::remove_dir_all(format!("/run/linkspan-demo-{id}"));
    assert_nothing_is_left(id);
}
