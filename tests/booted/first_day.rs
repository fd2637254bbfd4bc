//! From nothing to a linked pair, and back to nothing.

use std::collections::BTreeSet;

use crate::harness::{A, B, eventually, seconds};
use crate::machine::{Machine, root_of};
use crate::sites::{boot, enable, install, link, networks, networks_reach_each_other, prepare};

fn first_day_on(debian: &str) {
    let (Some(net), Some(root)) = (networks(), root_of(debian)) else { return };
    let machines = boot(&net, &root);
    prepare(&machines);
    let commands = crate::readme::blocks("Two sites", "sh").concat();
    assert_eq!(commands.lines().count(), 3, "{commands}");
    let a = &machines[A];
    a.run(&enable());
    // It has said that it is ready, so it is.
    a.run("ip link show wan0 | grep -q ,UP; ip route get 10.20.0.2 | grep -q 'dev wan0'; ss -Hlun | grep -q :51820");
    assert!(a.run("wg show wan0").contains("listening port: 51820"));
    assert!(a.status().is_some());
    machines[B].run(&enable());
    networks_reach_each_other(&net);
    assert_eq!(a.output(&["linkspan", "status"]).status.code(), Some(0));
}

#[test]
fn three_commands_on_each_side_link_two_networks() {
    first_day_on("bookworm");
}

#[test]
#[ignore = "long: machines of Debian 13"]
fn three_commands_on_each_side_link_two_networks_on_debian_13() {
    first_day_on("trixie");
}

/// The public key, and at headquarters the endpoint, which this network knows by the example's name.
#[test]
fn the_examples_in_the_package_need_no_more_than_two_edits() {
    let Some(net) = networks() else { return };
    let machines = boot(&net, &root_of("bookworm").unwrap());
    let keys = machines.each_ref().map(install);
    for (site, far, example) in [(A, B, "on-premises"), (B, A, "vpc")] {
        machines[site].run(&format!(
            "sed 's|^public_key = .*|public_key = {:?}|' /usr/share/doc/linkspan/examples/{example}.toml >/etc/linkspan/wan0.toml
             {}",
            keys[far],
            enable()
        ));
    }
    networks_reach_each_other(&net);
}

#[test]
fn files_of_wg_quick_take_three_commands_too() {
    let Some(net) = networks() else { return };
    let machines = boot(&net, &root_of("bookworm").unwrap());
    let keys = machines.each_ref().map(|machine| {
        let private = machine.run("wg genkey");
        (machine.run(&format!("echo {} | wg pubkey", private.trim())), private)
    });
    let networks = ["192.168.0.0/24", "10.20.0.0/16"];
    for (site, far, inside, endpoint) in
        [(A, B, "10.77.0.2/24", "Endpoint = vpn.example.com:51820"), (B, A, "10.77.0.1/24", "")]
    {
        let conf = format!(
            "[Interface]\nPrivateKey = {}\nAddress = {inside}\nListenPort = 51820\n\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = {}\n{endpoint}\n",
            keys[site].1.trim(),
            keys[far].0.trim(),
            networks[far]
        );
        machines[site].write("/etc/wireguard/wg0.conf", &conf);
        let import = crate::readme::blocks("From wg-quick", "sh").concat();
        machines[site].run(&format!("apt install ./linkspan_*.deb\n{import}systemctl enable --now linkspan@wg0"));
    }
    networks_reach_each_other(&net);
}

#[test]
fn a_purge_leaves_nothing() {
    let Some(net) = networks() else { return };
    let machines = boot(&net, &root_of("bookworm").unwrap());
    let a = &machines[A];
    // Forwarding stays on until the next boot, and brings addresses of its own.
    net.gateway(A).sysctl("net/ipv6/conf/all/forwarding", "1");
    let before = (files(a), net.gateway(A).footprint());
    link(&machines);
    // The sealed key and its drop-in are part of what the README makes; others may be in the group, which it names.
    a.run(&crate::readme::block("The service", "sh"));
    a.wait_up(seconds(30));
    a.run("usermod --append --groups linkspan nobody; mkdir /etc/systemd/system/linkspan@wan0.socket.d");
    a.run("apt purge --yes linkspan");
    assert_eq!(net.gateway(A).footprint(), before.1);
    let after = files(a);
    let left: Vec<_> = after.difference(&before.0).filter(|file| !is_the_systems(file)).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert!(!a.output(&["getent", "passwd", "linkspan"]).status.success());
    assert!(!a.output(&["getent", "group", "linkspan"]).status.success());
    assert_eq!(a.run("systemctl list-units --all --plain --no-legend 'linkspan*'"), "");
}

#[test]
fn a_removal_keeps_the_configuration_and_an_installation_takes_it_up_again() {
    let Some(net) = networks() else { return };
    let machines = boot(&net, &root_of("bookworm").unwrap());
    link(&machines);
    let a = &machines[A];
    // One that failed has left its networks closed.
    a.run("echo nonsense >>/etc/linkspan/wan0.toml; ! systemctl restart linkspan@wan0");
    assert!(a.run("ip route show proto 76").contains("unreachable"));
    a.run("apt remove --yes linkspan");
    assert!(!a.output(&["ip", "link", "show", "wan0"]).status.success(), "nothing runs without its program");
    assert_eq!(a.run("ip route show proto 76; sed -i '$d' /etc/linkspan/wan0.toml"), "");
    a.run("test -s /etc/linkspan/wan0.key; test -s /etc/linkspan/wan0.toml; apt install ./linkspan_*.deb");
    a.run(&enable());
    a.wait_up(seconds(30));
    networks_reach_each_other(&net);
}

#[test]
fn without_a_key_the_journal_says_so_and_a_key_is_all_that_is_needed() {
    let Some(net) = networks() else { return };
    let machines = boot(&net, &root_of("bookworm").unwrap());
    prepare(&machines);
    let a = &machines[A];
    a.run("mv /etc/linkspan/wan0.key /root");
    assert!(!a.output(&["sh", "-c", &enable()]).status.success());
    a.journal_tells("Failed to set up credentials");
    a.run("mv /root/wan0.key /etc/linkspan");
    // Nobody has to start it: the service manager tries again each second.
    eventually(seconds(10), "it runs", || (a.property("ActiveState") == "active").then_some(()));
}

/// Every path of the machine but those of the kernel.
fn files(machine: &Machine<'_>) -> BTreeSet<String> {
    let all = machine.run("find / /run -ignore_readdir_race -xdev -not -path '/proc*' -not -path '/sys*'");
    all.lines().map(str::to_owned).collect()
}

/// What the package manager, systemd and others of the machine write for themselves.
fn is_the_systems(file: &str) -> bool {
    let theirs = ["/var/lib/dpkg/", "/var/cache/", "/var/log/", "/var/lib/apt/", "/var/backups/", "/root/", "/tmp/"];
    let host_key = "/var/lib/systemd/credential.secret";
    // The copies that are made of the lists of users, before each change.
    let copies = ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock"];
    let is_ours = ["linkspan", "wireguard", "wan0"].iter().any(|word| file.contains(word));
    let is_of_a_run = file.starts_with("/run/") && !is_ours;
    is_of_a_run || theirs.iter().any(|folder| file.starts_with(folder)) || copies.contains(&file) || file == host_key
}
