//! What an admin does later, while traffic passes: reload, restart, another version.

use std::fs;
use std::time::Duration;

use crate::harness::stream::{PACED, Stream};
use crate::harness::{A, B, Net, seconds};
use crate::machine::Machine;
use crate::package::{NEXT, PACKAGES};
use crate::sites::{HOSTS, linked, networks, networks_reach_each_other};

/// For how long a restart may keep packets back, and for how long on a machine that is busy with something else: TCP
/// tries again after 0.2, 0.6, 1.4 and 3 s, the tunnel after 5 s.
const PAUSE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(4900));

/// From A's LAN to B's.
fn stream(net: &Net) -> Stream {
    Stream::start(net.lan(A), net.lan(B), HOSTS[B], PACED)
}

#[test]
fn a_reload_keeps_the_process_and_the_connection() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    let before = a.daemon();
    let stream = stream(&net);
    stream.lives(seconds(30));
    a.run("systemctl reload linkspan@wan0");
    stream.finish();
    assert_eq!(a.daemon(), before);
}

#[test]
fn restarts_with_more_and_with_fewer_workers_break_no_connection_and_keep_the_interface() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    a.run("sed -i '1i [interface]\\nworkers = 2\\n' /etc/linkspan/wan0.toml");
    let index = a.run("cat /sys/class/net/wan0/ifindex");
    let stream = stream(&net);
    let restarted = [2, 3, 1, 1].map(|workers| {
        a.run(&format!("sed -i 's/^workers = .*/workers = {workers}/' /etc/linkspan/wan0.toml"));
        let pause = has_hardly_paused(a, &stream, "systemctl restart linkspan@wan0");
        a.wait_up(seconds(30));
        assert_eq!(a.run("cat /sys/class/net/wan0/ifindex"), index, "it is the same interface");
        let stored = a.run("systemctl show --value -p NFileDescriptorStore linkspan@wan0");
        assert_eq!(stored.trim(), workers.to_string(), "every queue is stored once");
        pause
    });
    some_are_short(&restarted, || has_hardly_paused(a, &stream, "systemctl restart linkspan@wan0"));
    stream.finish();
}

#[test]
fn an_upgrade_restarts_what_runs_and_breaks_no_connection() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    let stream = stream(&net);
    let file = offer_next(a);
    let install = |option: &str| has_hardly_paused(a, &stream, &format!("apt install {option} ./{file} 2>&1"));
    let upgraded = ["", "--reinstall"].map(install);
    assert!(a.run("dpkg-query --show linkspan").contains(NEXT));
    let program = fs::read_link(format!("/proc/{}/exe", a.daemon().unwrap())).unwrap();
    assert!(!program.to_str().unwrap().contains("deleted"), "{}", program.display());
    some_are_short(&upgraded, || install("--reinstall"));
    stream.finish();
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
    // Nor what root alone may read.
    a.run("sed -i '$d' /etc/linkspan/wan0.toml; chmod 600 /etc/linkspan/wan0.toml");
    let said = a.run("apt install --reinstall ./linkspan_*next*.deb 2>&1");
    assert!(said.contains("wan0 still runs the old version"), "{said}");
    assert_eq!(a.daemon(), before);
    // And once the file is right, it is as any other.
    a.run("chmod 644 /etc/linkspan/wan0.toml; systemctl restart linkspan@wan0");
    a.wait_up(seconds(30));
}

/// Another process takes over by this command: for how long nothing arrived.
fn has_hardly_paused(machine: &Machine<'_>, stream: &Stream, command: &str) -> Duration {
    stream.longest_pause();
    let before = machine.daemon();
    machine.run(command);
    assert_ne!(machine.daemon(), before, "{command}");
    stream.longest_pause()
}

/// Most may have met a machine that was busy, and then there is one `more`; none waited for a timer of the tunnel's.
fn some_are_short(pauses: &[Duration], mut more: impl FnMut() -> Duration) {
    let mut pauses = pauses.to_vec();
    while pauses.iter().min() > Some(&PAUSE.0) && pauses.len() < 10 {
        pauses.push(more());
    }
    eprintln!("nothing arrived for {pauses:?}");
    assert!(pauses.iter().min() <= Some(&PAUSE.0) && pauses.iter().max() <= Some(&PAUSE.1), "{pauses:?}");
}

/// The package of the next version, in /root: its file's name.
fn offer_next(machine: &Machine<'_>) -> &'static str {
    let file = PACKAGES.next.file_name().unwrap().to_str().unwrap();
    fs::copy(&PACKAGES.next, machine.path("/root").join(file)).unwrap();
    file
}

/// To the next version: what that says.
fn upgrade(machine: &Machine<'_>) -> String {
    let file = offer_next(machine);
    let said = machine.run(&format!("apt install ./{file} 2>&1"));
    assert!(machine.run("dpkg-query --show linkspan").contains(NEXT));
    said
}
