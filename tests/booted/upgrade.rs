//! What an admin does later, while traffic passes: reload, restart, another version.

use std::fs;
use std::time::Duration;

use crate::harness::{A, seconds};
use crate::machine::Machine;
use crate::package::{NEXT, PACKAGES};
use crate::sites::{linked, networks, networks_reach_each_other};
use crate::stream::Stream;

/// For how long at the most nothing may arrive, on a busy machine.
const LONGEST: Duration = Duration::from_secs(2);

#[test]
fn a_reload_and_a_restart_break_no_connection() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    let before = a.daemon();
    let stream = Stream::start(&net);
    stream.lives();
    a.run("systemctl reload linkspan@wan0");
    stream.lives();
    assert_eq!(a.daemon(), before);
    a.run("systemctl restart linkspan@wan0");
    assert_ne!(a.daemon(), before);
    has_hardly_paused(stream);
}

#[test]
fn an_upgrade_restarts_what_runs_and_breaks_no_connection() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    let before = a.daemon();
    let stream = Stream::start(&net);
    stream.lives();
    upgrade(a);
    has_hardly_paused(stream);
    assert_ne!(a.daemon(), before);
    let program = fs::read_link(format!("/proc/{}/exe", a.daemon().unwrap())).unwrap();
    assert!(!program.to_str().unwrap().contains("deleted"), "{}", program.display());
}

#[test]
fn an_upgrade_leaves_running_what_the_new_version_would_refuse() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    let before = a.daemon();
    a.run("echo 'nonsense = true' >>/etc/linkspan/wan0.toml");
    let said = upgrade(a);
    assert!(said.contains("wan0 still runs the old version"), "{said}");
    assert_eq!(a.daemon(), before);
    networks_reach_each_other(&net);
    // And once the file is right, it is as any other.
    a.run("sed -i '$d' /etc/linkspan/wan0.toml; systemctl restart linkspan@wan0");
    a.wait_up(seconds(30));
}

fn has_hardly_paused(stream: Stream) {
    let longest = stream.finish();
    eprintln!("nothing arrived for {longest:?}");
    assert!(longest <= LONGEST, "{longest:?}");
}

/// To the next version: what that says.
fn upgrade(machine: &Machine<'_>) -> String {
    let file = PACKAGES.next.file_name().unwrap().to_str().unwrap();
    fs::copy(&PACKAGES.next, machine.path("/root").join(file)).unwrap();
    let said = machine.run(&format!("apt install ./{file} 2>&1"));
    assert!(machine.run("dpkg-query --show linkspan").contains(NEXT));
    said
}
