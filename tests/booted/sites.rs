//! Two machines, from nothing to a linked pair by the README's section "Two sites".

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::harness::traffic::ping;
use crate::harness::{A, B, Net, eventually, seconds};
use crate::machine::{Machine, root_of};
use crate::package::PACKAGES;
use crate::readme::blocks;

/// A host behind headquarters, which is A, and one behind the VPC's gateway, B.
pub const HOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(192, 168, 0, 2)), IpAddr::V4(Ipv4Addr::new(10, 20, 0, 2))];
const GATEWAYS: [&str; 2] = ["192.168.0.1/24", "10.20.0.1/16"];
const LENGTHS: [u8; 2] = [24, 16];

/// The networks of the README; none where no machine can be booted.
pub fn networks() -> Option<Net> {
    root_of("bookworm")?;
    let net = Net::two_sites()?;
    for site in [A, B] {
        let (host, length) = (HOSTS[site], LENGTHS[site]);
        net.gateway(site).ip(&format!("address add {} dev lan\n", GATEWAYS[site]));
        let gateway = GATEWAYS[site].split('/').next().unwrap();
        net.lan(site).ip(&format!("address add {host}/{length} dev lan\nroute replace default via {gateway}\n"));
        // Forwarding is the package's to switch on.
        net.gateway(site).sysctl("net/ipv4/ip_forward", "0");
        net.gateway(site).sysctl("net/ipv6/conf/all/forwarding", "0");
    }
    Some(net)
}

/// Both machines, with the package in /root and the far end's name in /etc/hosts.
pub fn boot<'n>(net: &'n Net, root: &Path) -> [Machine<'n>; 2] {
    [A, B].map(|site| {
        let machine = Machine::boot(net, net.gateway(site), root);
        let deb = &PACKAGES.first;
        fs::copy(deb, machine.path("/root").join(deb.file_name().unwrap())).unwrap();
        machine
            .write("/etc/hosts", &format!("127.0.0.1 localhost\n{} vpn.example.com\n", net.site(B).endpoint4().ip()));
        machine
    })
}

/// The README's three commands on each, and its two files.
pub fn link(machines: &[Machine<'_>; 2]) {
    prepare(machines);
    for machine in machines {
        machine.run(&enable());
    }
    for machine in machines {
        machine.wait_up(seconds(30));
    }
}

/// All of it but the start.
pub fn prepare(machines: &[Machine<'_>; 2]) {
    let keys = machines.each_ref().map(install);
    let files = blocks("Two sites", "toml");
    for (site, far) in [(A, B), (B, A)] {
        assert_eq!(files[site].matches("\"...\"").count(), 1);
        machines[site].write("/etc/linkspan/wan0.toml", &files[site].replace("\"...\"", &format!("{:?}", keys[far])));
    }
}

/// The README's first two commands: the public key.
pub fn install(machine: &Machine<'_>) -> String {
    machine.run(&blocks("Two sites", "sh")[0]).lines().last().unwrap().to_owned()
}

pub fn enable() -> String {
    blocks("Two sites", "sh")[1].clone()
}

/// From LAN to LAN and back, within 20 s.
pub fn networks_reach_each_other(net: &Net) {
    for (from, to) in [(A, B), (B, A)] {
        eventually(seconds(20), "the far network answers", || {
            let (pings, _) = ping(net.lan(from), HOSTS[to], &["-c", "1", "-W", "1"]);
            (pings.received == 1).then_some(())
        });
    }
}

/// Two booted machines that are linked.
pub fn linked(net: &Net) -> [Machine<'_>; 2] {
    let machines = boot(net, &root_of("bookworm").unwrap());
    link(&machines);
    machines
}
