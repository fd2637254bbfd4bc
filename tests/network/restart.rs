//! A restart by the service manager: the interface, its addresses and routes, and TCP connections live through it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::daemon::{Daemon, LINKSPAN};
use crate::harness::file::File;
use crate::harness::host::{Finished, finish};
use crate::harness::manager::Manager;
use crate::harness::paced::Paced;
use crate::harness::traffic::pings_pass;
use crate::harness::*;
use crate::life::stream;

/// What a restart may cost, and what on a machine that is busy with something else: none waits for a timer of 5 s.
const OUTAGE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(4500));

fn passes(net: &Net) {
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "3", "-i", "0.1", "-W", "2"]);
    pings_pass(net.lan(B), net.site(A).lan6(), &["-c", "3", "-i", "0.1", "-W", "2"]);
}

/// A's daemon under a manager, linked with B's.
fn linked<'n>(net: &'n Net, file: &File) -> (Manager, Daemon<'n>, Daemon<'n>) {
    let mut manager = Manager::new(&net.directory("manager"));
    let mut a = net.daemon(A, file);
    manager.start(&mut a);
    let b = net.start(B, &net.file(B, &[A]));
    manager.told("READY=1");
    a.wait_up();
    b.wait_up();
    (manager, a, b)
}

fn stop_and_start(manager: &mut Manager, a: &mut Daemon<'_>) {
    a.stop();
    // What it said last.
    manager.stored();
    manager.start(a);
}

fn index(net: &Net) -> String {
    net.gateway(A).ask("cat", &["/sys/class/net/ls0/ifindex"])
}

/// `linkspan forget ls0` in A's gateway, with a `systemctl` that lists this job; none = there is no systemctl.
fn forget(net: &Net, job: Option<&str>, result: &str) -> Finished {
    let folder = net.directory("bin");
    let _ = fs::remove_file(folder.join("systemctl"));
    if let Some(job) = job {
        fs::write(folder.join("systemctl"), format!("#!/bin/sh\necho {job}\n")).unwrap();
        fs::set_permissions(folder.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let arguments = ["forget", "ls0", "--unless-restarting", "linkspan@ls0.service"];
    let mut command = net.gateway(A).command(LINKSPAN, &arguments);
    // `ip` itself is found by the test's own path.
    let ip = Command::new("sh").args(["-c", "command -v ip"]).output().unwrap().stdout;
    let mut command_by_path = Command::new(String::from_utf8(ip).unwrap().trim());
    command_by_path.args(command.get_args());
    command = command_by_path;
    // The script's shell has its place, too; a systemctl of this machine has not.
    command.env("PATH", &folder).env("SERVICE_RESULT", result);
    finish(command, seconds(10))
}

/// The far end may have an endpoint or may have to be remembered: neither end waits for the other to notice.
fn restarts(net: &Net, file: &File) {
    let (mut manager, mut a, _b) = linked(net, file);
    let (before, first) = (net.gateway(A).footprint(), index(net));
    let stream = stream(net);
    let mut outages = Vec::new();
    // All may have met a machine that was busy, and then there is one more.
    while outages.len() < 3 || outages.len() < 10 && outages.iter().min() > Some(&OUTAGE.0) {
        stream.lives(seconds(10));
        outages.push(outage(net, &mut manager, &mut a));
        a.wait_up();
        stream.lives(seconds(10));
        assert_eq!((net.gateway(A).footprint(), index(net)), (before.clone(), first.clone()));
    }
    stream.finish();
    eprintln!("outages {outages:?}");
    assert!(outages.iter().min() <= Some(&OUTAGE.0) && outages.iter().max() <= Some(&OUTAGE.1), "{outages:?}");
}

/// A's daemon is stopped and started: for how long nothing arrives at its LAN.
fn outage(net: &Net, manager: &mut Manager, a: &mut Daemon<'_>) -> Duration {
    let before = net.gateway(A).footprint();
    let paced = Paced::start(net.lan(B), net.lan(A), net.site(A).lan4(), 1, 100);
    eventually(seconds(10), "the paced stream runs", || (paced.received() > 100).then_some(()));
    a.stop();
    assert_eq!(net.gateway(A).footprint(), before, "all of it stays");
    manager.stored();
    manager.start(a);
    let (arrived, since) = (paced.received(), Instant::now());
    eventually(seconds(10), "packets pass again", || (paced.received() > arrived + 100).then_some(()));
    eprintln!("passing {:?} after the start", since.elapsed());
    paced.finish().longest_gap
}

#[test]
fn a_restart_costs_a_moment_and_no_connection() {
    let Some(net) = Net::two_sites() else { return };
    restarts(&net, &net.file(A, &[B]));
}

#[test]
fn a_far_end_without_an_endpoint_is_found_again_where_it_was() {
    let Some(net) = Net::two_sites() else { return };
    restarts(&net, &net.file(A, &[B]).endpoint(None::<String>));
}

/// The first datagram already must not go into the tunnel.
#[test]
fn a_far_end_with_a_name_and_within_the_networks_is_found_again_too() {
    let Some(net) = Net::two_sites() else { return };
    net.gateway(A).etc_hosts(&format!("{} vpn-b.example.com\n", net.site(B).endpoint4().ip()));
    let mut file = net.file(A, &[B]).endpoint(Some("vpn-b.example.com:51820"));
    file.connections[0].networks.push("198.18.0.0/15".into());
    restarts(&net, &file);
}

#[test]
fn a_crash_leaves_the_interface_to_the_next_start() {
    let Some(net) = Net::two_sites() else { return };
    let (mut manager, mut a, _b) = linked(&net, &net.file(A, &[B]));
    let (before, first) = (net.gateway(A).footprint(), index(&net));
    let stream = stream(&net);
    stream.lives(seconds(10));
    a.kill();
    assert_eq!(net.gateway(A).footprint(), before);
    manager.stored();
    manager.start(&mut a);
    a.wait_up();
    stream.lives(seconds(10));
    assert_eq!((net.gateway(A).footprint(), index(&net)), (before, first));
    stream.finish();
}

#[test]
fn more_and_fewer_workers_than_before_read_every_queue() {
    let Some(net) = Net::two_sites() else { return };
    let with = |workers: usize| net.file(A, &[B]).with(&format!("workers = {workers}"));
    let (mut manager, mut a, _b) = linked(&net, &with(2));
    assert_eq!(manager.stored(), ["queue-0", "queue-1"]);
    let first = index(&net);
    for workers in [4, 1, 3] {
        a.write(&with(workers));
        stop_and_start(&mut manager, &mut a);
        manager.told("READY=1");
        a.wait_up();
        let names: Vec<String> = (0..workers).map(|number| format!("queue-{number}")).collect();
        eventually(seconds(5), "one stored queue for each worker", || (manager.stored() == names).then_some(()));
        assert_eq!(index(&net), first);
        // Each process of ping is another flow, and its packets come to some queue.
        for _ in 0..8 {
            pings_pass(net.gateway(A), net.site(B).lan4(), &["-c", "1", "-W", "2"]);
            passes(&net);
        }
    }
}

#[test]
fn what_the_file_says_now_is_made_of_the_interface_that_was_left() {
    let Some(net) = Net::two_sites() else { return };
    let old = net.file(A, &[B]).with("addresses = [\"169.254.12.1/30\", \"10.9.9.1/24\"]");
    let (mut manager, mut a, _b) = linked(&net, &old);
    let mut new = net.file(A, &[B]).with("mtu = 1380");
    new.connections[0].networks.push("10.77.0.0/16".into());
    a.write(&new);
    stop_and_start(&mut manager, &mut a);
    a.wait_up();
    let now = net.gateway(A).footprint();
    assert!(!now.contains("10.9.9.1") && now.contains("10.77.0.0/16 dev ls0"), "{now}");
    assert!(net.gateway(A).ask("ip", &["link", "show", "ls0"]).contains("mtu 1380"));
    passes(&net);
}

#[test]
fn what_is_no_queue_of_ours_is_closed_and_taken_out_of_the_store() {
    let Some(net) = Net::two_sites() else { return };
    let mut manager = Manager::new(&net.directory("manager"));
    manager.keep("queue-0", fs::File::open("/dev/null").unwrap().into());
    manager.keep("queue-7", fs::File::open("/dev/net/tun").unwrap().into());
    manager.keep("other", fs::File::open("/dev/null").unwrap().into());
    let mut a = net.daemon(A, &net.file(A, &[B]).with("workers = 2"));
    manager.start(&mut a);
    manager.told("READY=1");
    let b = net.start(B, &net.file(B, &[A]));
    a.wait_up();
    b.wait_up();
    assert_eq!(manager.stored(), ["queue-0", "queue-1"]);
    passes(&net);
    // Its interface is deleted while it is stopped: the next start makes another.
    a.stop();
    net.gateway(A).ip("link del ls0");
    manager.start(&mut a);
    a.wait_up();
    passes(&net);
}

#[test]
fn after_a_stop_for_good_nothing_is_left_and_before_a_start_all_is() {
    let Some(net) = Net::two_sites() else { return };
    let empty = net.gateway(A).footprint();
    let mut file = net.file(A, &[B]);
    // Rules, too.
    file.connections[0].networks.push("198.18.0.0/15".into());
    let (mut manager, mut a, _b) = linked(&net, &file);
    let full = net.gateway(A).footprint();
    a.stop();
    for (job, result, code) in [
        (Some("7 linkspan@ls0.service restart running"), "success", 0),
        (Some("8 linkspan@ls0.service start waiting"), "success", 0),
        (Some("9 linkspan@ls0.service stop running"), "watchdog", 0),
        (None, "success", 1),
    ] {
        let done = forget(&net, job, result);
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        assert_eq!(net.gateway(A).footprint(), full, "{job:?}");
    }
    let done = forget(&net, Some("9 linkspan@ls0.service stop running"), "success");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    manager.forget();
    eventually(seconds(5), "nothing is left", || (net.gateway(A).footprint() == empty).then_some(()));
}

/// Without a manager that keeps anything, too, a stop closes, and `forget` cleans up by hand.
#[test]
fn what_a_killed_daemon_left_is_forgotten_by_hand() {
    let Some(net) = Net::two_sites() else { return };
    let empty = net.gateway(A).footprint();
    let (mut a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    a.signal(Signal::SIGKILL);
    a.wait_exit(seconds(5));
    assert_ne!(net.gateway(A).footprint(), empty);
    let done = net.gateway(A).output(seconds(10), LINKSPAN, &["forget", "ls0"]);
    assert!(done.status.success() && done.stdout.contains("delete unreachable route 10.2.0.0/16"), "{done:?}");
    assert_eq!(net.gateway(A).footprint(), empty);
}
