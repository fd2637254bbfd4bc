//! One daemon's state as text: what an admin reads at a glance first, then what explains it.

use std::fmt::Write as _;

use super::super::units;
use crate::control::status::{Connection, Status, Tunnel};

const HEADINGS: [&str; 8] = ["CONNECTION", "TUNNEL", "STATE", "ENDPOINT", "HANDSHAKE", "HEARD", "SENT", "RECEIVED"];

/// The whole text, several lines, each ended.
pub(in crate::cli) fn render(status: &Status) -> String {
    let mut text = heading(status);
    text.push_str(&columns(&rows(&status.connections)));
    for connection in &status.connections {
        let _ = writeln!(text, "  {}: {}", connection.name, connection.networks.join(", "));
    }
    for drop in &status.drops {
        let plural = if drop.packets == 1 { "packet" } else { "packets" };
        let _ = writeln!(text, "  dropped {} {plural}: {}", drop.packets, drop.sentence);
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "  warning: {warning}");
    }
    text
}

fn heading(status: &Status) -> String {
    let interface = &status.interface;
    format!(
        "{}: {}; running for {}, port {}, MTU {}, workers {}, offloads {}\n  public key {}\n",
        interface.name,
        status.state.word(),
        units::seconds(status.uptime_s),
        interface.port,
        interface.mtu,
        interface.workers,
        interface.offloads,
        interface.public_key,
    )
}

fn rows(connections: &[Connection]) -> Vec<[String; 8]> {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    for connection in connections {
        rows.extend(connection.tunnels.iter().map(|tunnel| row(&connection.name, tunnel)));
    }
    rows
}

fn row(connection: &str, tunnel: &Tunnel) -> [String; 8] {
    [
        connection.to_owned(),
        tunnel.name.clone(),
        format!("{} {}", tunnel.state.word(), units::seconds(tunnel.since_s)),
        endpoint(tunnel),
        ago(tunnel.last_handshake_s),
        ago(tunnel.last_receive_s),
        units::bytes(tunnel.sent.bytes),
        units::bytes(tunnel.received.bytes),
    ]
}

/// Where the far end is; what the file says, in parentheses, until that is known.
fn endpoint(tunnel: &Tunnel) -> String {
    match (&tunnel.endpoint, &tunnel.configured_endpoint) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(configured)) => format!("({configured})"),
        (None, None) => "(it comes to us)".to_owned(),
    }
}

fn ago(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", units::seconds(seconds)))
}

/// The rows, each cell as wide as the widest of its column, the last column as it is.
fn columns(rows: &[[String; 8]]) -> String {
    let mut widths = [0; 8];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "  {cell:width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{Drop, Interface, State, Traffic};

    fn tunnel() -> Tunnel {
        Tunnel {
            name: "az-a".into(),
            public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".into(),
            state: State::Up,
            since: "2026-01-01T00:00:00Z".into(),
            since_s: 8000,
            endpoint: Some("198.51.100.7:51820".into()),
            configured_endpoint: Some("vpn.example.com:51820".into()),
            last_handshake_s: Some(73),
            last_receive_s: Some(2),
            mtu: 1420,
            sent: Traffic { packets: 9, bytes: 1 << 30 },
            received: Traffic { packets: 1, bytes: 96 },
        }
    }

    fn status() -> Status {
        let dark = Tunnel {
            name: "1".into(),
            state: State::Down,
            since_s: 5,
            endpoint: None,
            last_handshake_s: None,
            last_receive_s: None,
            sent: Traffic::default(),
            received: Traffic::default(),
            ..tunnel()
        };
        let connection = |name: &str, network: &str, tunnel: Tunnel| Connection {
            name: name.into(),
            networks: vec![network.into()],
            state: tunnel.state,
            tunnels: vec![tunnel],
        };
        Status {
            version: "0.1.0".into(),
            interface: Interface {
                name: "wan0".into(),
                index: 7,
                mtu: 1420,
                port: 51820,
                offloads: "tcp+udp".into(),
                public_key: "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=".into(),
                workers: 4,
            },
            uptime_s: 8040,
            state: State::Degraded,
            connections: vec![
                connection("production", "10.20.0.0/16", tunnel()),
                connection("lab", "fd00:20::/48", dark),
            ],
            drops: vec![Drop { reason: "out_no_session".into(), packets: 1, sentence: "no session came up".into() }],
            warnings: vec!["the clock went back by 1 h".into()],
        }
    }

    #[test]
    fn the_table_is_read_at_a_glance() {
        let expected = "\
wan0: degraded; running for 2 h 14 min, port 51820, MTU 1420, workers 4, offloads tcp+udp
  public key 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=
  CONNECTION  TUNNEL  STATE          ENDPOINT                 HANDSHAKE       HEARD    SENT     RECEIVED
  production  az-a    up 2 h 13 min  198.51.100.7:51820       1 min 13 s ago  2 s ago  1.0 GiB  96 B
  lab         1       down 5 s       (vpn.example.com:51820)  never           never    0 B      0 B
  production: 10.20.0.0/16
  lab: fd00:20::/48
  dropped 1 packet: no session came up
  warning: the clock went back by 1 h
";
        assert_eq!(render(&status()), expected);
    }

    #[test]
    fn a_far_end_that_has_not_come_yet_is_said_to_come() {
        let tunnel = Tunnel { endpoint: None, configured_endpoint: None, ..tunnel() };
        assert_eq!(endpoint(&tunnel), "(it comes to us)");
    }
}
