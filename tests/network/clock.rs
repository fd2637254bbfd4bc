//! A wall clock that is wrong: libfaketime gives one daemon another than the machine has, and steps it while it runs.

use std::fs;
use std::path::PathBuf;

use crate::harness::daemon::Daemon;
use crate::harness::file::File;
use crate::harness::net::Links;
use crate::harness::traffic::pings_pass;
use crate::harness::*;

const BEHIND: &str = "behind what far ends have seen";

/// A clock that one daemon sees.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(net: &Net) -> Self {
        let place = |folder: fs::DirEntry| folder.path().join("faketime/libfaketimeMT.so.1");
        let libraries = fs::read_dir("/usr/lib").unwrap().flatten().map(place);
        let library = libraries.into_iter().find(|library| library.exists()).expect("libfaketime is installed");
        let clock = Self { library, file: net.directory("clock").join("step") };
        clock.step("+0");
        clock
    }

    /// So far from the machine's clock, from now on: "-1d".
    fn step(&self, by: &str) {
        fs::write(&self.file, format!("{by}\n")).unwrap();
    }

    fn start(&self, daemon: &mut Daemon<'_>) {
        let mut command = daemon.command(&[]);
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        daemon.start_by(command);
    }
}

/// B's file: it waits for A.
fn waiting(net: &Net) -> File {
    let mut file = net.file(B, &[A]).endpoint(None::<String>);
    file.connections[0].connection.push("startup_action = \"add\"".into());
    file
}

fn passes(net: &Net) {
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
}

fn is_named(a: &Daemon<'_>) {
    let named = || a.status().filter(|status| status.warnings().contains(BEHIND));
    eventually(seconds(20), "the status names it", named);
    assert!(a.log().contains(BEHIND), "{}", a.log());
}

#[test]
fn a_start_with_the_clock_a_day_back_is_named_and_repaired_once_the_clock_is_right() {
    let Some(net) = Net::two_sites() else { return };
    let clock = Clock::new(&net);
    let mut a = net.daemon(A, &net.file(A, &[B]));
    clock.start(&mut a);
    let b = net.start(B, &waiting(&net));
    a.wait_up();
    b.wait_up();
    a.stop();
    clock.step("-1d");
    clock.start(&mut a);
    is_named(&a);
    clock.step("+0");
    let status = a.wait_up_within(seconds(10));
    assert!(!status.warnings().contains(BEHIND), "{}", status.warnings());
    passes(&net);
}

#[test]
fn a_clock_that_is_set_back_while_the_daemon_runs_harms_nothing() {
    let Some(net) = Net::two_sites() else { return };
    let clock = Clock::new(&net);
    let mut a = net.daemon(A, &net.file(A, &[B]));
    clock.start(&mut a);
    let _b = net.start(B, &waiting(&net));
    a.wait_up();
    clock.step("-1h");
    passes(&net);
    // No handshake begins by this.
    a.write(&net.file(A, &[B]).with("mtu = 1380"));
    assert!(a.reload().status.success());
    // It has looked at the clock since then, more than once.
    let uptime = a.state().uptime();
    eventually(seconds(10), "some looks", || a.status().filter(|status| status.uptime() > uptime + 4));
    assert!(!a.state().warnings().contains(BEHIND));
    passes(&net);
}

/// A far machine that is removed and added again has seen what was sent before the clock was set back.
#[test]
fn a_handshake_that_a_reload_begins_after_a_step_back_is_named_too() {
    let Some(net) = Net::new(3, Links::default()) else { return };
    let clock = Clock::new(&net);
    let (with, without) = (net.file(A, &[C, B]), net.file(A, &[C]));
    let mut a = net.daemon(A, &with);
    clock.start(&mut a);
    let _b = net.start(B, &waiting(&net));
    a.wait("B is up", |status| status.connection_is_up(1));
    a.write(&without);
    assert!(a.reload().status.success());
    clock.step("-1h");
    a.write(&with);
    assert!(a.reload().status.success());
    is_named(&a);
    clock.step("+0");
    eventually(seconds(10), "B is up again", || a.status().filter(|status| status.connection_is_up(1)));
    a.wait("nothing is wrong", |status| !status.warnings().contains(BEHIND));
    passes(&net);
}
