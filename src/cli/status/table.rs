//! One daemon's state as text: what an admin reads at a glance first, then what explains it.

use std::fmt::Write as _;

use super::super::units;
use crate::control::status::{Connection, Status, Traffic, Tunnel};

/// What a tunnel's two small graphs show; empty = none.
pub(super) type Graphs = [String; 2];

/// The whole text, several lines, each ended.
pub(in crate::cli) fn render(status: &Status) -> String {
    render_with(status, |_, _| Graphs::default())
}

/// The same, with graphs beside the rates, by the names of connection and tunnel.
pub(super) fn render_with(status: &Status, graphs: impl Fn(&str, &str) -> Graphs) -> String {
    let mut text = heading(status);
    text.push_str(&columns(&states(&status.connections)));
    text.push('\n');
    text.push_str(&columns(&traffic(&status.connections, graphs)));
    text.push('\n');
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
        "{}: {}; running for {}, port {}, MTU {}, workers {}, offloads {}\n  public key {}\n\n",
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

/// Which tunnel is in what state, and where.
fn states(connections: &[Connection]) -> Vec<[String; 7]> {
    let headings = ["CONNECTION", "TUNNEL", "STATE", "ENDPOINT", "MTU", "HANDSHAKE", "HEARD"].map(str::to_owned);
    let row = |(connection, tunnel): (&str, &Tunnel)| {
        [
            connection.to_owned(),
            tunnel.name.clone(),
            format!("{} {}", tunnel.state.word(), units::seconds(tunnel.since_s)),
            endpoint(tunnel),
            tunnel.mtu.to_string(),
            ago(tunnel.last_handshake_s),
            ago(tunnel.last_receive_s),
        ]
    };
    [headings].into_iter().chain(tunnels(connections).map(row)).collect()
}

/// What goes through it: of late, and since the start.
fn traffic(connections: &[Connection], graphs: impl Fn(&str, &str) -> Graphs) -> Vec<[String; 8]> {
    let headings = ["CONNECTION", "TUNNEL", "OUT", "", "IN", "", "SENT", "RECEIVED"].map(str::to_owned);
    let row = |(connection, tunnel): (&str, &Tunnel)| {
        let [out, into] = graphs(connection, &tunnel.name);
        [
            connection.to_owned(),
            tunnel.name.clone(),
            rate(tunnel.sent),
            out,
            rate(tunnel.received),
            into,
            total(tunnel.sent),
            total(tunnel.received),
        ]
    };
    [headings].into_iter().chain(tunnels(connections).map(row)).collect()
}

fn tunnels(connections: &[Connection]) -> impl Iterator<Item = (&str, &Tunnel)> {
    connections.iter().flat_map(|connection| connection.tunnels.iter().map(|tunnel| (&*connection.name, tunnel)))
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

fn rate(traffic: Traffic) -> String {
    units::bit_rate(traffic.bits_per_s)
}

fn total(traffic: Traffic) -> String {
    let plural = if traffic.packets == 1 { "packet" } else { "packets" };
    format!("{}, {} {plural}", units::bytes(traffic.bytes), traffic.packets)
}

/// The rows, each cell as wide as the widest of its column; a column without a word takes no room.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths).filter(|(_, width)| *width > 0) {
            let _ = write!(line, "  {cell:width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(super) mod tests;
