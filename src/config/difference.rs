//! What two configurations of one interface differ in, in words: a line for each thing, as `diff` marks them.

use std::fmt::Display;

use super::model::{Config, Connection, FailClosed, Interface, RouteSource, Startup, Tunnel};

/// From one configuration to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// What is added (`+`), removed (`-`) or other than before (`~`), in the order of the file.
    pub changes: Vec<String>,
    /// Those of it that a running daemon cannot take over.
    pub needs_restart: Vec<String>,
}

impl Difference {
    /// From `old` to `new`.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut needs_restart = Lines::new("interface");
        needs_restart.value("offload", old.interface.offload, new.interface.offload);
        needs_restart.value("workers", old.interface.workers, new.interface.workers);
        needs_restart.value("metrics", or("none", old.interface.metrics), or("none", new.interface.metrics));
        let mut changes = interface(&old.interface, &new.interface);
        changes.extend(needs_restart.all.iter().cloned());
        for connection in &new.connections {
            match counterpart(connection, old) {
                Some(before) => changes.extend(both(before, connection)),
                None => changes.push(format!("+ {}", whole(connection))),
            }
        }
        let gone = |before: &&Connection| {
            !new.connections.iter().any(|now| counterpart(now, old).is_some_and(|other| std::ptr::eq(other, *before)))
        };
        changes.extend(old.connections.iter().filter(gone).map(|before| format!("- {}", whole(before))));
        Self { changes, needs_restart: needs_restart.all }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What `connection` was before: the one with a far machine of it, else the one of its name.
fn counterpart<'o>(connection: &Connection, old: &'o Config) -> Option<&'o Connection> {
    let shares = |before: &&Connection| {
        let is_in = |tunnel: &Tunnel| before.tunnels.iter().any(|other| other.public_key == tunnel.public_key);
        connection.tunnels.iter().any(is_in)
    };
    let named = |before: &&Connection| before.name == connection.name;
    old.connections.iter().find(shares).or_else(|| old.connections.iter().find(named))
}

fn whole(connection: &Connection) -> String {
    format!("connection {}: {}", connection.name, words(&connection.networks, ", "))
}

fn interface(old: &Interface, new: &Interface) -> Vec<String> {
    let mut lines = Lines::new("interface");
    lines.value("private_key_file", old.private_key_file.display(), new.private_key_file.display());
    lines.value("listen_port", old.listen_port, new.listen_port);
    lines.list("addresses", &old.addresses, &new.addresses);
    lines.value("mtu", or("auto", old.mtu), or("auto", new.mtu));
    lines.value("fwmark", old.fwmark, new.fwmark);
    lines.all
}

fn both(old: &Connection, new: &Connection) -> Vec<String> {
    let mut lines = Lines::new(format!("connection {}", new.name));
    lines.value("name", &old.name, &new.name);
    lines.list("networks", &old.networks, &new.networks);
    lines.list("local_networks", &old.local_networks, &new.local_networks);
    lines.value("routes", old.routes, new.routes);
    lines.value("table", old.table, new.table);
    lines.value("metric", old.metric, new.metric);
    lines.value("route_source", source(old.route_source), source(new.route_source));
    lines.value("when_down", when_down(old.when_down), when_down(new.when_down));
    lines.value("startup_action", startup(old.startup), startup(new.startup));
    let mut all = lines.all;
    for (at, tunnel) in new.tunnels.iter().enumerate() {
        let before = old.tunnels.iter().find(|other| other.public_key == tunnel.public_key);
        match before.or_else(|| old.tunnels.get(at)) {
            Some(before) => all.extend(tunnels(&new.name, before, tunnel)),
            None => all.push(format!("+ connection {}, tunnel {}: {}", new.name, tunnel.name, tunnel.public_key)),
        }
    }
    all
}

fn tunnels(connection: &str, old: &Tunnel, new: &Tunnel) -> Vec<String> {
    let file = |tunnel: &Tunnel| or("none", tunnel.preshared_key_file.as_ref().map(|path| path.display()));
    let inside = |tunnel: &Tunnel| or("none", tunnel.inside.map(|inside| inside.local));
    let keepalive = |tunnel: &Tunnel| or("off", tunnel.keepalive.map(|every| format!("{} s", every.as_secs())));
    let mut lines = Lines::new(format!("connection {connection}, tunnel {}", new.name));
    lines.value("name", &old.name, &new.name);
    lines.value("public_key", old.public_key, new.public_key);
    lines.value("endpoint", or("none", old.endpoint.as_ref()), or("none", new.endpoint.as_ref()));
    lines.value("preshared_key_file", file(old), file(new));
    lines.value("inside", inside(old), inside(new));
    lines.value("persistent_keepalive", keepalive(old), keepalive(new));
    lines.all
}

/// What is other than before in one place of the file.
struct Lines {
    place: String,
    all: Vec<String>,
}

impl Lines {
    fn new(place: impl Into<String>) -> Self {
        Self { place: place.into(), all: Vec::new() }
    }

    fn value(&mut self, key: &str, old: impl Display, new: impl Display) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            self.all.push(format!("~ {}: {key} {old} -> {new}", self.place));
        }
    }

    /// The order counts for nothing.
    fn list<T: Display + PartialEq>(&mut self, key: &str, old: &[T], new: &[T]) {
        let more = new.iter().filter(|one| !old.contains(one)).map(|one| format!("+ {one}"));
        let fewer = old.iter().filter(|one| !new.contains(one)).map(|one| format!("- {one}"));
        let all: Vec<String> = more.chain(fewer).collect();
        if !all.is_empty() {
            self.all.push(format!("~ {}: {key} {}", self.place, all.join(", ")));
        }
    }
}

fn or(none: &str, value: Option<impl Display>) -> String {
    value.map_or_else(|| none.to_owned(), |value| value.to_string())
}

fn words<T: ToString>(all: &[T], between: &str) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

fn source(source: RouteSource) -> String {
    match source {
        RouteSource::Auto => "auto".to_owned(),
        RouteSource::None => "none".to_owned(),
        RouteSource::Address(address) => address.to_string(),
    }
}

const fn when_down(closed: FailClosed) -> &'static str {
    match closed {
        FailClosed::Unreachable => "unreachable",
        FailClosed::Withdraw => "withdraw",
    }
}

const fn startup(startup: Startup) -> &'static str {
    match startup {
        Startup::Start => "start",
        Startup::Add => "add",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const VPC: &str = "[[connection]]\nname = \"vpc\"\nnetworks = [\"10.20.0.0/16\"]\n[[connection.tunnel]]\n\
                       public_key = \"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\"\nendpoint = \"192.0.2.1:51820\"\n";
    const LAB: &str = "[[connection]]\nname = \"lab\"\nnetworks = [\"10.30.0.0/16\"]\n[[connection.tunnel]]\n\
                       public_key = \"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\"\n";

    fn config(parts: &[&str]) -> Config {
        parse(&parts.concat(), "wan0.toml", "wan0").unwrap()
    }

    fn changes(old: &[&str], new: &[&str]) -> Vec<String> {
        Difference::between(&config(old), &config(new)).changes
    }

    #[test]
    fn what_is_the_same_has_no_difference_whatever_the_order_and_the_comments() {
        assert!(Difference::between(&config(&[VPC]), &config(&["# other\n", VPC])).is_empty());
        assert!(changes(&[VPC, LAB], &[LAB, VPC]).is_empty());
    }

    #[test]
    fn connections_come_and_go() {
        assert_eq!(changes(&[VPC], &[LAB]), ["+ connection lab: 10.30.0.0/16", "- connection vpc: 10.20.0.0/16"]);
    }

    #[test]
    fn a_far_machine_is_known_by_its_key_under_another_name() {
        let renamed = VPC.replace("\"vpc\"", "\"cloud\"");
        assert_eq!(changes(&[VPC], &[&renamed]), ["~ connection cloud: name vpc -> cloud"]);
    }

    #[test]
    fn each_key_has_a_line_and_lists_name_what_came_and_went() {
        let interface = "[interface]\nlisten_port = 51821\nmtu = 1380\nfwmark = 7\naddresses = [\"10.9.0.1/24\"]\n";
        let vpc = VPC.replace("10.20.0.0/16", "10.21.0.0/16").replace("192.0.2.1:51820", "vpn.example.com:1");
        let vpc = vpc.replace("[[connection.tunnel]]", "metric = 60\nstartup_action = \"add\"\n[[connection.tunnel]]");
        let expected = [
            "~ interface: listen_port 51820 -> 51821",
            "~ interface: addresses + 10.9.0.1/24",
            "~ interface: mtu auto -> 1380",
            "~ interface: fwmark 0 -> 7",
            "~ connection vpc: networks + 10.21.0.0/16, - 10.20.0.0/16",
            "~ connection vpc: metric 50 -> 60",
            "~ connection vpc: startup_action start -> add",
            "~ connection vpc, tunnel 1: endpoint 192.0.2.1:51820 -> vpn.example.com:1",
            "~ connection vpc, tunnel 1: persistent_keepalive 10 s -> off",
        ];
        let keepalive = "persistent_keepalive = \"off\"\n";
        assert_eq!(changes(&[VPC], &[interface, &vpc, keepalive]), expected);
    }

    #[test]
    fn what_only_a_restart_changes_is_named_apart() {
        let difference = Difference::between(&config(&[VPC]), &config(&["[interface]\nworkers = 3\n", VPC]));
        assert_eq!(difference.needs_restart, ["~ interface: workers 0 -> 3"]);
        assert_eq!(difference.changes, difference.needs_restart);
    }
}
