//! What the whole file claims, so that two lines which cannot both be right are found.

use std::collections::HashMap;

use ipnet::IpNet;
use toml::Spanned;

use super::model::Inside;
use super::problem::Wrong;
use super::report::Report;
use crate::tunnel::key::PublicKey;

/// Names, keys and networks by the line on which they were first seen.
#[derive(Default)]
pub(super) struct Ledger {
    names: HashMap<String, usize>,
    keys: HashMap<PublicKey, usize>,
    networks: HashMap<IpNet, usize>,
    local_networks: HashMap<IpNet, usize>,
    inside_networks: HashMap<IpNet, usize>,
    network_list: Vec<Spanned<IpNet>>,
    inside_list: Vec<(Inside, usize)>,
    addresses: Vec<Spanned<IpNet>>,
}

impl Ledger {
    pub(super) fn connection_name(&mut self, report: &mut Report<'_>, name: &Spanned<String>) {
        let line = report.line(name.span().start);
        let first = *self.names.entry(name.get_ref().clone()).or_insert(line);
        if first != line {
            let what = format!("{:?} is the name of the connection of line {first}, too", name.get_ref());
            report.value(name.span(), "name", &Wrong::new(what, "give each connection a name of its own"));
        }
    }

    pub(super) fn public_key(&mut self, report: &mut Report<'_>, key: &Spanned<PublicKey>) {
        let line = report.line(key.span().start);
        let first = *self.keys.entry(*key.get_ref()).or_insert(line);
        if first != line {
            let wrong = Wrong::new(
                format!("line {first} has the same key, and a key is one far machine"),
                "make a key for each far machine, or put the networks of both into one connection",
            );
            report.value(key.span(), "public_key", &wrong);
        }
    }

    pub(super) fn networks(&mut self, report: &mut Report<'_>, networks: &[Spanned<IpNet>]) {
        for network in networks {
            let remedy = "a network is behind one far end: remove it here or there";
            claim(report, &mut self.networks, network, "networks", remedy);
        }
        self.network_list.extend_from_slice(networks);
    }

    /// Several connections may have the same network behind this end; one of them names it once.
    pub(super) fn local_networks(&mut self, report: &mut Report<'_>, networks: &[Spanned<IpNet>]) {
        let mut own = HashMap::new();
        for network in networks {
            claim(report, &mut own, network, "local_networks", "remove one of the two");
        }
        for (network, line) in own {
            self.local_networks.entry(network).or_insert(line);
        }
    }

    pub(super) fn inside(&mut self, report: &mut Report<'_>, network: &Spanned<IpNet>, inside: Inside) {
        let remedy = "give each tunnel four addresses of its own, as \"169.254.77.4/30\"";
        claim(report, &mut self.inside_networks, network, "inside_cidr", remedy);
        self.inside_list.push((inside, report.line(network.span().start)));
    }

    pub(super) fn interface_addresses(&mut self, report: &mut Report<'_>, addresses: Vec<Spanned<IpNet>>) {
        let mut own = HashMap::new();
        for address in &addresses {
            claim(report, &mut own, address, "addresses", "remove one of the two");
        }
        self.addresses = addresses;
    }

    /// This end of each inside network.
    pub(super) fn inside_addresses(&self) -> Vec<IpNet> {
        self.inside_list.iter().map(|(inside, _)| inside.local).collect()
    }

    /// What can only be compared once all of the file has been read.
    pub(super) fn check(&self, report: &mut Report<'_>) {
        for network in &self.network_list {
            if let Err(wrong) = self.check_network(network.get_ref()) {
                report.value(network.span(), "networks", &wrong);
            }
        }
        for (inside, line) in &self.inside_list {
            self.check_addresses(report, inside, *line);
        }
    }

    /// A network within another is fine, because the longest prefix wins; the same one at both ends is not.
    fn check_network(&self, network: &IpNet) -> Result<(), Wrong> {
        if let Some(line) = self.local_networks.get(network) {
            let what = format!("{network} is behind this end, too, by local_networks of line {line}");
            return Err(Wrong::new(what, "a network is behind one end: remove it here or there"));
        }
        let inside = network.max_prefix_len().checked_sub(2).filter(|length| network.prefix_len() >= *length);
        let around = inside.and_then(|length| IpNet::new(network.addr(), length).ok()).map(|net| net.trunc());
        match around.and_then(|net| self.inside_networks.get(&net)) {
            Some(line) => Err(Wrong::new(
                format!("{network} is inside the tunnel, by inside_cidr of line {line}"),
                "remove it: the far inside address is reached anyway",
            )),
            None => Ok(()),
        }
    }

    /// `addresses`, where given, holds this end of each inside network and no far end.
    fn check_addresses(&self, report: &mut Report<'_>, inside: &Inside, line: usize) {
        let Some(first) = self.addresses.first() else { return };
        let local = inside.local.addr();
        for address in self.addresses.iter().filter(|address| address.get_ref().addr() == inside.remote) {
            let what = format!("{} is the far end, by inside_cidr of line {line}", inside.remote);
            let remedy = format!("write \"{}\", or inside = the other end", inside.local);
            report.value(address.span(), "addresses", &Wrong::new(what, remedy));
        }
        if !self.addresses.iter().any(|address| [local, inside.remote].contains(&address.get_ref().addr())) {
            let what = format!("{} is missing, this end by inside_cidr of line {line}", inside.local);
            let remedy = "add it; or remove `addresses`, whose default it is";
            report.shape(first.span(), "addresses", &Wrong::new(what, remedy));
        }
    }
}

/// Notes that `network` was on an earlier line, or earlier on its line.
fn claim(report: &mut Report<'_>, seen: &mut HashMap<IpNet, usize>, network: &Spanned<IpNet>, key: &str, remedy: &str) {
    let line = report.line(network.span().start);
    if let Some(first) = seen.insert(*network.get_ref(), line) {
        seen.insert(*network.get_ref(), first);
        let what = format!("{} is on line {first} already", network.get_ref());
        report.value(network.span(), key, &Wrong::new(what, remedy));
    }
}
