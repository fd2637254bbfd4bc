use super::*;
use crate::control::status::{Drop, Handshakes, Interface, State, Wire};

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
        sent: Traffic { packets: 1_000_000, bytes: 1 << 30, packets_per_s: 1000, bits_per_s: 12_340_000 },
        received: Traffic { packets: 1, bytes: 96, packets_per_s: 0, bits_per_s: 0 },
        wire: Wire::default(),
        handshakes: Handshakes::default(),
    }
}

pub(in crate::cli::status) fn status() -> Status {
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
        connections: vec![connection("production", "10.20.0.0/16", tunnel()), connection("lab", "fd00:20::/48", dark)],
        drops: vec![Drop { reason: "out_no_session".into(), packets: 1, sentence: "no session came up".into() }],
        threads: vec![],
        clock_behind_s: 0,
        warnings: vec!["the clock went back by 1 h".into()],
    }
}

#[test]
fn the_table_is_read_at_a_glance() {
    let expected = "\
wan0: degraded; running for 2 h 14 min, port 51820, MTU 1420, workers 4, offloads tcp+udp
  public key 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=

  CONNECTION  TUNNEL  STATE          ENDPOINT                 MTU   HANDSHAKE       HEARD
  production  az-a    up 2 h 13 min  198.51.100.7:51820       1420  1 min 13 s ago  2 s ago
  lab         1       down 5 s       (vpn.example.com:51820)  1420  never           never

  CONNECTION  TUNNEL  OUT          IN       SENT                      RECEIVED
  production  az-a    12.3 Mbit/s  0 bit/s  1.0 GiB, 1000000 packets  96 B, 1 packet
  lab         1       0 bit/s      0 bit/s  0 B, 0 packets            0 B, 0 packets

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

#[test]
fn graphs_stand_beside_the_rates() {
    let graphs = |connection: &str, _: &str| {
        if connection == "lab" { Graphs::default() } else { ["▁█".into(), "█▁".into()] }
    };
    let text = render_with(&status(), graphs);
    let line = text.lines().find(|line| line.contains("Mbit/s")).unwrap();
    assert_eq!(line, "  production  az-a    12.3 Mbit/s  ▁█  0 bit/s  █▁  1.0 GiB, 1000000 packets  96 B, 1 packet");
}
